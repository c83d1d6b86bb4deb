//! What containers reach, and what is left after the end of them.

use super::{Bench, container, network};
use serde_json::{Value, json};

/// A world behind the namespace that holds the bridges: `world`, 192.0.2.9.
const WORLD: &str = r#"
    ip netns add world
    ip link add wan type veth peer name wan netns world
    ip addr add 192.0.2.1/24 dev wan; ip link set wan up; ip route add default via 192.0.2.9
    ip -6 addr add 2001:db8::1/64 dev wan nodad; ip -6 route add default via 2001:db8::9
    inside world ip addr add 192.0.2.9/24 dev wan; inside world ip link set wan up
    inside world ip -6 addr add 2001:db8::9/64 dev wan nodad
    serve() { inside "$1" nc -n $4 -l $2 >"/run/$3" & until_true inside "$1" sh -c "ss -Hlnut | grep -q ':$2 '"; }
    reaches() { inside "$1" ping -c 1 -W 5 "$2" >/dev/null; }
    shut() { fails inside "$1" ping -c 1 -W 0.3 "$2" >/dev/null 2>&1; }
"#;

fn ports() -> Value {
    json!([
        {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 4, "protocol": "tcp"},
        {"host_ip": "192.0.2.1", "container_port": 53, "host_port": 5353, "range": 1, "protocol": "udp"},
    ])
}

#[test]
fn containers_reach_each_other_and_the_world_and_ports_lead_in() {
    let bench = Bench::new();
    let net = || (1, network("a", 1, json!({})));
    let mut web = container("web", 5, &[net()]);
    web["port_mappings"] = ports();
    bench.write("web", web.to_string());
    bench.write("db", container("db", 6, &[net()]).to_string());
    // In a namespace that is podman's own, and in the host's.
    for rootless in ["true", "false"] {
        containers_reach(&bench, rootless);
    }
}

fn containers_reach(bench: &Bench, rootless: &str) {
    bench.ok(&format!(
        r#"{WORLD}
        setup() {{ netavark --rootless={rootless} setup "/run/netns/$1" <"$2.json" >/run/out || {{ cat /run/out; return 1; }}; }}
        setup one web; setup two db
        reaches two 10.77.1.5; reaches two fd00:77:1::5; reaches one 192.0.2.9; reaches one 2001:db8::9
        # The world sees the host's address, not the container's.
        inside world nc -n -v -l 7000 >/run/seen 2>&1 & until_true inside world sh -c "ss -Hlnt | grep -q ':7000 '"
        echo hi | inside one nc -N 192.0.2.9 7000
        until_true grep -q 'Connection received on 192.0.2.1' /run/seen
        # From the world, from the host's loopback, from a neighbour and from itself, by ports of the host.
        port=80
        for from in world host two one; do
            serve one $port in-$from -N
            if [ $from = host ]; then echo $from | nc -N -w 5 127.0.0.1 80$port
            else echo $from | inside $from nc -N -w 5 192.0.2.1 80$port; fi
            until_true grep -q $from /run/in-$from
            port=$((port + 1))
        done
        serve one 53 in-udp -u
        echo udp | inside world nc -u -q 0 192.0.2.1 5353
        until_true grep -q udp /run/in-udp
        nft list ruleset >/run/before
        nft flush ruleset; netavark firewall-reload; nft list ruleset | diff - /run/before
        inside one ip route get 192.0.2.9 | grep -q 'via 10.77.1.1'
        # MTU: that of the way out.
        ip link show podman1 | grep -q 'mtu 1500'
        teardown one web
        nft list map inet mossnet-podman ports4 >/run/ports; fails grep -q elements /run/ports
        reaches two 192.0.2.9
        teardown two db; teardown two db
        ip link del wan
        nothing_left
        "#
    ));
}

#[test]
fn networks_are_kept_apart_where_they_ask_for_it() {
    let bench = Bench::new();
    let isolated = |n: u8, isolate: &str, internal: bool| {
        let more = json!({"options": {"isolate": isolate}, "internal": internal});
        (n, network(&format!("n{n}"), n, more))
    };
    for (name, host, net) in [
        ("open1", 5, isolated(1, "false", false)),
        ("open2", 6, isolated(2, "", false)),
        ("shy1", 5, isolated(3, "true", false)),
        ("shy2", 6, isolated(4, "1", false)),
        ("strict", 7, isolated(5, "strict", false)),
        ("inner", 8, isolated(6, "false", true)),
    ] {
        bench.write(name, container(name, host, &[net]).to_string());
    }
    bench.ok(&format!(
        r#"{WORLD}
        for guest in four five six; do ip netns add $guest; done
        setup one open1; setup two open2; setup three shy1; setup four shy2; setup five strict; setup six inner
        reaches one 10.77.2.6; reaches one 10.77.3.5; reaches three 10.77.1.5
        shut three 10.77.4.6; shut four fd00:77:3::5; shut one 10.77.5.7; shut five 10.77.1.5; shut five 10.77.3.5
        reaches five 192.0.2.9; reaches four 2001:db8::9
        # Neighbours of an internal network see the bridge and nothing behind it, by whatever route.
        reaches six 10.77.6.1; shut six 192.0.2.9
        inside six ip route add default via 10.77.6.1
        shut six 192.0.2.9; shut six 10.77.1.5; shut one 10.77.6.8
        # Sources between networks of ours are what they are.
        inside two nc -n -v -l 7000 >/run/seen 2>&1 & until_true inside two sh -c "ss -Hlnt | grep -q ':7000 '"
        echo hi | inside one nc -N 10.77.2.6 7000
        until_true grep -q 'Connection received on 10.77.1.5' /run/seen
        teardown one open1; teardown two open2; teardown three shy1; teardown four shy2; teardown five strict; teardown six inner
        ip link del wan; ip netns del four; ip netns del five; ip netns del six
        nothing_left
        "#
    ));
}

