//! `mossnet-helper check` and the other words.

use crate::user::as_user;
use crate::world::{ALICE, GRANTS, MALLORY, PROGRAM, World, set_mode};
use std::process::{Command, Output};

fn program(uid: u32, words: &[&str]) -> Output {
    as_user(uid, &[], || {
        Command::new(PROGRAM)
            .args(words)
            .output()
            .expect("the program")
    })
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

pub fn tells_who_may_do_what(world: &World) {
    let (own, _) = text(&program(ALICE, &["check"]));
    assert!(own.contains("grants.toml, grant 1, to uid 1000:"), "{own}");
    assert!(own.contains("bind 80/tcp, 53/udp, 443-444/tcp"), "{own}");
    assert!(
        own.contains("uplink for subnets of 10.89.0.0/16, fd00:89::/48"),
        "{own}"
    );
    assert!(own.contains("nic0 as no address"), "{own}");
    assert!(own.contains("together: 3 interfaces"), "{own}");
    assert_eq!(text(&program(ALICE, &["check", "alice"])).0, own);
    assert_eq!(text(&program(0, &["check", "alice"])).0, own);
    assert_eq!(text(&program(0, &["check", "1000"])).0, own);
    let denied = (String::new(), "mossnet-helper: denied\n".to_owned());
    for who in ["bob", "0", "no-such-user"] {
        let output = program(ALICE, &["check", who]);
        assert!(!output.status.success());
        assert_eq!(text(&output), denied, "{who}");
    }
    let nothing = "uid 1002 is granted nothing\n";
    assert_eq!(text(&program(MALLORY, &["check"])).0, nothing);
    let unknown = text(&program(0, &["check", "no-such-user"]));
    assert!(unknown.1.contains("no user 'no-such-user'"), "{unknown:?}");
    world.grant(&GRANTS.replacen("alice", "carol", 1));
    let (warned, _) = text(&program(0, &["check", "1001"]));
    assert!(
        warned.contains("warning: grants.toml, grant 1, is user 'carol'"),
        "{warned}"
    );
    assert!(!text(&program(1001, &["check"])).0.contains("carol"));
    // A group from /etc/group, for root who asks about another.
    world.grant("[[grant]]\ngroup = 'shared'\nverbs = ['veth']\n");
    let (grouped, _) = text(&program(0, &["check", "bob"]));
    assert!(
        grouped.contains("to gid 991, which uid 1001 is in"),
        "{grouped}"
    );
    // What is wrong with the file is for root alone.
    set_mode("/etc/mossnet/grants.toml", 0o666);
    assert_eq!(text(&program(ALICE, &["check"])), denied);
    let (_, wrong) = text(&program(0, &["check"]));
    assert!(
        wrong.contains("nobody is granted anything: /etc/mossnet/grants.toml: writable"),
        "{wrong}"
    );
    for (words, expected) in [
        (&["--version"][..], "mossnet-helper 0."),
        (&["help"], "grants.toml"),
    ] {
        assert!(
            text(&program(MALLORY, words)).0.contains(expected),
            "{words:?}"
        );
    }
    assert_eq!(text(&program(ALICE, &["--policy", "/tmp/x"])), denied);
}
