//! What is refused: in words that say why, with nothing changed.

use super::sh;
use crate::world::World;

#[test]
fn unknown_options_as_getopt_says_it() {
    World::test(|world| {
        let output = world
            .user(["mossnet", "pasta", "--map-nobody", "x"])
            .fails(1);
        let first = output.stderr.lines().next();
        assert_eq!(
            first,
            Some("pasta: unrecognized option '--map-nobody'"),
            "{output}"
        );
        let output = world.user(["mossnet", "pasta", "-Z"]).fails(1);
        assert!(
            output.stderr.starts_with("pasta: invalid option -- 'Z'\n"),
            "{output}"
        );
        let help = world.user(["mossnet", "pasta", "--help"]).ok();
        assert!(help.contains("--dns-forward"), "{help}");
        let version = world.user(["mossnet", "pasta", "--version"]).ok();
        assert!(version.starts_with("pasta (mossnet) "), "{version}");
    });
}

#[test]
fn bad_values_change_nothing() {
    World::test(|world| {
        let script = r#"
            try() { if podmans "$@" 2>>/run/p/err; then exit 9; fi; }
            try -t 99999 -u none
            try -t 80-70
            try -t 8000,8000
            try -u 1.2.3/5
            try -a 1.2.3
            try -m 70000
            try --dns-forward x
            try -I averyverylongname
            try --socket /x
            try --outbound-if4 eth7 $quiet_ports
            try --outbound 203.0.113.99 $quiet_ports
            try -i eth7 $quiet_ports
            try -a 10.0.0.1 -g 10.0.0.1 $quiet_ports
            try -6 -a 10.0.0.1 $quiet_ports
            try -t 203.0.113.99/8080 -u none -T none -U none
            try $quiet_ports -I lo
            if pasta $quiet_ports --netns /run/p/absent 2>>/run/p/err; then exit 9; fi
            if pasta $quiet_ports --netns /run/p/err 2>>/run/p/err; then exit 9; fi
            if pasta $quiet_ports 999999 2>>/run/p/err; then exit 9; fi
            if mossnet pasta sh 2>>/run/p/err; then exit 9; fi
            grep -v '^Usage' /run/p/err
            echo; inside ip -o link | grep -v ': lo:' || true"#;
        let text = sh(world, script).ok();
        let (words, left) = text.split_once("\n\n").expect("both");
        let lines: Vec<&str> = words.lines().collect();
        assert_eq!(lines.len(), 20, "one line each: {text}");
        for line in lines {
            assert!(
                line.starts_with("pasta (mossnet): ") && line.len() > 30,
                "{line}"
            );
        }
        assert_eq!(left.trim(), "", "{text}");
    });
}

/// Without power over the namespace, that is what is said.
#[test]
fn a_namespace_of_somebody_elses() {
    World::test(|world| {
        let words =
            "mossnet pasta --config-net --netns /run/netns/server -t none -u none -T none -U none";
        let output = world.user(words.split(' ')).fails(1);
        assert!(
            output.stderr.contains("/run/netns/server") && output.stderr.contains("power"),
            "{output}"
        );
    });
}
