//! Nothing crosses from one network to another: not by address, gateway, route, or a sandbox on both.

use crate::world::{World, eventually, seconds};

/// Answers TCP on 8080 and UDP on 8081, at every address, IPv4 and IPv6.
const SERVE: &str = "import socket,threading\n\
    def udp():\n\
    \x20s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
    \x20s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0)\n\
    \x20s.bind(('::',8081))\n\
    \x20while True:\n\
    \x20\x20d,a=s.recvfrom(1000)\n\
    \x20\x20s.sendto(d,a)\n\
    threading.Thread(target=udp).start()\n\
    l=socket.create_server(('::',8080),family=socket.AF_INET6,dualstack_ipv6=True)\n\
    print('ready',flush=True)\n\
    while True:\n\
    \x20c,_=l.accept()\n\
    \x20c.close()";

/// Prints what of TARGETS answers: `ping`, `tcp`, `udp` to the sandbox's ports, `dns` to port 53.
const PROBE: &str = "import os,socket\n\
    for t in TARGETS:\n\
    \x20f=socket.AF_INET6 if ':' in t else socket.AF_INET\n\
    \x20if os.system('ping -n -c1 -W1 '+t+' >/dev/null 2>&1')==0: print('ping',t)\n\
    \x20for k,p in (('tcp',8080),('dns',53)):\n\
    \x20\x20s=socket.socket(f,socket.SOCK_STREAM); s.settimeout(1)\n\
    \x20\x20try: s.connect((t,p)); print(k,t)\n\
    \x20\x20except OSError: pass\n\
    \x20for k,p,d in (('udp',8081,b'x'),('dns-udp',53,b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\1')):\n\
    \x20\x20s=socket.socket(f,socket.SOCK_DGRAM); s.settimeout(1)\n\
    \x20\x20try: s.sendto(d,(t,p)); s.recvfrom(1000); print(k,t)\n\
    \x20\x20except OSError: pass";

/// A sandbox with servers.
fn serving(world: &World, name: &str, options: &str) {
    let head = format!("run -d --name {name} {options} -- python3 -u -c");
    world.line(&head).then([SERVE]).ok();
    eventually(seconds(10), "servers in a sandbox", || {
        world.line(&format!("logs {name}")).ok().contains("ready")
    });
}

/// What of `targets` answers a sandbox.
#[track_caller]
fn reached(world: &World, sandbox: &str, targets: &[&str]) -> Vec<String> {
    let script = format!("TARGETS={targets:?}\n{PROBE}");
    let found = world.python(sandbox, &script).timeout(seconds(80)).ok();
    found.lines().map(str::to_owned).collect()
}

const NOTHING: [&str; 0] = [];

fn two_networks(world: &World) {
    world
        .network("create --subnet 172.31.1.0/24 --subnet fd00:1::/64 a")
        .ok();
    world
        .network("create --subnet 172.31.2.0/24 --subnet fd00:2::/64 b")
        .ok();
}

#[test]
fn addresses_and_gateways_of_other_networks_are_out_of_reach() {
    World::test(|world| {
        two_networks(world);
        serving(world, "victim", "--network a:ip=172.31.1.9,ip6=fd00:1::9");
        world.sleeper("peer", "--network a");
        world.sleeper("stranger", "--network b");
        world.sleeper("default", "");
        let sandbox = ["172.31.1.9", "fd00:1::9"];
        // The probe finds whatever may be found: a peer reaches all of it, and its own gateways.
        let mut seen = reached(world, "peer", &sandbox);
        seen.sort();
        let all =
            ["ping", "tcp", "udp"].map(|kind| sandbox.map(|target| format!("{kind} {target}")));
        assert_eq!(seen, all.concat());
        let seen = reached(world, "peer", &["172.31.1.1", "fd00:1::1"]);
        for kind in ["ping", "dns"] {
            assert!(
                seen.contains(&format!("{kind} 172.31.1.1")),
                "{kind}: {seen:?}"
            );
        }
        let targets = ["172.31.1.9", "fd00:1::9", "172.31.1.1", "fd00:1::1"];
        for stranger in ["stranger", "default"] {
            assert_eq!(reached(world, stranger, &targets), NOTHING, "{stranger}");
        }
        world
            .mossnet(["rm", "-f", "victim", "peer", "stranger", "default"])
            .ok();
    });
}

