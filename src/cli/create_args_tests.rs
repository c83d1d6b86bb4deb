use super::*;
use crate::api::network_types::{Link, NetworkAttach};
use crate::api::port_types::{PortsPublish, SourceAddress};
use crate::api::types::HostTarget;
use crate::api::types::NetworkMode;
use crate::cli::{Cli, Command};
use clap::Parser;
use std::net::Ipv4Addr;

fn run(words: &[&str]) -> Result<RunArgs, clap::Error> {
    let words = ["mossnet", "run"].iter().chain(words);
    match Cli::try_parse_from(words)?.command {
        Command::Run(args) => Ok(*args),
        other => panic!("not run: {other:?}"),
    }
}

fn exec(words: &[&str]) -> Result<ExecArgs, clap::Error> {
    let words = ["mossnet", "exec"].iter().chain(words);
    match Cli::try_parse_from(words)?.command {
        Command::Exec(args) => Ok(args),
        other => panic!("not exec: {other:?}"),
    }
}

#[test]
fn the_command_keeps_its_own_flags() {
    for (words, command) in [
        (&["sh"][..], &["sh"][..]),
        (&["--", "sh"], &["sh"]),
        (&["sh", "-c", "exit 3"], &["sh", "-c", "exit 3"]),
        (&["--rm", "sh", "--rm", "-d"], &["sh", "--rm", "-d"]),
        (&["--", "-x", "--help"], &["-x", "--help"]),
        (&["echo", "--", "a"], &["echo", "--", "a"]),
        (&["--", "echo", "--", "a"], &["echo", "--", "a"]),
        (&["ls", "--root", "/x"], &["ls", "--root", "/x"]),
        (&["ls", "--version"], &["ls", "--version"]),
    ] {
        assert_eq!(run(words).unwrap().command, command, "{words:?}");
    }
    for (words, command) in [
        (&["web", "ls", "-l"][..], &["ls", "-l"][..]),
        (&["web", "--", "ls", "-l"], &["ls", "-l"]),
        (&["-it", "web", "--", "sh", "-i"], &["sh", "-i"]),
        (&["web", "echo", "--", "a"], &["echo", "--", "a"]),
    ] {
        let args = exec(words).unwrap();
        assert_eq!(
            (args.sandbox.as_str(), args.command.as_slice()),
            (
                "web",
                &command.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()[..]
            ),
            "{words:?}"
        );
    }
    assert!(run(&[]).is_err());
    assert!(run(&["--nonsense", "sh"]).is_err());
    assert!(exec(&["web"]).is_err());
}

