//! macvlan and ipvlan: containers on the wire of another link, which namespace `three` is at the end of.

use super::{Bench, container, network};
use crate::world::enter;
use serde_json::json;

const LAN: &str = r#"
ip link add up0 type veth peer name lan0 netns three
ip link set up0 up
inside three ip addr add 10.77.9.1/24 dev lan0
inside three ip addr add fd00:77:9::1/64 dev lan0 nodad
inside three ip link set lan0 up
reaches() { until_true inside "$1" ping -c 1 -W 1 "$2"; }
"#;

/// Containers on two networks of this driver: `web` and `db` on `up0`, in this mode; `away` wherever the default
/// route leads. Whether the kernel has such links; it is said where it has not.
fn bench(test: &str, driver: &str, mode: &str) -> Option<Bench> {
    let bench = Bench::new();
    let script = format!("{LAN} ip link add link up0 name try type {driver} || echo none");
    if bench.ok(&script).trim() == "none" {
        enter::skip_here(test, &format!("the kernel has no {driver}"));
        return None;
    }
    let on_up0 = json!({"driver": driver, "network_interface": "up0", "options": {"mode": mode}});
    let lan = (9, network("lan", 9, on_up0));
    bench.write(
        "web",
        container("web", 5, std::slice::from_ref(&lan)).to_string(),
    );
    bench.write("db", container("db", 6, &[lan]).to_string());
    let anywhere = (
        9,
        network(
            "lan",
            9,
            json!({"driver": driver, "network_interface": null}),
        ),
    );
    bench.write("away", container("away", 7, &[anywhere]).to_string());
    bench.write("lost", {
        let link = json!({"driver": driver, "network_interface": "up9"});
        container("lost", 8, &[(9, network("lan", 9, link))]).to_string()
    });
    Some(bench)
}

/// The whole life of them.
const LIFE: &str = r#"
setup one web
setup two db
reaches one 10.77.9.1
reaches one fd00:77:9::1
reaches one 10.77.9.6
inside one ip route get 192.0.2.1 | grep -q 'via 10.77.9.1'
inside one ip -d link show eth0 | grep -q "$KIND"
teardown one web
fails inside one ip link show eth0
fails setup one lost
says 'interface up9 does not exist'
setup one web
reaches three 10.77.9.5
teardown one web
# No parent named: the link of the default route, of which there is none yet.
fails setup one away
says 'of a default route does not exist'
ip addr add 10.77.9.2/24 dev up0
ip route add default via 10.77.9.1
setup one away
reaches one 10.77.9.1
teardown one away
teardown two db
# Again is no error.
teardown two db
ip link del up0
nothing_left
"#;

#[test]
fn macvlan_shares_a_wire() {
    let name = "netavark::shared::macvlan_shares_a_wire";
    let Some(bench) = bench(name, "macvlan", "bridge") else {
        return;
    };
    bench.ok(&format!("KIND='macvlan mode bridge'\n{LAN}\n{LIFE}"));
}

#[test]
fn ipvlan_shares_a_wire() {
    let name = "netavark::shared::ipvlan_shares_a_wire";
    let Some(bench) = bench(name, "ipvlan", "l2") else {
        return;
    };
    bench.ok(&format!("KIND='ipvlan *mode l2'\n{LAN}\n{LIFE}"));
}
