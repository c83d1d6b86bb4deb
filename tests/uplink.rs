//! Installed peers as the way out: `--uplink pasta` and `--uplink slirp`.

use crate::publish::ports::{tell, told};
use crate::publish::{HOST, at, udp_client, udp_seen};
use crate::world::dns::Dns;
use crate::world::{
    SERVER, World, enter, eventually, inspect, installed, lay_over, seconds, servers,
};

fn gateway(world: &World, name: &str) -> String {
    let routes = ["exec", name, "ip", "-4", "route", "show", "default"];
    let route = world.mossnet(routes).ok();
    route
        .split(' ')
        .nth(2)
        .expect("default via ADDRESS")
        .to_owned()
}

const NO_TUN: &str = "/dev/net/tun cannot be opened by an unprivileged user";

fn with_peer(world: &World, program: &str, uplink: &str) {
    if !installed(program) {
        return;
    }
    if !world.has_tun() {
        enter::skip(NO_TUN);
        return;
    }
    Dns::start("server");
    servers::http("server", 80);
    let length = 50_000_000;
    let digest = servers::pattern_digest(length);
    let run = ["run", "--rm", "--uplink", uplink, "--", "sh", "-c"];
    let script = format!("curl -sS http://{SERVER}/bytes/{length} | sha256sum");
    let received = world.mossnet(run).then([&script]).ok();
    assert_eq!(received.split(' ').next(), Some(digest.as_str()));
    let named = world
        .mossnet(run)
        .then(["curl -sS http://www.test.example/"])
        .ok();
    assert_eq!(named, "203.0.113.2");
    let detached = [
        "run", "-d", "--name", "box", "--uplink", uplink, "--", "sleep", "1000",
    ];
    world.mossnet(detached).ok();
    let runs = |name: &str| {
        let all = inspect::processes();
        all.iter()
            .any(|p| p.line.split(' ').next().is_some_and(|w| w.ends_with(name)))
    };
    assert!(runs(program), "{:#?}", inspect::processes());
    // Answers come back to the relay, which shows the client as the gateway.
    tell(world, "service", &["-p", "8080:80", "-p", "5353:53/udp"]);
    let gateway = gateway(world, "service");
    assert_eq!(told("server", at(HOST, 8080)).0.ip().to_string(), gateway);
    let udp = udp_client("server", 0, at(HOST, 5353));
    assert_eq!(udp_seen(&udp).ip().to_string(), gateway);
    world.mossnet(["rm", "-f", "box", "service"]).ok();
    inspect::kill_hard(&[inspect::the("helper")]);
    eventually(seconds(5), "the peer ends with the helper", || {
        !runs(program)
    });
}

#[test]
fn pasta() {
    World::builder()
        .tun()
        .test(|world| with_peer(world, "pasta", "pasta"));
}

#[test]
fn slirp4netns() {
    World::builder()
        .tun()
        .test(|world| with_peer(world, "slirp4netns", "slirp"));
}

#[test]
fn no_uplink_at_all() {
    World::test(|world| {
        servers::http("server", 80);
        let url = format!("http://{SERVER}/");
        let argv = [
            "run",
            "--rm",
            "--uplink",
            "none",
            "--",
            "curl",
            "-sS",
            "--connect-timeout",
            "3",
            &url,
        ];
        let refused = world.mossnet(argv).run();
        assert!(refused.code != 0, "{refused}");
    });
}

#[test]
fn a_peer_that_is_not_there_is_named() {
    World::builder().tun().test(|world| {
        if !world.has_tun() {
            enter::skip(NO_TUN);
            return;
        }
        for directory in ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"] {
            // A file that cannot be executed is no program.
            lay_over(&format!("{directory}/slirp4netns"), "");
        }
        let argv = ["run", "--rm", "--uplink", "slirp", "--", "true"];
        let refused = world.mossnet(argv).fails(125);
        refused.expect_text("slirp4netns").expect_one_clear_line();
    });
}
