//! Bad input: one clear line, an exit code that is not zero, and nothing changed.

use crate::world::World;

/// A network with a taken address, MAC and sandbox, and a sandbox elsewhere.
fn scene(world: &World) {
    world
        .network("create --subnet 172.31.1.0/24 --subnet fd00:31::/64 mynet")
        .ok();
    world.network("create --subnet 172.31.2.0/24 other").ok();
    world.sleeper(
        "holder",
        "--network mynet:ip=172.31.1.9,ip6=fd00:31::9,mac=02:00:00:00:00:09",
    );
    world.sleeper("box", "");
}

fn clear(world: &World) {
    world.mossnet(["rm", "-f", "holder", "box"]).ok();
}

#[test]
fn bad_networks() {
    World::test(|world| {
        scene(world);
        let cases = [
            ("--subnet nonsense", "nonsense"),
            ("--subnet 10.5.0.0/33", "10.5.0.0/33"),
            ("--subnet 10.5.0.1/24", "10.5.0.1/24"),
            ("--subnet 10.5.0.0/31", "10.5.0.0/31"),
            ("--subnet 127.0.0.0/16", "127.0.0.0/16"),
            ("--subnet 224.1.0.0/16", "224.1.0.0/16"),
            ("--subnet fe80::/64", "fe80::/64"),
            ("--subnet 10.5.0.0/24 --subnet 10.6.0.0/24", "IPv4"),
            ("--subnet 10.5.0.0/24 --gateway 10.6.0.1", "10.6.0.1"),
            ("--subnet 10.5.0.0/24 --gateway 10.5.0.0", "10.5.0.0"),
            ("--subnet 10.5.0.0/24 --gateway 10.5.0.255", "10.5.0.255"),
            (
                "--subnet 10.5.0.0/24 --gateway 10.5.0.1 --gateway 10.5.0.2",
                "10.5.0.2",
            ),
            ("--subnet 10.5.0.0/24 --gateway nowhere", "nowhere"),
            ("--subnet 10.5.0.0/24 --ip-range 10.6.0.0/28", "10.6.0.0/28"),
            ("--subnet 10.5.0.0/24 --ip-range 10.5.0.0/16", "10.5.0.0/16"),
            ("--subnet 10.5.0.0/24 --aux-address x=10.6.0.5", "10.6.0.5"),
            ("--subnet 10.5.0.0/24 --aux-address x", "x"),
            (
                "--subnet 10.5.0.0/24 --aux-address x=10.5.0.5 --aux-address y=10.5.0.5",
                "10.5.0.5",
            ),
            ("--driver overlay", "overlay"),
            ("--uplink rocket", "rocket"),
            ("--dns nowhere", "nowhere"),
            ("--label =x", "=x"),
            ("-o colour=red", "colour"),
            ("-o mtu=12", "12"),
            ("-o mtu=big", "big"),
            ("-o icc=maybe", "maybe"),
            ("-o isolate=false", "isolate"),
            ("-o mode=unmanaged", "unmanaged"),
            ("-o vlan=5000", "5000"),
            (
                "-o com.docker.network.bridge.enable_ip_masquerade=false",
                "masquerade",
            ),
            ("--no-such-flag", "--no-such-flag"),
        ];
        let line = |(options, word)| (format!("network create {options} fresh"), word);
        world.refuses_each(cases.map(line));
        world.refuses_each([
            ("network create -- -bad", "-bad"),
            ("network create has/slash", "has/slash"),
            ("network create mynet", "mynet"),
            ("network create container:x", "container:x"),
            ("network create .hidden", ".hidden"),
            ("network create", "NAME"),
        ]);
        clear(world);
    });
}

