//! Worlds with only one address family.

use crate::world::dns::Dns;
use crate::world::{SERVER, SERVER6, World, seconds, servers};

#[test]
fn an_ipv4_only_world() {
    World::builder().ipv6(false).test(|world| {
        Dns::start("server");
        servers::http("server", 80);
        let curl = |args: &str| world.run(["curl", "-gsS"]).then(args.split(' ')).run();
        let seen = curl("http://www.test.example/")
            .expect_code(0)
            .expect_within(seconds(3));
        assert_eq!(seen.stdout, "203.0.113.2");
        let failed = curl(&format!("http://[{SERVER6}]/")).expect_within(seconds(2));
        assert_eq!(failed.code, 7, "could not connect: {failed}");
        world.run(["ping", "-c1", "-W15", SERVER]).ok();
        let ping = world.run(["ping", "-6", "-c1", "-W5", SERVER6]).run();
        assert!(ping.code != 0, "{ping}");
        let datagram = format!(
            "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.IPPROTO_IPV6,25,1)\ns.settimeout(5)\n\
             try:\n s.connect(('{SERVER6}',9))\n s.send(b'x')\n s.recv(9)\n\
             except socket.timeout: print('hangs')\nexcept OSError as e: print('fails')"
        );
        let datagram = world
            .run(["python3", "-c", &datagram])
            .run()
            .expect_within(seconds(3));
        assert_eq!(datagram.stdout, "fails\n");
    });
}

#[test]
fn an_ipv6_only_world() {
    World::builder().ipv4(false).test(|world| {
        Dns::start("server");
        servers::http("server", 80);
        servers::udp_echo("server", 7);
        let curl = |args: &str| world.run(["curl", "-gsS"]).then(args.split(' ')).run();
        let seen = curl("http://www.test.example/")
            .expect_code(0)
            .expect_within(seconds(3));
        assert_eq!(seen.stdout, "2001:db8:113::2");
        let failed = curl(&format!("http://{SERVER}/")).expect_within(seconds(2));
        assert_eq!(failed.code, 7, "could not connect: {failed}");
        world.run(["ping", "-c1", "-W15", SERVER6]).ok();
        let datagram = format!(
            "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\ns.settimeout(3)\n\
             s.sendto(b'hello',('{SERVER6}',7))\nprint(s.recv(9).decode())"
        );
        assert_eq!(world.run(["python3", "-c", &datagram]).ok(), "hello\n");
    });
}

#[test]
fn a_host_without_any_route() {
    World::builder().ipv4(false).ipv6(false).test(|world| {
        let curl = world
            .run(["curl", "-sS", &format!("http://{SERVER}/")])
            .run();
        let curl = curl.expect_within(seconds(2));
        assert_eq!(curl.code, 7, "{curl}");
        world.detached("web", ["nc", "-lk", "8080"]);
        let address = world.address("web", false);
        world.run(["nc", "-z", "-w2", &address, "8080"]).ok();
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}
