//! Names: the gateway answers, over UDP and TCP, what the host's resolvers say.

use crate::world::dns::Dns;
use crate::world::{BLACK_HOLE, SERVER, SERVER_B, SERVER6, World, installed, seconds};

fn dig(world: &World, args: &str) -> String {
    let options = ["dig", "+time=15", "+tries=1"];
    world.run(options).then(args.split(' ')).ok()
}

#[test]
fn the_gateway_forwards_over_udp_and_tcp() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        assert_eq!(dig(world, "+short www.test.example"), format!("{SERVER}\n"));
        assert_eq!(
            dig(world, "+short +tcp www.test.example AAAA"),
            format!("{SERVER6}\n")
        );
        let gateway = dig(world, "+short @10.89.0.1 four.test.example");
        assert_eq!(gateway, format!("{SERVER}\n"));
        assert!(dig(world, "four.test.example AAAA").contains("NOERROR"));
        assert!(dig(world, "nothing.test.example").contains("NXDOMAIN"));
        assert!(!dns.asked().is_empty());
        let names = world.run(["getent", "ahosts", "www.test.example"]).ok();
        assert!(names.contains(SERVER) && names.contains(SERVER6), "{names}");
    });
}

#[test]
fn long_answers_are_truncated_over_udp_and_whole_over_tcp() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        Dns::start("server");
        let short = dig(world, "+ignore +noedns big.test.example TXT");
        assert!(short.contains("tc"), "the TC bit: {short}");
        let whole = dig(world, "+short big.test.example TXT");
        assert_eq!(
            whole.lines().count(),
            15,
            "dig asks again over TCP: {whole}"
        );
        let edns = dig(world, "+short +bufsize=4096 +ignore big.test.example TXT");
        assert_eq!(edns.lines().count(), 15, "EDNS makes room: {edns}");
    });
}

#[test]
fn resolvers_can_be_chosen() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let usual = Dns::start_at("server", SERVER.parse().unwrap(), None);
        let other: std::net::IpAddr = "192.0.2.77".parse().unwrap();
        let chosen = Dns::start_at("server", SERVER_B.parse().unwrap(), Some(other));
        let argv = [
            "run",
            "--rm",
            "--dns",
            SERVER_B,
            "--",
            "dig",
            "+short",
            "www.test.example",
        ];
        assert_eq!(world.mossnet(argv).ok(), "192.0.2.77\n");
        assert_eq!(usual.asked().len(), 0, "{:?}", usual.asked());
        assert_eq!(chosen.asked(), ["www.test.example. A udp"]);
    });
}

#[test]
fn a_resolver_on_the_hosts_loopback_works() {
    let builder = World::builder().resolv_conf("nameserver 127.0.0.53\noptions edns0 trust-ad\n");
    builder.test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start_at("host", "127.0.0.53".parse().unwrap(), None);
        assert_eq!(dig(world, "+short www.test.example"), format!("{SERVER}\n"));
        assert_eq!(
            dig(world, "+short +tcp www.test.example"),
            format!("{SERVER}\n")
        );
        assert_eq!(dns.asked().len(), 2);
    });
}

#[test]
fn search_domains_are_the_hosts() {
    World::test(|world| {
        Dns::start("server");
        let resolv = world.run(["cat", "/etc/resolv.conf"]).ok();
        assert!(resolv.contains("search test.example"), "{resolv}");
        let found = world.run(["getent", "ahostsv4", "www"]).ok();
        assert!(found.contains(SERVER), "{found}");
    });
}

#[test]
fn silent_resolvers_end_in_an_answer() {
    World::builder()
        .resolv_conf(&format!("nameserver {BLACK_HOLE}\n"))
        .test(|world| {
            if !installed("dig") {
                return;
            }
            let options = ["dig", "+time=25", "+tries=1", "www.test.example"];
            let answer = world.run(options).run().expect_within(seconds(13));
            answer.expect_text("SERVFAIL");
        });
}

#[test]
fn the_second_resolver_is_asked_when_the_first_is_dead() {
    let resolvers = format!("nameserver {SERVER_B}\nnameserver {SERVER}\n");
    World::builder().resolv_conf(&resolvers).test(|world| {
        if !installed("dig") {
            return;
        }
        Dns::start_at("server", SERVER.parse().unwrap(), None);
        let options = ["dig", "+short", "+time=25", "+tries=1", "www.test.example"];
        assert_eq!(world.run(options).ok(), format!("{SERVER}\n"));
    });
}

#[test]
fn many_questions_at_once_are_all_answered() {
    World::test(|world| {
        Dns::start("server");
        let script =
            "for i in $(seq 100); do getent ahostsv4 www.test.example | head -1 & done; wait";
        let found = world.sh(script).ok();
        assert_eq!(
            found.lines().filter(|line| line.contains(SERVER)).count(),
            100,
            "{found}"
        );
    });
}
