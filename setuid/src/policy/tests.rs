use super::parse::Fault;
use super::*;

const GOOD: &str = r#"
    [[grant]]
    user = "alice"
    verbs = ["uplink", "bind", "veth"]
    subnets = ["10.89.0.0/16", "fd00:89::/48"]
    ports = ["80/tcp", "8000-8010/udp"]
    quota = { interfaces = 2 }

    [[grant]]
    group = 50
    verbs = ["bridge"]
    bridges = [{ name = "br0", addresses = ["192.168.7.0/28"] }, { name = "br1" }]
    quota = { interfaces = 5, requests-per-minute = 10 }

    [[grant]]
    user = "nobody-here"
    verbs = ["veth"]
"#;

fn accounts() -> Accounts {
    Accounts::parse("alice:x:1000:1000::/:\n", "net:x:50:\n")
}

fn policy(text: &str) -> Result<Policy, PolicyError> {
    let mut policy = Policy::default();
    policy.add("grants.toml", text, &accounts())?;
    Ok(policy)
}

fn caller(uid: u32, gids: &[u32]) -> Caller {
    Caller {
        uid,
        gids: gids.iter().copied().collect(),
    }
}

#[test]
fn a_caller_has_what_all_its_grants_give() {
    let policy = policy(GOOD).expect("a policy");
    assert_eq!(policy.rights(&caller(1001, &[1001])), None);
    let alice = policy.rights(&caller(1000, &[1000])).expect("rights");
    assert!(alice.allow(Verb::Uplink) && !alice.allow(Verb::Bridge));
    let net = |text: &str| text.parse().expect("a prefix");
    assert!(alice.allow_subnet(&net("10.89.7.0/24")));
    assert!(!alice.allow_subnet(&net("10.0.0.0/8")) && !alice.allow_subnet(&net("10.90.0.0/24")));
    assert!(alice.allow_port(Protocol::Tcp, 80) && !alice.allow_port(Protocol::Udp, 80));
    assert!(alice.allow_port(Protocol::Udp, 8010) && !alice.allow_port(Protocol::Udp, 8011));
    assert_eq!(alice.quota.interfaces, 2);
    let both = policy.rights(&caller(1000, &[50])).expect("rights");
    assert_eq!((both.quota.interfaces, both.quota.ports), (5, 8));
    assert_eq!(both.quota.requests_per_minute, 120);
    let (br0, br9) = (
        "br0".parse().expect("a name"),
        "br9".parse().expect("a name"),
    );
    assert_eq!(
        both.allow_on_bridge(&br0, &[net("192.168.7.3/32")]),
        Some(true)
    );
    assert_eq!(
        both.allow_on_bridge(&br0, &[net("192.168.7.16/32")]),
        Some(false)
    );
    assert_eq!(both.allow_on_bridge(&br9, &[]), None);
    assert_eq!(policy.void().count(), 1);
    assert!(
        policy
            .void()
            .all(|grant| grant.holder.to_string().contains("unknown"))
    );
}

#[test]
fn what_makes_no_sense_is_an_error() {
    for bad in [
        "x = 1",
        "[[grant]]\nuser = 1\nverbs = ['veth']\nsurprise = 1",
        "[[grant]]\nuser = 1\nverbs = ['fly']",
        "[[grant]]\nuser = 1\nverbs = ['veth']\nquota = { links = 3 }",
        "[[grant]]\nuser = -1\nverbs = ['veth']",
        "[[grant]]\nuser = 1\nuser = 2\nverbs = ['veth']",
        "[[grant]]\nuser = 1\nverbs = ['uplink']\nsubnets = ['10.0.0.0/33']",
        "[grant",
    ] {
        let error = policy(bad).expect_err(bad);
        assert!(
            matches!(error, PolicyError::Syntax { .. }),
            "{bad}: {error}"
        );
        assert!(error.to_string().starts_with("grants.toml: "), "{error}");
    }
}

fn grant(rest: &str) -> String {
    format!("[[grant]]\nuser = 1\n{rest}")
}

fn expect_fault(text: &str, expected: &Fault) {
    match policy(text).expect_err(text) {
        PolicyError::Grant {
            number: 1, fault, ..
        } => assert_eq!(&fault, expected, "{text}"),
        other => panic!("{text}: {other}"),
    }
}

#[test]
fn a_faulty_grant_is_named() {
    let (list, verb) = ("ports", "bind");
    expect_fault("[[grant]]\nverbs = ['veth']", &Fault::Holder);
    expect_fault(&grant("group = 2\nverbs = ['veth']"), &Fault::Holder);
    expect_fault(&grant("verbs = []"), &Fault::NoVerbs);
    let idle = grant("verbs = ['veth']\nports = ['80/tcp']");
    expect_fault(&idle, &Fault::Idle { list, verb });
    let empty = grant("verbs = ['bind']");
    expect_fault(&empty, &Fault::Empty { verb, list });
    let bridge = grant("verbs = ['bridge']\nbridges = [{ name = 'a/b' }]");
    expect_fault(&bridge, &Fault::Bridge("a/b".to_owned()));
    let twice = grant("verbs = ['bridge']\nbridges = [{ name = 'b' }, { name = 'b' }]");
    expect_fault(&twice, &Fault::Twice("b".parse().expect("a name")));
    let (name, most) = ("interfaces", 1024);
    let none = grant("verbs = ['veth']\nquota = { interfaces = 0 }");
    expect_fault(&none, &Fault::Quota { name, most });
}

#[test]
fn networks_and_ports_that_cannot_be_granted_are_named() {
    let v4 = [
        "0.0.0.0/0",
        "10.0.0.1/8",
        "127.0.0.0/16",
        "169.254.0.0/24",
        "224.0.0.0/8",
        "64.0.0.0/2",
    ];
    let v6 = ["fe80::/64", "ff00::/16", "::/16", "::1/128", "0.0.0.0/1"];
    for net in v4.iter().chain(&v6) {
        let text = grant(&format!("verbs = ['uplink']\nsubnets = ['{net}']"));
        expect_fault(&text, &Fault::Prefix(net.parse().expect("a prefix")));
    }
    for port in [
        "80",
        "tcp/80",
        "0/tcp",
        "90-80/tcp",
        "+80/tcp",
        "80/sctp",
        "65536/tcp",
        "-/tcp",
    ] {
        let text = grant(&format!("verbs = ['bind']\nports = ['{port}']"));
        expect_fault(&text, &Fault::Port(port.to_owned()));
    }
}

#[test]
fn grants_are_counted() {
    let many = "[[grant]]\nuser = 1\nverbs = ['veth']\n".repeat(MAX_GRANTS + 1);
    assert!(matches!(policy(&many), Err(PolicyError::TooMany { .. })));
}
