//! The name server: what it answers to whom, and how long it lives.

use super::{Bench, container, network};
use serde_json::json;

/// A resolver of the world outside, at 192.0.2.53 and .54, that knows its own address by every name.
const RESOLVER: &str = r#"
    ip link add outside type veth peer name beyond; ip link set outside up; ip link set beyond up
    cat >/run/resolver.py <<'END'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
while True:
    q, who = s.recvfrom(512)
    a = q[:2] + b'\x81\x80' + q[4:6] + b'\0\1\0\0\0\0'
    end = 12
    while q[end]:
        end += q[end] + 1
    a += q[12:end + 5] + b'\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4' + socket.inet_aton(sys.argv[1])
    s.sendto(a, who)
END
    for address in 192.0.2.53 192.0.2.54 192.0.2.55; do
        ip addr add $address/24 dev outside
        python3 /run/resolver.py $address & 
        until_true sh -c "ss -Hlnu | grep -q '$address:53 '"
    done
    echo 'nameserver 192.0.2.53' >/run/resolv.conf
    mkdir /run/etc; cp /etc/passwd /etc/group /etc/nsswitch.conf /etc/hosts /run/etc 2>/dev/null || true
    cp /run/resolv.conf /run/etc/resolv.conf; mount --bind /run/etc /etc
    ask() { inside "$1" dig +short +tries=1 +time=10 "$2" "@$3" $4; }
    status() { inside "$1" dig +tries=1 +time=10 "$2" "@$3" | sed -n 's/.*status: \([A-Z]*\).*/\1/p'; }
    # Names change with a signal, so shortly after.
    knows() { until_true sh -c "[ \"\$(ip netns exec $1 dig +short +tries=1 +time=10 $2 @$3 ${5:-} | sort | paste -sd' ')\" = '$4' ]" || { echo "not: $*"; ask "$1" "$2" "$3"; return 1; }; }
"#;

#[test]
fn names_are_known_to_those_who_share_a_network() {
    let bench = Bench::new();
    let a = || (1, network("a", 1, json!({"dns_enabled": true})));
    let b = || {
        (
            2,
            network("b", 2, json!({"dns_enabled": true, "internal": true})),
        )
    };
    bench.write("Web", container("Web", 5, &[a(), b()]).to_string());
    bench.write("db", container("db", 6, &[a()]).to_string());
    bench.write("inner", container("inner", 7, &[b()]).to_string());
    bench.ok(&format!(
        r#"{RESOLVER}
        setup one Web; setup two db; setup three inner
        knows two web 10.77.1.1 10.77.1.5
        knows two WEB.dns.podman 10.77.1.1 10.77.1.5
        knows two alias-web 10.77.1.1 fd00:77:1::5 AAAA
        knows two web fd00:77:1::1 10.77.1.5
        knows two web 10.77.1.1 10.77.1.5 +tcp
        knows two '-x 10.77.1.5' 10.77.1.1 web.
        knows one db 10.77.1.1 10.77.1.6
        # Whoever is on both networks knows both; others do not, and nobody asks the world for a bare name.
        knows one inner 10.77.1.1 10.77.2.7
        [ "$(status two inner 10.77.1.1)" = NXDOMAIN ]
        # The world is asked by those who have a way out.
        knows two www.example.com 10.77.1.1 192.0.2.53
        [ "$(status three www.example.com 10.77.2.1)" = NXDOMAIN ]
        # The host's resolver changes.
        echo 'nameserver 192.0.2.54' >/etc/new; mv /etc/new /etc/resolv.conf
        knows two www.example.com 10.77.1.1 192.0.2.54
        teardown two db
        until_true sh -c "[ -z \"\$(ip netns exec one dig +short +tries=1 +time=10 db @10.77.1.1)\" ]"
        pid=$(cat /run/net/aardvark-dns/aardvark.pid)
        [ "$(servers)" = "$pid" ]
        # It holds one power, and cannot get others.
        grep -q 'CapEff:.*0000000000000400' /proc/$pid/status; grep -q 'NoNewPrivs:.*1' /proc/$pid/status
        teardown one Web; teardown three inner
        ip link del outside
        nothing_left
        "#
    ));
}

#[test]
fn resolvers_are_the_containers_then_the_networks_then_the_hosts() {
    let bench = Bench::new();
    let own = json!({"dns_enabled": true, "network_dns_servers": ["192.0.2.54"]});
    let a = || (1, network("a", 1, own.clone()));
    let mut web = container("web", 5, &[a()]);
    web["dns_servers"] = json!(["192.0.2.55"]);
    bench.write("web", web.to_string());
    bench.write("db", container("db", 6, &[a()]).to_string());
    bench.ok(&format!(
        r#"{RESOLVER}
        setup one web; setup two db
        knows one www.example.com 10.77.1.1 192.0.2.55
        knows two www.example.com 10.77.1.1 192.0.2.54
        netavark update a --network-dns-servers ''
        knows two www.example.com 10.77.1.1 192.0.2.53
        knows one www.example.com 10.77.1.1 192.0.2.55
        netavark update a --network-dns-servers 192.0.2.55,192.0.2.53
        knows two www.example.com 10.77.1.1 192.0.2.55
        teardown one web; teardown two db; ip link del outside
        nothing_left
        "#
    ));
}

#[test]
fn the_server_comes_and_goes_with_the_networks() {
    let bench = Bench::new();
    let a = || (1, network("a", 1, json!({"dns_enabled": true})));
    bench.write("web", container("web", 5, &[a()]).to_string());
    bench.write("db", container("db", 6, &[a()]).to_string());
    bench.ok(
        r#"
        ask() { inside "$1" dig +short +tries=1 +time=10 "$2" "@$3" $4; }
        setup one web; [ "$(ask one web 10.77.1.1 '')" = 10.77.1.5 ]
        # Killed, it comes back with the next container.
        kill -9 $(servers); until_true quiet
        setup two db
        until_true sh -c "ip netns exec one dig +short +tries=1 db @10.77.1.1 | grep -q 10.77.1.6"
        teardown two db; teardown one web; nothing_left
        # The last goes and the next comes, again and again: never two servers, never none.
        for round in 1 2 3 4 5 6 7 8 9 10; do
            setup one web
            [ "$(ask one web 10.77.1.1 '')" = 10.77.1.5 ]
            teardown one web
        done
        # Another port, which port 53 leads to.
        until_true quiet
        export NETAVARK_DNS_PORT=5300
        setup one web
        ss -Hlnu | grep -q 10.77.1.1:5300
        [ "$(ask one web 10.77.1.1 '')" = 10.77.1.5 ]; [ "$(ask one web 10.77.1.1 +tcp)" = 10.77.1.5 ]
        unset NETAVARK_DNS_PORT
        # Its directory goes, and it goes, too.
        rm -r /run/net
        until_true quiet
        mkdir /run/net; teardown one web; nothing_left
        # It is called by others, too.
        fails "$MOSSNET" aardvark-dns run 2>/run/out; says --config
        fails "$MOSSNET" aardvark-dns -c /none -p 53 run 2>/run/out; says /none
        "$MOSSNET" aardvark-dns version | grep -q mossnet
        mkdir /run/empty; "$MOSSNET" aardvark-dns -c /run/empty -p 53 run; until_true quiet
        "#,
    );
}
