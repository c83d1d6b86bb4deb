use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ')
        .filter(|word| !word.is_empty())
        .map(OsString::from)
        .collect()
}

fn options(line: &str) -> Options {
    match read(words(line)) {
        Ok(Wanted::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    read(words(line)).unwrap_err().to_string()
}

/// As containers/common writes it.
const PODMAN: &str = "--config-net --pid /run/p -t 127.0.0.1/8080-8080:80-80 -u none -T none -U none \
    --no-map-gw --dns-forward 169.254.1.1 --map-guest-addr 169.254.1.2 --quiet --netns /run/netns/x";

#[test]
fn podmans_words() {
    let options = options(PODMAN);
    assert_eq!(options.target, Target::Path("/run/netns/x".into()));
    assert_eq!(options.pid_file, Some("/run/p".into()));
    assert_eq!(
        options.dns_forward,
        ["169.254.1.1".parse::<IpAddr>().unwrap()]
    );
    let host = Stand::At("169.254.1.2".parse().unwrap());
    assert_eq!(options.host_address, [host, Stand::Unsaid]);
    assert!(!options.map_gw && options.quit_with_netns && !options.foreground);
    assert!(matches!(&options.inward, [Ports::Listed(_), Ports::None]));
    assert_eq!(options.outward, [Ports::None, Ports::None]);
}

#[test]
fn rootlesskits_words() {
    let options = options(
        "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 \
         --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only --tcp-ports=auto \
         --udp-ports=auto 4711",
    );
    assert_eq!(options.target, Target::Process(4711));
    assert_eq!((options.netmask, options.mtu), (Some(24), Some(65_520)));
    assert_eq!(options.families, [true, false]);
    assert_eq!(options.inward, [Ports::Auto, Ports::Auto]);
    assert_eq!(options.outward, [Ports::Unsaid, Ports::Unsaid]);
    assert_eq!(options.ifname.unwrap().as_str(), "tap0");
}

#[test]
fn who_is_served() {
    let target = |line: &str| options(line).target;
    assert_eq!(target("--config-net"), Target::Command(Vec::new()));
    assert_eq!(
        target("--config-net sh -c x"),
        Target::Command(words("sh -c x"))
    );
    assert_eq!(target("--config-net 12 x"), Target::Command(words("12 x")));
    assert_eq!(
        target("--config-net --netns x"),
        Target::Path("/run/netns/x".into())
    );
    assert_eq!(read(words("-h --config-net")), Ok(Wanted::Help));
    assert_eq!(read(words("--version")), Ok(Wanted::Version));
}

#[test]
fn values_are_checked() {
    for (line, text) in [
        ("--x", "unrecognized option '--x'"),
        (
            "sh",
            "give --config-net: addresses and routes are set at once, there is no DHCP server to ask for them",
        ),
        (
            "--config-net -m 65521",
            "--mtu: '65521' is not an MTU, 68 to 65520, or 0",
        ),
        (
            "--config-net -a 1.2.3",
            "--address: '1.2.3' is not an IP address",
        ),
        (
            "--config-net -a 127.0.0.1",
            "--address: '127.0.0.1' is not an address that one host can have",
        ),
        (
            "--config-net -n 255.0.255.0",
            "--netmask: '255.0.255.0' is not a netmask, 255.255.255.0 or 24",
        ),
        (
            "--config-net -t foo",
            "--tcp-ports: invalid port specifier 'foo'",
        ),
        (
            "--config-net -T 1.2.3.4/5",
            "--tcp-ns: '1.2.3.4/5' is not a list of ports: the namespace's loopback is where they are",
        ),
        (
            "--config-net -4 -6",
            "--ipv4-only and --ipv6-only exclude each other",
        ),
        (
            "--config-net --netns x y",
            "--netns and a process or command exclude each other",
        ),
        (
            "--config-net -s /x",
            "--socket is not supported: it is for virtual machines (passt)",
        ),
        (
            "--config-net --map-guest-addr x",
            "--map-guest-addr: 'x' is not an IP address or 'none'",
        ),
    ] {
        assert_eq!(refusal(line), text, "{line}");
    }
}

#[test]
fn every_option_is_known_once() {
    let mut seen = std::collections::BTreeSet::new();
    for (short, long, _) in ALL.iter() {
        assert!(seen.insert(long.to_string()), "{long}");
        assert!(
            short.is_none_or(|short| seen.insert(short.to_string())),
            "{short:?}"
        );
    }
}
