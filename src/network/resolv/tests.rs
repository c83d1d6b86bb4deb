//! What hosts have in their resolv.conf, and what sandboxes get.

use super::*;
use proptest::prelude::*;

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

const RESOLVED: &str = "# This is /run/systemd/resolve/stub-resolv.conf managed by man:...\n\
    \n\
    nameserver 127.0.0.53\n\
    options edns0 trust-ad\n\
    search fritz.box corp.example.\n";

#[test]
fn a_usual_file_is_read() {
    let host = HostResolver::parse(RESOLVED);
    assert_eq!(host.nameservers, addresses(&["127.0.0.53"]));
    assert_eq!(host.search, ["fritz.box", "corp.example"]);
    assert_eq!(host.options, ["edns0", "trust-ad"]);
    assert_eq!(host.warnings, []);
}

#[test]
fn oddities_are_tolerated_and_named() {
    let host = HostResolver::parse(
        "nameserver\t192.0.2.1 # office\r\n  nameserver 192.0.2.1\nnameserver ::1\n\
         nameserver fe80::1%eth0\nnameserver dns.example\nnameserver\n\
         domain old.example\nsearch new.example ; rest\nfrobnicate \u{7f}\n; end\n#\nnameserver 0.0.0.0",
    );
    assert_eq!(
        host.nameservers,
        addresses(&["192.0.2.1", "::1", "127.0.0.1"])
    );
    assert_eq!(host.search, ["new.example"]);
    let warnings: Vec<_> = host.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "line 4: link-local name server 'fe80::1%eth0' cannot be asked on behalf of a sandbox",
            "line 5: 'dns.example' is not an address",
            "line 6: '' is not an address",
            "line 9: unknown keyword 'frobnicate'",
        ]
    );
}

#[test]
fn without_a_name_server_the_machine_itself_is_asked() {
    for text in ["", "search corp.example\n", "garbage"] {
        let view = HostResolver::parse(text).view();
        assert_eq!(view.nameservers, addresses(&["127.0.0.1"]), "{text:?}");
    }
}

#[test]
fn a_sandbox_asks_its_gateway_with_the_hosts_search_and_options() {
    let host = HostResolver::parse(&format!("{RESOLVED}options ndots:2\n"));
    let gateways = addresses(&["fd00:89::1", "10.89.0.1"]);
    let conf = ResolvConf {
        gateways: &gateways,
        named: true,
        ..ResolvConf::default()
    };
    assert_eq!(
        conf.render(&host).unwrap(),
        "nameserver 10.89.0.1\nsearch fritz.box corp.example\noptions edns0 trust-ad ndots:0\n"
    );
    let unnamed = ResolvConf {
        named: false,
        ..conf
    };
    assert!(
        unnamed
            .render(&host)
            .unwrap()
            .ends_with("options edns0 trust-ad ndots:2\n")
    );
    let none = ResolvConf::default()
        .render(&HostResolver::parse(""))
        .unwrap();
    assert_eq!(none, "");
}

#[test]
fn what_the_user_gives_replaces_the_hosts() {
    let host = HostResolver::parse(RESOLVED);
    let gateways = addresses(&["10.89.0.1"]);
    let (dns, search) = (
        addresses(&["192.0.2.53", "2001:db8::53"]),
        vec!["a.example.".to_owned()],
    );
    let conf = ResolvConf {
        gateways: &gateways,
        named: false,
        dns: &dns,
        dns_search: &search,
    };
    assert_eq!(
        conf.render(&host).unwrap(),
        "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.example\noptions edns0 trust-ad\n"
    );
    let no_search = [".".to_owned()];
    let conf = ResolvConf {
        dns_search: &no_search,
        ..conf
    };
    assert!(!conf.render(&host).unwrap().contains("search"));
}

#[test]
fn a_hosts_file_names_the_sandbox_and_what_was_added() {
    let own = addresses(&["10.89.0.2", "fd00:89::2"]);
    let extra = [("db".to_owned(), "192.0.2.7".parse().unwrap())];
    let hosts = Hosts {
        addresses: &own,
        hostname: "0123456789ab",
        name: Some("web"),
        extra: &extra,
        ..Hosts::default()
    };
    let text = hosts.render().unwrap();
    assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost "));
    assert!(
        text.ends_with(
            "\n192.0.2.7\tdb\n10.89.0.2\t0123456789ab web\nfd00:89::2\t0123456789ab web\n"
        )
    );
    let alone = Hosts {
        addresses: &[],
        name: Some("0123456789ab"),
        extra: &[],
        ..hosts
    };
    assert!(
        alone
            .render()
            .unwrap()
            .ends_with("\n127.0.0.1\t0123456789ab\n")
    );
    let of_host = Hosts {
        base: Some("127.0.0.1 localhost\n192.0.2.1 me"),
        ..hosts
    };
    let text = of_host.render().unwrap();
    assert_eq!(text, "127.0.0.1 localhost\n192.0.2.1 me\n192.0.2.7\tdb\n");
}

#[test]
fn no_line_can_be_smuggled_in() {
    for bad in [
        "",
        "a b",
        "a\n192.0.2.1 bank.example",
        "#a",
        ".a",
        "a\tb",
        "é",
    ] {
        let extra = [(bad.to_owned(), "192.0.2.7".parse().unwrap())];
        let hosts = Hosts {
            hostname: "h",
            extra: &extra,
            ..Hosts::default()
        };
        assert!(
            matches!(hosts.render(), Err(ResolvError::HostName(_))),
            "{bad:?}"
        );
    }
    for bad in ["", ".", "a b", "a\nnameserver 192.0.2.1", "#a"] {
        assert!(check_search_domain(bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_file_holds_it_is_read_and_rendered_in_lines(text in "\\PC*|([a-z]{0,10}[ \\t]?[0-9a-f:.%]{0,20}\\n){0,20}|(nameserver|search|options|domain) [^\\n]{0,40}\\n") {
        let host = HostResolver::parse(&text);
        let rendered = ResolvConf::default().render(&host).unwrap();
        let again = HostResolver::parse(&rendered);
        prop_assert_eq!(again.warnings, vec![]);
        prop_assert_eq!(again.nameservers, host.nameservers);
        prop_assert_eq!(again.search, host.search);
    }
}
