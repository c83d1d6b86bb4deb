//! The test world itself: is it what the other tests take it for?

use crate::world::dns::Dns;
use crate::world::{
    BLACK_HOLE, Cmd, ISP, PROHIBITED, Powers, SERVER, SERVER6, UNREACHABLE, UNROUTED, World, enter,
    eventually, inspect, installed, seconds, servers,
};

#[test]
fn mossnet_runs_as_an_unprivileged_user_without_capabilities() {
    World::test(|world| {
        let status = world.user(["cat", "/proc/self/status"]).ok();
        for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(
                status.contains(&format!("{field}:\t0000000000000000")),
                "{status}"
            );
        }
        assert!(status.contains("NoNewPrivs:\t0"), "{status}");
        assert!(status.contains("Uid:\t1000\t1000\t1000\t1000"), "{status}");
        world.user(["ip", "link", "add", "type", "veth"]).fails(2);
        assert!(
            !std::path::Path::new("/run/lock").exists(),
            "/run is private"
        );
    });
}

#[test]
fn addresses_fail_each_in_its_own_way() {
    World::test(|world| {
        let connect = |address: &str| {
            let script = format!(
                "import socket\ns=socket.socket()\ns.settimeout(4)\n\
                 try: s.connect(('{address}',81))\nexcept OSError as e: print(repr(e))"
            );
            world.user(["python3", "-c", &script]).ok()
        };
        servers::tcp("server", 80, servers::echo);
        assert!(
            connect(SERVER).contains("ConnectionRefused"),
            "{}",
            connect(SERVER)
        );
        assert!(connect(UNREACHABLE).contains("No route to host"));
        assert!(connect(UNROUTED).contains("Network is unreachable"));
        assert!(connect(PROHIBITED).contains("No route to host"));
        assert!(connect(BLACK_HOLE).contains("timed out"));
        world.user(["ping", "-c1", "-W15", SERVER]).ok();
        world.user(["ping", "-c1", "-W15", ISP]).ok();
        world.user(["ping", "-c1", "-W15", SERVER6]).ok();
    });
}

#[test]
fn servers_answer() {
    World::test(|world| {
        servers::http("server", 80);
        let length = 3_000_001;
        let digest = servers::pattern_digest(length);
        let url = format!("http://{SERVER}/bytes/{length}");
        let script = format!("curl -sS {url} | sha256sum");
        assert!(world.user(["sh", "-c", &script]).ok().starts_with(&digest));
        let upload = world
            .user(["curl", "-sS", "-T", "-", &format!("http://[{SERVER6}]/up")])
            .feed(move |mut stdin| servers::pattern(length, &mut stdin).expect("feed"));
        assert_eq!(upload.ok(), digest);
        let seen = world
            .user(["curl", "-sS", &format!("http://{SERVER}/")])
            .ok();
        assert_eq!(seen, "203.0.113.2");
    });
}

#[test]
fn the_name_server_answers() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        let dig = |args: &str| {
            let args = args.split(' ').map(str::to_owned);
            world.user(["dig", "+time=15", "+tries=1"]).then(args).ok()
        };
        assert_eq!(dig("+short www.test.example"), format!("{SERVER}\n"));
        assert_eq!(
            dig("+short +tcp www.test.example AAAA"),
            format!("{SERVER6}\n")
        );
        assert!(dig("+ignore +noedns big.test.example TXT").contains("tc"));
        assert_eq!(dig("+short big.test.example TXT").lines().count(), 15);
        assert!(dig("nothing.test.example").contains("NXDOMAIN"));
        assert!(
            dns.asked()
                .contains(&"www.test.example. AAAA tcp".to_owned())
        );
    });
}

#[test]
fn a_world_may_lack_a_family() {
    World::builder().ipv6(false).ping(false).test(|world| {
        world.user(["ip", "-6", "route", "get", SERVER6]).fails(2);
        world.user(["ip", "-4", "route", "get", SERVER]).ok();
        let ping = "import socket; socket.socket(2, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)";
        let refused = world.user(["python3", "-c", ping]).fails(1);
        refused.expect_text("PermissionError");
    });
}

#[test]
fn what_a_test_leaves_running_ends_with_it() {
    World::test(|_| {
        let sleeper = Cmd::new([
            "sh",
            "-c",
            "setsid sleep 1000 >/dev/null 2>&1 & echo started",
        ]);
        let sleeper = sleeper.ok();
        assert_eq!(sleeper, "started\n");
        let mut all = Vec::new();
        eventually(seconds(5), "the sleeper is seen", || {
            all = inspect::processes();
            all.iter().any(|process| process.line == "sleep 1000")
        });
        assert!(all.len() < 10, "a pid namespace of its own: {all:#?}");
    });
}

#[test]
fn a_test_that_hangs_is_ended() {
    let hung = std::panic::catch_unwind(|| {
        World::builder()
            .deadline(2)
            .test(|_| std::thread::sleep(seconds(60)));
    });
    // Inside, the body never returns; outside, the deadline is the failure.
    let message = hung.expect_err("a hanging test must fail");
    let text = message.downcast_ref::<String>().expect("a message");
    assert!(text.contains("not over after 2s"), "{text}");
}

#[test]
fn a_child_that_runs_nothing_fails() {
    let empty = std::panic::catch_unwind(|| {
        enter::enter(
            seconds(20),
            "machinery::no_such_test",
            false,
            Powers::User,
            || {},
        );
    });
    let text = empty.expect_err("an empty child must fail");
    let text = text.downcast_ref::<String>().expect("a message");
    assert!(text.contains("ran nothing"), "{text}");
}