#[test]
fn options_are_heard() {
    let bench = Bench::new();
    write_with_options(&bench);
    bench.ok(&format!(
        r#"{WORLD}
        setup one web
        inside one ip -o link show eth0 | grep 'mtu 1400' | grep -q 02:42:00:00:00:99
        ip -o link show vweb | grep -q 'master podman1'
        inside one ip route show default | grep -q 'via 10.77.1.1 dev eth0 proto static metric 50'
        inside one ip route show default | grep -q 'via 10.77.2.1 dev eth1 proto static metric 51'
        inside one ip -6 route show default | grep -q 'via fd00:77:1::1 dev eth0 proto static metric 50'
        inside one ip route show | grep -q '10.200.0.0/16 via 10.77.1.9 dev eth0 proto static metric 50'
        inside one ip route show | grep -q 'blackhole 10.201.0.0/16 proto static metric 9'
        ip addr add 192.0.2.77/24 dev wan
        inside world nc -n -v -l 7000 >/run/seen 2>&1 & until_true inside world sh -c "ss -Hlnt | grep -q ':7000 '"
        echo hi | inside one nc -N 192.0.2.9 7000
        until_true grep -q 'Connection received on 192.0.2.77' /run/seen
        setup two quiet
        [ -z "$(inside two ip route show default)$(inside two ip -6 route show default)" ]
        # Somebody else's bridge is used as it is, and stays.
        fails netavark setup /run/netns/three <foreign.json >/run/out; says 'podman4 does not exist'
        ip link add podman4 type bridge; ip link set podman4 up
        setup three foreign
        [ -z "$(ip -4 -o addr show dev podman4)" ]
        nft list set inet mossnet-podman bridges >/run/bridges; fails grep -q podman4 /run/bridges
        teardown three foreign
        ip link show podman4 >/dev/null; ip link del podman4
        teardown one web; teardown two quiet
        # A VRF that is not there is an error, and nothing stays behind; a VLAN is one where the kernel has none.
        fails netavark setup /run/netns/one <vrf.json >/run/out; says 'red does not exist'
        if netavark setup /run/netns/one <vlan.json >/run/out; then
            ip -d link show podman5 | grep -q 'vlan_default_pvid 7'
            setup two vlan; reaches one 10.77.5.1; teardown two vlan
        else says 'into a VLAN'; fi
        teardown one vlan
        ip link del wan
        nothing_left
        "#
    ));
}

#[test]
fn whoever_is_killed_leaves_nothing_for_long() {
    let bench = Bench::new();
    let net = || (1, network("a", 1, json!({"dns_enabled": true})));
    let mut web = container("web", 5, &[net()]);
    web["port_mappings"] = ports();
    bench.write("web", web.to_string());
    bench.write("db", container("db", 6, &[net()]).to_string());
    bench.ok(
        r#"
        # A container whose namespace went without a teardown, and a set-up of the same in a new one.
        setup one web; ip netns del one; ip netns add one; setup one web; teardown one web; nothing_left
        # One that nobody tears down: the next call does.
        setup one web; setup two db; ip netns del one
        teardown two db; ip netns add one; nothing_left
        # Kills at any time. Podman takes the namespace away then, and what comes next finds the rest.
        for delay in 0 0.002 0.004 0.006 0.008 0.010 0.012 0.015 0.02 0.03; do
            netavark setup /run/netns/one <web.json >/dev/null 2>&1 & pid=$!
            sleep $delay; kill -9 $pid 2>/dev/null || true; wait $pid || true
            ip netns del one
            setup two db
            [ "$(ip -o link show master podman1 | wc -l)" = 1 ]
            fails grep -q 'web' /run/net/aardvark-dns/a
            teardown two db
            ip netns add one
            nothing_left
        done
        # A record that is torn is no record.
        setup one web; echo '{torn' >/run/net/mossnet.json; teardown one web; nothing_left
        "#,
    );
}

fn write_with_options(bench: &Bench) {
    let options = json!({
        "options": {"mtu": "1400", "metric": "50", "outbound_addr4": "192.0.2.77"},
        "routes": [
            {"destination": "10.200.0.0/16", "gateway": "10.77.1.9"},
            {"destination": "10.201.0.0/16", "route_type": "blackhole", "metric": 9},
        ],
    });
    let second = (2, network("b", 2, json!({"options": {"metric": "50"}})));
    let mut web = container("web", 5, &[(1, network("a", 1, options)), second]);
    web["networks"]["a"]["static_mac"] = "02:42:00:00:00:99".into();
    web["networks"]["a"]["options"] = json!({"host_interface_name": "vweb"});
    bench.write("web", web.to_string());
    let quiet = (
        3,
        network("c", 3, json!({"options": {"no_default_route": "true"}})),
    );
    bench.write("quiet", container("quiet", 5, &[quiet]).to_string());
    let foreign = json!({"options": {"mode": "unmanaged"}});
    bench.write(
        "foreign",
        container("foreign", 5, &[(4, network("d", 4, foreign))]).to_string(),
    );
    for (name, options) in [
        ("vlan", json!({"vlan": "7"})),
        ("vrf", json!({"vrf": "red"})),
    ] {
        let net = network("e", 5, json!({ "options": options }));
        bench.write(name, container(name, 5, &[(5, net)]).to_string());
    }
}
