//! Completion of words: a shell runs the script that we print, and asks it as on a press of the tab
//! key. bash shows all there is to know; fish and zsh, that their scripts work, too.

use crate::world::{World, eventually, inspect, installed, seconds};

/// Sets what bash sets when the tab key is pressed after `line`, calls the function that `complete`
/// has registered, and prints the words that it offers.
const PRESS_TAB: &str = r#"
source <(mossnet completion bash) || exit 9
line=$1
COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMP_KEY=9
# As bash does it: apart at blanks, and ':' and '=' are words of their own.
read -ra COMP_WORDS <<<"$(sed 's/[:=]/ & /g' <<<"$line")"
[[ $line == *[[:space:]:=] ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ $line == *[:=] ]] && unset "COMP_WORDS[COMP_CWORD]" && COMP_CWORD=$((COMP_CWORD - 1))
word=${COMP_WORDS[COMP_CWORD]}
[[ $word == [:=] ]] && word=
registered=$(complete -p mossnet | sed 's/.*-F \([^ ]*\) .*/\1/')
"$registered" mossnet "$word" "${COMP_WORDS[COMP_CWORD - 1]}" 2>&1
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// What bash offers after `line`, in its order.
#[track_caller]
fn offered(world: &World, line: &str) -> Vec<String> {
    let bash = ["bash", "--norc", "-c", PRESS_TAB, "bash", line];
    let printed = world
        .user(bash)
        .env("MOSSNET_ROOT", crate::world::ROOT)
        .ok();
    printed
        .lines()
        .map(|word| word.trim_end().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn bash_knows_names() {
    World::test(|world| {
        if !installed("bash") {
            return;
        }
        world.mossnet(["network", "create", "lab"]).ok();
        world.detached("web", ["sleep", "1000"]);
        world.mossnet(["run", "--name", "done", "--", "true"]).ok();
        for (line, words) in [
            ("mossnet network r", &["rm"][..]),
            ("mossnet network rm l", &["lab"]),
            ("mossnet network rm ", &["bridge", "lab", "host", "none"]),
            ("mossnet network connect lab ", &["done", "web"]),
            ("mossnet stop ", &["web"]),
            ("mossnet rm d", &["done"]),
            ("mossnet exec -it w", &["web"]),
            ("mossnet inspect la", &["lab"]),
            ("mossnet run --network l", &["lab"]),
            ("mossnet run --network=l", &["lab"]),
            ("mossnet run --network container:w", &["web"]),
            ("mossnet run --network container:", &["web"]),
            ("mossnet run --name x --link w", &["web"]),
            ("mossnet network graph --format s", &["svg"]),
            ("mossnet rm nobody", &[]),
            // An empty word asks for names; flags are for whoever types a dash.
            ("mossnet rm ", &["done", "web"]),
            (
                "mossnet inspect ",
                &["bridge", "done", "host", "lab", "none", "web"],
            ),
            ("mossnet network disconnect -f lab ", &["done", "web"]),
            ("mossnet network rm --f", &["--force"]),
            ("mossnet network rm -", &["--root", "-V", "-f", "-h"]),
        ] {
            let mut found = offered(world, line);
            let mut expected = words.to_vec();
            found.sort();
            expected.sort_unstable();
            assert_eq!(found, expected, "{line}");
        }
        world.mossnet(["rm", "-f", "web", "done"]).ok();
        world.mossnet(["network", "rm", "lab"]).ok();
    });
}

/// What fish offers after the line that is its first argument.
const ASK_FISH: &str = r#"mossnet completion fish | source; complete -C "$argv[1]""#;

#[test]
fn fish_knows_names() {
    World::test(|world| {
        if !installed("fish") {
            return;
        }
        world.mossnet(["network", "create", "lab"]).ok();
        world.detached("web", ["sleep", "1000"]);
        for (line, words) in [
            ("mossnet network rm l", &["lab"][..]),
            ("mossnet stop ", &["web"]),
            ("mossnet network rm ", &["bridge", "host", "lab", "none"]),
            ("mossnet network graph --format s", &["svg"]),
        ] {
            let fish = ["fish", "--no-config", "-c", ASK_FISH, line];
            let fish = world.user(fish).env("MOSSNET_ROOT", crate::world::ROOT);
            let shown = fish.env("HOME", "/run/world/home").ok();
            // Each with what it is, after a tab.
            let word = |line: &str| line.split('\t').next().unwrap_or(line).to_owned();
            let mut found: Vec<_> = shown.lines().map(word).collect();
            found.sort();
            assert_eq!(found, words, "{line}: {shown}");
        }
        world.mossnet(["rm", "-f", "web"]).ok();
        world.mossnet(["network", "rm", "lab"]).ok();
    });
}

/// zsh completes only where somebody types: in a terminal of its own, in which a line (`$1`) is typed, completed by
/// the tab key, which shows a word (`$2`), and run.
const TYPE_ZSH: &str = r#"
zmodload zsh/zpty && zpty shell zsh -f -i || exit 9
zpty -w shell 'PROMPT="> "; autoload -Uz compinit; compinit -u -D
source <(mossnet completion zsh); print loa""ded'
zpty -r -m shell seen '*loaded*'
zpty -w -n shell "$1"$'\t'
# What it has become is shown before it is run.
zpty -r -m shell seen "*$2*"
zpty -w shell '; print "exit=$?."'
zpty -r -m shell seen '*exit=[0-9].*'
print -r -- "$seen"
"#;

#[test]
fn zsh_knows_names() {
    World::test(|world| {
        if !installed("zsh") {
            return;
        }
        world.mossnet(["network", "create", "lab"]).ok();
        let zsh = [
            "zsh",
            "-f",
            "-c",
            TYPE_ZSH,
            "zsh",
            "mossnet network exists l",
            "lab",
        ];
        let zsh = world.user(zsh).env("MOSSNET_ROOT", crate::world::ROOT);
        let shown = zsh.env("TERM", "vt100").timeout(seconds(60)).ok();
        assert!(shown.contains("exit=0."), "{shown}");
        world.mossnet(["network", "rm", "lab"]).ok();
    });
}

#[test]
fn no_daemon_is_started_to_complete() {
    World::test(|world| {
        if !installed("bash") {
            return;
        }
        // No name is known, so there is nothing but flags.
        let flags = offered(world, "mossnet network rm ");
        assert!(flags.contains(&"--force".to_owned()), "{flags:?}");
        assert!(flags.iter().all(|word| word.starts_with('-')), "{flags:?}");
        assert!(inspect::mossnet_processes("daemon").is_empty());
        assert!(!std::path::Path::new(crate::world::ROOT).exists());
        world.detached("web", ["sleep", "1000"]);
        world
            .mossnet(["rm", "-f", "web"])
            .env("MOSSNET_IDLE", "0")
            .ok();
        world.mossnet(["shutdown", "--all"]).ok();
        eventually(seconds(10), "the daemon ends", || {
            inspect::mossnet_processes("daemon").is_empty()
        });
        // Its socket may still be there.
        let flags = offered(world, "mossnet network rm ");
        assert!(flags.iter().all(|word| word.starts_with('-')), "{flags:?}");
        assert!(inspect::mossnet_processes("daemon").is_empty());
    });
}