#[test]
fn routes_that_root_adds_lead_nowhere() {
    World::test(|world| {
        two_networks(world);
        let victim = "--network a:ip=172.31.1.9,ip6=fd00:1::9 --cap-add NET_ADMIN";
        serving(world, "victim", victim);
        world.sleeper("root", "--network b --cap-add NET_ADMIN --cap-add NET_RAW");
        // The victim plays along, so that only the router is in the way.
        world.within("victim", "ip route add 172.31.2.0/24 via 172.31.1.1; ip -6 route add fd00:2::/64 via fd00:1::1").ok();
        let targets = ["172.31.1.9", "fd00:1::9", "172.31.1.1"];
        for routes in [
            "ip route replace 172.31.1.0/24 via 172.31.2.1; ip -6 route replace fd00:1::/64 via fd00:2::1",
            "ip route replace 172.31.1.0/24 dev eth0 onlink; ip -6 route replace fd00:1::/64 dev eth0",
            "ip addr add 172.31.1.77/24 dev eth0; ip -6 addr add fd00:1::77/64 dev eth0 nodad; ip route replace 172.31.1.0/24 dev eth0 src 172.31.1.77",
        ] {
            world.within("root", routes).ok();
            assert_eq!(reached(world, "root", &targets), NOTHING, "{routes}");
        }
        // Its own network it still reaches.
        assert!(world.pings("root", "172.31.2.1"));
        world.mossnet(["rm", "-f", "victim", "root"]).ok();
    });
}

#[test]
fn who_is_on_two_networks_does_not_forward() {
    World::test(|world| {
        two_networks(world);
        serving(
            world,
            "victim",
            "--network a:ip=172.31.1.9,ip6=fd00:1::9 --cap-add NET_ADMIN",
        );
        world.sleeper("root", "--network b --cap-add NET_ADMIN");
        world.sleeper(
            "both",
            "--network a:ip=172.31.1.5,ip6=fd00:1::5 --network b:ip=172.31.2.5,ip6=fd00:2::5 --cap-add ALL",
        );
        let own = reached(world, "both", &["172.31.1.9", "fd00:1::9"]);
        assert_eq!(own.len(), 6, "who is on it reaches it: {own:?}");
        let targets = ["172.31.1.9", "fd00:1::9", "172.31.1.5", "fd00:1::5"];
        world.within("root", "ip route replace 172.31.1.0/24 via 172.31.2.5; ip -6 route replace fd00:1::/64 via fd00:2::5").ok();
        world.within("victim", "ip route replace 172.31.2.0/24 via 172.31.1.5; ip -6 route replace fd00:2::/64 via fd00:1::5").ok();
        let seen = reached(world, "root", &targets[..2]);
        assert_eq!(seen, NOTHING, "as it comes");
        // Root in the middle turns forwarding on; what is sent on carries a foreign source address.
        world
            .within("both", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
            .run();
        assert_eq!(
            reached(world, "root", &targets[..2]),
            NOTHING,
            "with forwarding in the middle"
        );
        world.mossnet(["rm", "-f", "victim", "root", "both"]).ok();
    });
}

#[test]
fn the_router_itself_is_closed() {
    World::test(|world| {
        two_networks(world);
        world.sleeper("root", "--network a --cap-add NET_ADMIN");
        // Addresses and ports that the router has for itself.
        let script = "import socket\n\
            for a in ('172.31.1.1','172.31.2.1','169.254.77.1','169.254.77.2','10.89.0.1'):\n\
            \x20for p in (7000,7001,7002,111,22,9999):\n\
            \x20\x20s=socket.socket(); s.settimeout(.3)\n\
            \x20\x20try: s.connect((a,p)); print('reached',a,p)\n\
            \x20\x20except OSError: pass";
        assert_eq!(world.python("root", script).timeout(seconds(60)).ok(), "");
        world.mossnet(["rm", "-f", "root"]).ok();
    });
}