#[test]
fn bad_connections() {
    World::test(|world| {
        scene(world);
        world.network("connect --alias taken other holder").ok();
        let cases = [
            ("connect nowhere box", "nowhere"),
            ("connect mynet nobody", "nobody"),
            ("connect mynet holder", "already"),
            ("connect bridge box", "already"),
            ("connect host box", "host"),
            ("connect none box", "none"),
            ("connect --ip 172.31.1.9 mynet box", "holder"),
            ("connect --ip6 fd00:31::9 mynet box", "holder"),
            (
                "connect --mac-address 02:00:00:00:00:09 mynet box",
                "holder",
            ),
            ("connect --ip 172.31.1.1 mynet box", "gateway"),
            ("connect --ip 172.31.1.0 mynet box", "172.31.1.0"),
            ("connect --ip 172.31.1.255 mynet box", "172.31.1.255"),
            ("connect --ip 172.31.2.9 mynet box", "172.31.2.9"),
            ("connect --ip6 fd00:32::9 mynet box", "fd00:32::9"),
            ("connect --ip6 fd00:31::9 other box", "fd00:31::9"),
            ("connect --ip nonsense mynet box", "nonsense"),
            (
                "connect --mac-address 01:00:00:00:00:09 mynet box",
                "01:00:00:00:00:09",
            ),
            ("connect --mac-address nonsense mynet box", "nonsense"),
            ("connect --alias has_space/ mynet box", "has_space/"),
            ("connect --link nobody mynet box", "nobody"),
            (
                "connect --interface-name much-too-long-a-name mynet box",
                "much-too-long-a-name",
            ),
            ("connect --interface-name eth0 mynet box", "eth0"),
            ("connect --interface-name lo mynet box", "lo"),
            ("connect --gw-priority high mynet box", "high"),
            ("connect mynet", "NAME"),
            (
                "connect --alias twice --alias Twice mynet box",
                "given twice",
            ),
            ("connect --alias db bridge holder", "has no names"),
            ("connect --link holder:x --link taken:x mynet box", "taken"),
            ("connect --ip6 172.31.1.40 mynet box", "172.31.1.40"),
            (
                "connect --mac-address 00:00:00:00:00:00 mynet box",
                "00:00:00:00:00:00",
            ),
            ("connect --no-such-flag mynet box", "--no-such-flag"),
            ("connect mynet box extra", "extra"),
        ];
        world.refuses_each(cases.map(|(line, word)| (format!("network {line}"), word)));
        clear(world);
    });
}

#[test]
fn bad_disconnections() {
    World::test(|world| {
        scene(world);
        let cases = [
            ("disconnect mynet box", "not connected"),
            ("disconnect mynet nobody", "nobody"),
            ("disconnect nowhere box", "nowhere"),
            // Nor does force make a stranger a member.
            ("disconnect -f mynet box", "not connected"),
            ("disconnect -f mynet nobody", "nobody"),
            ("disconnect -f nowhere box", "nowhere"),
            ("disconnect host box", "not connected"),
            ("disconnect mynet", "NAME"),
        ];
        world.refuses_each(cases.map(|(line, word)| (format!("network {line}"), word)));
        clear(world);
    });
}

#[test]
fn bad_runs() {
    World::test(|world| {
        scene(world);
        let cases = [
            ("--network nowhere", "nowhere"),
            ("--network mynet:ip=172.31.1.9", "holder"),
            ("--network mynet:ip6=fd00:31::9", "holder"),
            ("--network mynet:mac=02:00:00:00:00:09", "holder"),
            ("--network mynet:ip=172.31.7.9", "172.31.7.9"),
            ("--network mynet:colour=red", "colour"),
            ("--network mynet:ip=", "ip"),
            ("--network other:ip6=fd00:31::5", "fd00:31::5"),
            ("--network mynet --network other:ip=172.31.2.1", "gateway"),
            (
                "--network mynet:interface_name=eth0 --network other:interface_name=eth0",
                "eth0",
            ),
            ("--network mynet --network-alias bad/alias", "bad/alias"),
            (
                "--network mynet --network-alias a --network-alias A",
                "given twice",
            ),
            ("--network mynet:alias=a,alias=a", "given twice"),
            ("--network mynet:alias=a --network-alias a", "given twice"),
            ("--network bridge --network-alias a", "has no names"),
            ("--network mynet --network mynet", "given twice"),
            (
                "--network mynet:ip=172.31.1.8,ip=172.31.1.10",
                "given twice",
            ),
            ("--network name=mynet,ip=172.31.1.9", "holder"),
            ("--network ip=172.31.1.8", "name=NETWORK"),
            ("--network mynet --no-such-flag", "--no-such-flag"),
            ("--network none --network-alias x", "none"),
            ("--network container:nobody", "nobody"),
            ("--network host --network mynet", "host"),
            ("--link nobody", "nobody"),
            ("--link holder:bad/alias", "bad/alias"),
        ];
        let line = |(options, word)| (format!("run --rm {options} -- true"), word);
        world.refuses_each(cases.map(line));
        let line = |(options, word)| (format!("run -d {options} -- sleep 1000"), word);
        world.refuses_each(cases.map(line));
        world.refuses_each([
            ("netns create holder", "holder"),
            ("netns create --network nowhere fresh", "nowhere"),
            ("start nobody", "nobody"),
            ("network inspect nowhere", "nowhere"),
            ("network ls --filter colour=red", "colour"),
            ("network ls --format {{.Nonsense}}", "Nonsense"),
            ("network graph --format gif", "gif"),
            ("network rm", "NETWORK"),
            ("network rm -f bridge", "pre-defined"),
            ("network inspect", "NETWORK"),
            ("network prune -f --filter until=sometime", "sometime"),
            ("network no-such-command", "no-such-command"),
        ]);
        clear(world);
    });
}
