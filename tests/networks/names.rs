//! Names: who finds whom, on which network, and what never leaves it.

use crate::world::dns::Dns;
use crate::world::{SERVER, World, installed};
use std::collections::BTreeSet;

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

/// The status of an answer, such as NOERROR, and how many records it has.
#[track_caller]
fn status(world: &World, sandbox: &str, args: &str) -> (String, usize) {
    let head = ["exec", sandbox, "--", "dig", "+time=5", "+tries=3"];
    let text = world.mossnet(head).then(args.split(' ')).ok();
    let after = |mark: &str| {
        text.split(mark)
            .nth(1)
            .and_then(|rest| rest.split(',').next())
    };
    let status = after("status: ").unwrap_or_else(|| panic!("no answer: {text}"));
    let count = after("ANSWER: ").and_then(|count| count.trim().parse().ok());
    (
        status.to_owned(),
        count.unwrap_or_else(|| panic!("no count: {text}")),
    )
}

#[test]
fn every_name_of_a_member_resolves_both_ways() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        Dns::start("server");
        world
            .network("create --subnet 172.31.1.0/24 --subnet fd00:31::/64 mynet")
            .ok();
        world.sleeper("asker", "--network mynet");
        world.sleeper(
            "box",
            "--network mynet:alias=nick --network-alias other --hostname boxhost",
        );
        let (v4, v6) = (
            world.address_on("box", "mynet", false),
            world.address_on("box", "mynet", true),
        );
        let id = world.inspect("box")["Id"].as_str().expect("an id")[..12].to_owned();
        for name in ["box", "nick", "other", "boxhost", "BOX", id.as_str()] {
            assert_eq!(
                world.dig("asker", &format!("{name} A")),
                set([&v4]),
                "{name}"
            );
            assert_eq!(
                world.dig("asker", &format!("{name} AAAA")),
                set([&v6]),
                "{name}"
            );
            assert_eq!(
                status(world, "asker", &format!("{name} MX")),
                ("NOERROR".into(), 0)
            );
        }
        for address in [&v4, &v6] {
            let argv = ["exec", "asker", "--", "dig", "+short", "-x", address];
            let names = world.mossnet(argv).ok();
            assert!(
                names
                    .lines()
                    .any(|name| name.trim_end_matches('.') == "box"),
                "{address}: {names}"
            );
        }
        let found = world.line("exec asker -- getent ahosts nick").ok();
        assert!(found.contains(&v4) && found.contains(&v6), "{found}");
        // The world's names are still there, over UDP and TCP.
        assert_eq!(world.dig("asker", "www.test.example A"), set([SERVER]));
        assert_eq!(status(world, "asker", "+tcp box A"), ("NOERROR".into(), 1));
        world.mossnet(["rm", "-f", "asker", "box"]).ok();
    });
}

#[test]
fn an_absent_family_is_no_data() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("asker", "--network mynet");
        world.sleeper("box", "--network mynet");
        assert_eq!(status(world, "asker", "box AAAA"), ("NOERROR".into(), 0));
        assert_eq!(status(world, "asker", "nobody A").0, "NXDOMAIN");
        world.mossnet(["rm", "-f", "asker", "box"]).ok();
    });
}

#[test]
fn names_are_for_peers_on_a_shared_network() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        world.network("create --subnet 172.31.1.0/24 a").ok();
        world.network("create --subnet 172.31.2.0/24 b").ok();
        world.sleeper("on-a", "--network a:alias=same");
        world.sleeper("on-b", "--network b:alias=same");
        world.sleeper("both", "--network a --network b");
        world.sleeper("plain", "");
        let (on_a, on_b) = (
            world.address_on("on-a", "a", false),
            world.address_on("on-b", "b", false),
        );
        assert_eq!(world.dig("on-a", "on-b A"), set([]));
        assert_eq!(world.dig("on-b", "on-a A"), set([]));
        assert_eq!(world.dig("on-a", "same A"), set([&on_a]));
        // Whoever is on both hears of both, whichever gateway it asks; the others do not.
        for gateway in ["@172.31.1.1", "@172.31.2.1"] {
            let short = |name: &str| world.dig("both", &format!("{gateway} {name} A"));
            assert_eq!(short("on-a"), set([&on_a]), "{gateway}");
            assert_eq!(short("on-b"), set([&on_b]), "{gateway}");
            // A name that two networks have: as in Docker, that of one of them.
            let same = short("same");
            let both = set([&on_a, &on_b]);
            assert!(!same.is_empty() && same.is_subset(&both), "{same:?}");
        }
        assert_eq!(
            world.dig("on-a", "both A"),
            set([&world.address_on("both", "a", false)])
        );
        assert_eq!(
            world.dig("on-b", "both A"),
            set([&world.address_on("both", "b", false)])
        );
        let back = world
            .line(&format!("exec on-a -- dig +short -x {on_b}"))
            .ok();
        assert!(!back.contains("on-b"), "{back}");

        assert_eq!(
            dns.asked(),
            Vec::<String>::new(),
            "single labels never leave"
        );

        // On the default network there are no names, of one's own neither.
        world.sleeper("plain2", "");
        for name in ["plain2", "on-a", "both"] {
            assert_eq!(world.dig("plain", &format!("{name} A")), set([]), "{name}");
        }
        world
            .mossnet(["rm", "-f", "on-a", "on-b", "both", "plain", "plain2"])
            .ok();
    });
}

