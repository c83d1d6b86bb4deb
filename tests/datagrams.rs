//! UDP: sizes, order, and the errors that come back.

use crate::outbound::{python, python_on_host};
use crate::world::{
    BLACK_HOLE, PROHIBITED, SERVER, SERVER6, UNREACHABLE, UNREACHABLE6, UNROUTED, UNROUTED6, World,
    ip, servers,
};

#[test]
fn datagrams_of_every_size_come_back() {
    World::test(|world| {
        servers::udp_echo("server", 7);
        for address in [SERVER, SERVER6] {
            let script = format!(
                "s = socket.socket(socket.AF_INET6 if ':' in '{address}' else socket.AF_INET, socket.SOCK_DGRAM)\n\
                 s.settimeout(15)\n\
                 for size in (0, 1, 512, 1400, 1472, 1473, 4000, 9000, 30000, 60000):\n\
                 \x20 data = bytes(i % 251 for i in range(size))\n\
                 \x20 s.sendto(data, ('{address}', 7))\n\
                 \x20 back, peer = s.recvfrom(65535)\n\
                 \x20 assert back == data, (size, len(back))\n\
                 \x20 assert peer[:2] == ('{address}', 7), peer\n\
                 print('all')"
            );
            assert_eq!(python(world, &script).ok(), "all\n", "{address}");
        }
    });
}

#[test]
fn datagrams_keep_their_order_and_their_flows() {
    World::test(|world| {
        servers::udp_echo("server", 7);
        let script = format!(
            "for flow in range(50):\n\
             \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             \x20 s.settimeout(15)\n\
             \x20 for i in range(40): s.sendto(struct.pack('ii', flow, i), ('{SERVER}', 7))\n\
             \x20 got = [struct.unpack('ii', s.recv(8)) for i in range(40)]\n\
             \x20 assert got == [(flow, i) for i in range(40)], got\n\
             print('in order')"
        );
        assert_eq!(python(world, &script).ok(), "in order\n");
    });
}

/// Sends to a port where nobody listens, on the host and in a sandbox. Few at a time: a router
/// sends a burst of five such errors to a neighbour, then one a second.
fn expect_errors(world: &World, cases: &[(&str, &str)]) {
    for (address, answer) in cases {
        // Without RECVERR the kernel tells a program of refused ports only (udp(7)).
        let script = format!(
            "six = ':' in '{address}'\n\
             s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.setsockopt(*((socket.IPPROTO_IPV6, 25, 1) if six else (socket.IPPROTO_IP, 11, 1)))\n\
             s.settimeout(5)\ns.connect(('{address}', 9))\n\
             try:\n\
             \x20 s.send(b'anyone?')\n\
             \x20 s.recv(10)\n\
             except socket.timeout: print('timed out')\n\
             except OSError as e: print(errno.errorcode[e.errno])"
        );
        let on_host = python_on_host(world, &script).ok();
        assert_eq!(
            on_host.trim(),
            *answer,
            "datagram to {address}, on the host"
        );
        let inside = python(world, &script).ok();
        assert_eq!(inside.trim(), *answer, "datagram to {address}");
    }
}

#[test]
fn refusals_of_datagrams_come_back() {
    World::test(|world| {
        expect_errors(
            world,
            &[
                (SERVER, "ECONNREFUSED"),
                (SERVER6, "ECONNREFUSED"),
                (BLACK_HOLE, "timed out"),
            ],
        );
    });
}

#[test]
fn what_routers_say_of_datagrams_comes_back() {
    World::test(|world| {
        expect_errors(
            world,
            &[(UNREACHABLE, "EHOSTUNREACH"), (UNROUTED, "ENETUNREACH")],
        );
    });
}

#[test]
fn what_routers_prohibit_comes_back() {
    World::test(|world| {
        let cases = [
            (PROHIBITED, "EHOSTUNREACH"),
            (UNREACHABLE6, "ENETUNREACH"),
            (UNROUTED6, "ENETUNREACH"),
        ];
        expect_errors(world, &cases);
    });
}

/// How a sender's wish about fragments (IP_MTU_DISCOVER: 0 let routers, 1 see to it, 2 never, 3 never,
/// and ask nobody) fares on a path with a narrow link.
const ABOUT_FRAGMENTS: &str = "
six = ':' in address
level, option, mtu = (socket.IPPROTO_IPV6, 23, 24) if six else (socket.IPPROTO_IP, 10, 14)
def opened(wish):
  s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
  s.setsockopt(level, option, wish)
  s.settimeout(1)
  s.connect((address, 7))
  return s
def echoed(s, size):
  for _ in range(3):
    try:
      s.send(bytes(size))
      if len(s.recv(9999)) == size: return True
    except socket.timeout: pass
    except OSError as e:
      if e.errno != errno.EMSGSIZE: raise
  return False
never = opened(2)
print('never:', echoed(never, 1450), never.getsockopt(level, mtu), echoed(never, 1300))
print('probe:', echoed(opened(3), 1450))
print('kernel:', echoed(opened(1), 1450), echoed(opened(1), 4000))
if not six: print('routers:', echoed(opened(0), 1450), echoed(opened(0), 1472))
";

#[test]
fn who_forbids_fragments_hears_of_the_narrow_link() {
    World::test(|world| {
        servers::udp_echo("server", 7);
        ip(Some("isp"), "link set server mtu 1400\n");
        ip(Some("server"), "link set eth0 mtu 1400\n");
        let expected = "never: False 1400 True\nprobe: False\nkernel: True True\n";
        for (address, routers) in [(SERVER, "routers: True True\n"), (SERVER6, "")] {
            let script = format!("address = '{address}'\n{ABOUT_FRAGMENTS}");
            let expected = format!("{expected}{routers}");
            let on_host = python_on_host(world, &script).ok();
            assert_eq!(on_host, expected, "{address}, on the host");
            assert_eq!(python(world, &script).ok(), expected, "{address}");
        }
    });
}