#[test]
fn every_flag_of_run_reaches_the_request() {
    let rootfs = tempfile::tempdir().unwrap();
    let line = "-d --rm --name web -h box --net mine --net-alias db --link old:store --ip 10.89.0.9 --ip6 fd00::9 \
        --mac-address 02:42:0A:59:00:09 --dns 1.1.1.1 --dns ::1 --dns-search example.org \
        --add-host db:10.89.0.5 --add-host host:host-gateway --host-loopback --host-ports 53/udp,80 -e A=1 --env B=2 -e A=3 -w /srv --cap-add sys_time --cap-drop ALL \
        -p 8080:80 -p [::1]::53/udp -P --expose 9000 \
        --publish-iface eth1 --source-address gateway --uplink slirp --rootfs";
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend([rootfs.path().to_str().unwrap(), "--", "sh", "-c", "x"]);
    let request = run(&words).unwrap().request().unwrap();
    let expected = SandboxCreate {
        name: Some("web".into()),
        hostname: Some("box".into()),
        network: Some(NetworkMode::Networks(vec![NetworkAttach {
            network: "mine".into(),
            ip: Some(Ipv4Addr::new(10, 89, 0, 9)),
            ip6: Some("fd00::9".parse().unwrap()),
            mac_address: Some("02:42:0a:59:00:09".parse().unwrap()),
            aliases: vec!["db".into()],
            ..NetworkAttach::default()
        }])),
        links: vec![Link {
            sandbox: "old".into(),
            alias: Some("store".into()),
        }],
        dns: vec!["1.1.1.1".parse().unwrap(), "::1".parse().unwrap()],
        dns_search: vec!["example.org".into()],
        add_host: vec![
            ("db".into(), "10.89.0.5".parse().unwrap()),
            ("host".into(), HostTarget::HostGateway),
        ],
        env: vec![("B".into(), "2".into()), ("A".into(), "3".into())],
        workdir: Some("/srv".into()),
        caller_dir: std::env::current_dir().ok(),
        caller_home: std::env::home_dir(),
        rootfs: Some(rootfs.path().canonicalize().unwrap()),
        cap_add: vec!["CAP_SYS_TIME".into()],
        cap_drop: vec!["ALL".into()],
        command: vec!["sh".into(), "-c".into(), "x".into()],
        stdio: Stdio::Detached,
        interactive: false,
        tty: false,
        auto_remove: true,
        uplink: Some(Uplink::Slirp),
        publish: PortsPublish {
            ports: ["8080:80", "[::1]::53/udp"]
                .map(|spec| spec.parse().unwrap())
                .into(),
            source_address: SourceAddress::Gateway,
            interface: Some("eth1".into()),
        },
        publish_all: true,
        expose: vec!["9000/tcp".parse().unwrap()],
        host_loopback: Some("80,53/udp".to_owned().try_into().unwrap()),
    };
    assert_eq!(request, expected);
}

#[test]
fn the_default_is_attached_to_nothing_special() {
    let request = run(&["true"]).unwrap().request().unwrap();
    assert_eq!(request.network, None);
    assert_eq!(request.stdio, Stdio::Attached);
    assert!(!request.tty && !request.auto_remove);
    assert!(request.env.is_empty());
}

#[test]
fn wrong_values_are_refused_before_any_daemon() {
    for words in [
        &["--ip", "10.0.0.256", "x"][..],
        &["--ip", "fd00::1", "x"],
        &["--ip6", "10.0.0.1", "x"],
        &["--mac-address", "01:00:00:00:00:00", "x"],
        &["--mac-address", "02:42", "x"],
        &["--dns", "example.org", "x"],
        &["--dns-search", "a b", "x"],
        &["--add-host", "db", "x"],
        &["--name", "-x", "x"],
        &["--name", "a/b", "x"],
        &["--name", "", "x"],
        &["--hostname", "a_b", "x"],
        &["--network", "container:", "x"],
        &["--network", "a b", "x"],
        &["--workdir", "relative", "x"],
        &["--cap-add", "NOTHING", "x"],
        &["--uplink", "carrier-pigeon", "x"],
        &["-e", "", "x"],
    ] {
        assert!(run(words).is_err(), "{words:?}");
    }
    for (words, message) in [
        (&["-e", "=x", "x"][..], "environment variable '=x'"),
        (
            &["--env-file", "/nonexistent", "x"],
            "read environment file /nonexistent",
        ),
        (&["--rootfs", "/nonexistent", "x"], "--rootfs /nonexistent"),
        (&["--rootfs", "/etc/passwd", "x"], "--rootfs /etc/passwd"),
        (
            &["--network", "none", "--ip", "10.0.0.1", "x"],
            "--ip cannot be used with --network none",
        ),
    ] {
        let error = run(words).unwrap().request().unwrap_err();
        assert!(error.to_string().contains(message), "{words:?}: {error}");
    }
}

#[test]
fn a_terminal_needs_a_terminal() {
    let detached = run(&["-dit", "sh"]).unwrap().request().unwrap();
    assert!(detached.tty && detached.interactive, "nobody types there");
    let outcome = run(&["-it", "sh"]).unwrap().request();
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        assert!(outcome.unwrap().tty);
    } else {
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "the input device is not a TTY"
        );
    }
}