#[test]
fn local_names_never_leak_to_search_domains() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("asker", "--network mynet");
        world.sleeper("box", "--network mynet");
        // getaddrinfo asks for A and AAAA, and goes on to search domains where it may.
        world.line("exec asker -- getent ahosts box").ok();
        world.line("exec asker -- getent ahostsv6 box").run();
        assert!(
            !dns.asked().iter().any(|asked| asked.contains("box")),
            "{:?}",
            dns.asked()
        );
        world.mossnet(["rm", "-f", "asker", "box"]).ok();
    });
}

#[test]
fn a_shared_alias_has_all_addresses_in_turn() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        world.network("create --subnet 172.31.1.0/24 mynet").ok();
        world.sleeper("asker", "--network mynet");
        let mut all = BTreeSet::new();
        for name in ["web1", "web2", "web3"] {
            world.sleeper(name, "--network mynet:alias=web");
            all.insert(world.address_on(name, "mynet", false));
        }
        assert_eq!(world.dig("asker", "web A"), all);
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do dig +short web A | head -1; done";
        let first: BTreeSet<String> = world
            .within("asker", script)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(first, all, "each comes first at times");
        let gone = world.address_on("web2", "mynet", false);
        world.mossnet(["rm", "-f", "web2"]).ok();
        all.remove(&gone);
        assert_eq!(world.dig("asker", "web A"), all);
        world.mossnet(["rm", "-f", "asker", "web1", "web3"]).ok();
    });
}

#[test]
fn internal_networks_forward_nothing() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        crate::world::servers::http("server", 80);
        world
            .network("create --internal --subnet 172.31.1.0/24 --subnet fd00:31::/64 inner")
            .ok();
        world.sleeper("asker", "--network inner");
        world.sleeper("box", "--network inner");
        assert_eq!(
            world.dig("asker", "box A"),
            set([&world.address_on("box", "inner", false)])
        );
        let (code, count) = status(world, "asker", "www.test.example A");
        assert!(code != "NOERROR" && count == 0, "{code} {count}");
        assert_eq!(dns.asked(), Vec::<String>::new());
        // Nor does anything else leave, whatever routes root adds.
        world.sleeper("root", "--network inner --cap-add NET_ADMIN");
        world
            .within(
                "root",
                "ip route add default via 172.31.1.1; ip -6 route add default via fd00:31::1",
            )
            .run();
        for target in [SERVER, "[2001:db8:100::10]"] {
            let argv = [
                "exec",
                "root",
                "--",
                "curl",
                "-sS",
                "-m2",
                &format!("http://{target}/"),
            ];
            assert!(world.mossnet(argv).run().code != 0, "{target}");
        }
        assert!(!world.pings("root", SERVER));
        // The same from a network that is not internal works.
        world.network("create --subnet 172.31.2.0/24 outer").ok();
        world.sleeper("free", "--network outer");
        world
            .line(&format!("exec free -- curl -sS -m5 http://{SERVER}/"))
            .ok();
        assert_eq!(world.dig("free", "www.test.example A"), set([SERVER]));
        world
            .mossnet(["rm", "-f", "asker", "box", "root", "free"])
            .ok();
    });
}

#[test]
fn a_network_may_have_its_own_resolvers_or_no_names() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let usual = Dns::start_at("server", SERVER.parse().unwrap(), None);
        let other = "192.0.2.77".parse().unwrap();
        let chosen = Dns::start_at(
            "server",
            crate::world::SERVER_B.parse().unwrap(),
            Some(other),
        );
        let resolver = crate::world::SERVER_B;
        world
            .network(&format!(
                "create --dns {resolver} --subnet 172.31.1.0/24 own"
            ))
            .ok();
        world.sleeper("asker", "--network own");
        assert_eq!(
            world.dig("asker", "www.test.example A"),
            set(["192.0.2.77"])
        );
        assert_eq!((usual.asked().len(), chosen.asked().len()), (0, 1));
        world
            .network("create --disable-dns --subnet 172.31.2.0/24 mute")
            .ok();
        world.sleeper("mute1", "--network mute");
        world.sleeper("mute2", "--network mute");
        let found = world.line("exec mute1 -- getent ahosts mute2").run();
        assert!(found.code != 0, "{found}");
        world.mossnet(["rm", "-f", "asker", "mute1", "mute2"]).ok();
    });
}
