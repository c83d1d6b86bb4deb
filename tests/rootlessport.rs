//! The rootlessport drop-in by itself: what podman would never write is refused in one line on standard output,
//! which is what podman shows, and nothing is left of it. With podman: `subids/rootlessport.rs`.

use crate::world::{Cmd, seconds};

const INPUT: &str = r#"{"Mappings":[{"host_ip":"127.0.0.1","container_port":80,"host_port":1,"range":1,"protocol":"tcp"}],"NetNSPath":"/proc/self/ns/net","ExitFD":3,"ReadyFD":4,"TmpDir":"PLACE","ChildIP":"10.89.0.2","ContainerID":"abc","RootlessCNI":true}"#;

#[test]
fn bad_input_is_refused_in_one_line() {
    let place = tempfile::tempdir().expect("a directory");
    let good = INPUT.replace("PLACE", &place.path().to_string_lossy());
    let instead = |old: &str, new: &str| good.replace(old, new);
    let descriptors = "exec 3</dev/null 4>/dev/null; exec \"$0\" rootlessport";
    for (input, word) in [
        (String::new(), "EOF"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        ("\u{1}".repeat(10 << 20), "bytes"),
        (instead(r#""ExitFD":3"#, r#""ExitFD":"3""#), "invalid type"),
        (instead(r#""ExitFD":3"#, r#""ExitFD":77"#), "invalid ExitFD"),
        (
            instead(r#""ReadyFD":4"#, r#""ReadyFD":0"#),
            "missing ReadyFD",
        ),
        (instead(r#""tcp""#, r#""tcp,quic""#), "'quic'"),
        (instead(r#""host_port":1"#, r#""host_port":70000"#), "70000"),
        (instead("10.89.0.2", "10.89.0"), "10.89.0"),
        (instead("abc", "../abc"), "../abc"),
        // Too low for a user.
        (good.clone(), "net.ipv4.ip_unprivileged_port_start=1"),
        (
            instead(r#""127.0.0.1""#, r#""192.0.2.77""#)
                .replace("\"host_port\":1", "\"host_port\":39071"),
            "192.0.2.77",
        ),
        // The host's own namespace is no container's.
        (
            instead(r#""host_port":1"#, r#""host_port":39071"#),
            "/proc/self/ns/net",
        ),
        (
            instead(r#""host_port":1"#, r#""host_port":39071"#)
                .replace("/proc/self/ns/net", "/no/such"),
            "/no/such",
        ),
    ] {
        let program = env!("CARGO_BIN_EXE_mossnet");
        let refused = Cmd::new(["sh", "-c", descriptors, program])
            .directory(place.path())
            .stdin(input)
            .timeout(seconds(20))
            .fails(1);
        let said = refused.stdout.trim_end();
        assert!(
            said.contains(word) && !said.contains('\n'),
            "{word}: {refused}"
        );
        assert_eq!(std::fs::read_dir(place.path()).expect("it").count(), 0);
    }
    let words = Cmd::new([env!("CARGO_BIN_EXE_mossnet"), "rootlessport", "x"])
        .directory(place.path())
        .fails(1);
    assert!(words.stdout.contains("too many arguments"), "{words}");
}
