#!/bin/sh
# Coverage of the privileged crate by its own tests, those with real capabilities included: lines of
# setuid/src, and how large the crate is. Needs root, and llvm-profdata and llvm-cov of the LLVM version
# that `rustc -vV` tells (Debian: llvm-22), in LLVM_BIN or the PATH.
#
# Usage: setuid/coverage.sh [--fail-under PERCENT]
set -eu
cd "$(dirname "$0")/.."

least=0
[ "${1:-}" = --fail-under ] && least=$2
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
bin=${LLVM_BIN:-/usr/lib/llvm-$major/bin}
[ -x "$bin/llvm-cov" ] || bin=$(dirname "$(command -v llvm-cov)")

target=$PWD/target/coverage
raw=$target/raw
rm -rf "$raw"
mkdir -p "$raw"
# Unprivileged users write there, too.
chmod 1777 "$raw"
export CARGO_TARGET_DIR=$target RUSTFLAGS=-Cinstrument-coverage
# What the compiler itself runs is instrumented, too.
programs=$(LLVM_PROFILE_FILE=$target/build-%m.profraw cargo test --locked -p mossnet-setuid --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
failed=0
for program in $programs; do
    case $program in
    *privileged-*) MOSSNET_SETUID_COVERAGE=$raw LLVM_PROFILE_FILE=$raw/%p-%m.profraw "$program" || failed=1 ;;
    */mossnet-helper) ;;
    *) LLVM_PROFILE_FILE=$raw/%p-%m.profraw "$program" || failed=1 ;;
    esac
done
objects=
for program in $programs; do objects="$objects --object $program"; done
find "$raw" -name '*.profraw' >"$target/files"
"$bin/llvm-profdata" merge --sparse --failure-mode=warn --input-files="$target/files" --output="$target/all.profdata"
# Unit tests stand in files of their own, or behind a cfg(test) that no count should be about.
ignore='/(tests|registry|rustc|netlink)/|/tests\.rs$'
# shellcheck disable=SC2086
"$bin/llvm-cov" report --instr-profile="$target/all.profdata" --ignore-filename-regex="$ignore" $objects |
    tee "$target/report"
lines=$(awk '/^TOTAL/ { sub("%", "", $10); print $10 }' "$target/report")
echo "lines covered: $lines %"
echo "lines of code: $(find setuid/src netlink/src -name '*.rs' ! -name tests.rs ! -path '*/tests/*' -exec sed '/#\[cfg(test)\]/,$d' {} \; | grep -cvE '^\s*(//|$)') of setuid/src and netlink/src, without tests, comments and empty lines"
unset RUSTFLAGS
echo "crates linked: $(cargo tree --locked -p mossnet-setuid -e normal,no-proc-macro --prefix none 2>/dev/null | sed 's/ (.*//' | sort -u | grep -vc '^mossnet-setuid ')"
[ "$failed" = 0 ] || echo "some tests failed"
awk -v failed="$failed" -v lines="$lines" -v least="$least" 'BEGIN { exit failed || lines + 0 < least + 0 }'
