//! The helper as a whole, over its socket: a process of uid 1000 (or the caller's, if that is not
//! root) starts it, speaks to it, and looks at what it has made. This program plays all parts: the
//! tests, the helper, and a relay that only keeps its side of the conversation.
//! `cargo test -p mossnet-helper --test helper -- WORD` runs those whose name contains WORD.

// Nothing but tests here, though clippy cannot know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
mod client;
mod fake_relay;
#[path = "../harness/mod.rs"]
mod harness;
mod world;

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Names the test that this process is to run.
const CASE: &str = "MOSSNET_HELPER_CASE";

/// A tun device node that everyone may use, made by whoever runs the tests as root.
const TUN: &str = "MOSSNET_TEST_TUN";

/// Whom root becomes.
const UNPRIVILEGED: u32 = 1000;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    match args.peek().and_then(|word| word.to_str()) {
        Some("helper") => return mossnet_helper::serve::main(args.skip(1)),
        Some(mossnet_helper::remover::WORD) => return mossnet_helper::remover::main(),
        Some("relay") => return fake_relay::main(),
        _ => {}
    }
    if let Ok(name) = std::env::var(CASE) {
        return run_case(&name);
    }
    harness::run_all(cases::ALL.iter().map(|(name, _)| *name), in_process)
}

/// Run one test in a process of its own.
fn in_process(name: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new("/proc/self/exe");
    if name == cases::EXTERNAL && root {
        command = with_tun();
    } else if name == cases::EXTERNAL && !usable_tun() {
        let Some(tun) = std::env::var_os(TUN) else {
            harness::skip(name, "/dev/net/tun is not for us");
            return true;
        };
        command = over_tun(&tun);
    } else if name == cases::FORBIDDEN {
        command = where_forbidden();
    }
    command.env(CASE, name).current_dir("/");
    if root && name != cases::EXTERNAL {
        // For root, std also drops the supplementary groups.
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command.status().unwrap().success()
}

/// This program where everyone may use /dev/net/tun, as on a desktop.
fn with_tun() -> Command {
    const SCRIPT: &str = "directory=$(mktemp -d) && mknod -m 666 $directory/tun c 10 200 && \
        mount --bind $directory/tun /dev/net/tun; rm -r $directory; \
        exec setpriv --reuid $1 --regid $1 --clear-groups $0";
    let mut command = Command::new("unshare");
    let exe = std::env::current_exe().unwrap();
    command
        .args(["--mount", "sh", "-c", SCRIPT])
        .arg(exe)
        .arg(UNPRIVILEGED.to_string());
    command
}

/// Whether /dev/net/tun may be used as it is.
fn usable_tun() -> bool {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open("/dev/net/tun").is_ok()
}

/// This program where `tun`, which we may use, lies over /dev/net/tun.
fn over_tun(tun: &OsStr) -> Command {
    const SCRIPT: &str = "mount --bind \"$1\" /dev/net/tun && \
        exec setpriv --inh-caps=-all --ambient-caps=-all -- \"$0\"";
    let mut command = Command::new("unshare");
    let exe = std::env::current_exe().unwrap();
    command
        .args(["--user", "--map-current-user", "--keep-caps", "--mount"])
        .args(["sh", "-c", SCRIPT])
        .arg(exe)
        .arg(tun);
    command
}

/// This program where the administrator has forbidden user namespaces.
fn where_forbidden() -> Command {
    const SCRIPT: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec $0";
    let mut command = Command::new("unshare");
    let exe = std::env::current_exe().unwrap();
    command
        .args(["--user", "--map-root-user", "sh", "-c", SCRIPT])
        .arg(exe);
    command
}

fn run_case(name: &str) -> ExitCode {
    match cases::ALL.iter().find(|(known, _)| *known == name) {
        Some((_, case)) => {
            case();
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}
