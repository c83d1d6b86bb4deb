//! Inside one bridge: who claims another's MAC or address, advertises routes or serves DHCP, is not
//! heard. Frames are forged by hand on a packet socket and looked for on one at the other end.
//!
//! Every frame carries a mark, and an honest one closes the row: when that has come, what is not
//! there by then was dropped. Neighbour discovery is marked by a number in reserved bits, so that
//! its frames have the very shape of honest ones. Sources: RFC 826, RFC 4861, packet(7).

use crate::world::{Running, World, seconds};
use std::collections::BTreeSet;

/// Names of marks that are numbers, from 1.
const NUMBERED: &str = "ND=['honest-na','honest-na-bare','honest-ns','honest-ns-local','na','na-bare',\
    'na-lla','na-gateway','na-local','na-source','ns-source','ns-lla','ns-local','redirect']\n";

/// Says `ready`, then every mark that comes in, until END.
const LISTEN: &str = "import socket,re\n\
    s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))\n\
    print('ready',flush=True)\n\
    while True:\n\
    \x20f,a=s.recvfrom(3000)\n\
    \x20if a[2]==4: continue\n\
    \x20if f[12:14]==b'\\x86\\xdd' and f[20]==58 and f[54] in (135,136,137):\n\
    \x20\x20n=f[60]*256+f[61]\n\
    \x20\x20if n: print('heard',ND[n-1],flush=True)\n\
    \x20for m in re.findall(rb'MARK-([a-z0-9-]+);',f): print('heard',m.decode(),flush=True)\n\
    \x20if b'MARK-'+END+b';' in f: break\n";

/// Builds frames. `me` and `peer` are the sender's and another member's (MAC, IPv4, IPv6), `to` is
/// the listener's.
const FORGE: &str = r"
import socket,struct,sys
mac=lambda t: bytes.fromhex(t.replace(':',''))
ip4=lambda t: socket.inet_pton(socket.AF_INET,t)
ip6=lambda t: socket.inet_pton(socket.AF_INET6,t)
def total(b):
    b+=b'\0'*(len(b)%2); n=sum(struct.unpack('!%dH'%(len(b)//2),b))
    while n>>16: n=(n&65535)+(n>>16)
    return ~n&65535
def eth(src,kind,data,dst=None): return mac(dst or to[0])+mac(src)+struct.pack('!H',kind)+data
def v4(src,proto,data,dst=None):
    h=struct.pack('!BBHHHBBH',0x45,0,20+len(data),0,0,64,proto,0)+ip4(src)+ip4(dst or to[1])
    return h[:10]+struct.pack('!H',total(h))+h[12:]+data
def v6(src,proto,data,dst=None,hops=64):
    return struct.pack('!IHBB',6<<28,len(data),proto,hops)+ip6(src)+ip6(dst or to[2])+data
def udp(sport,dport,mark): return struct.pack('!HHHH',sport,dport,8+len(mark),0)+mark
def icmp6(src,dst,kind,rest):
    body=struct.pack('!BBH',kind,0,0)+rest
    pseudo=ip6(src)+ip6(dst)+struct.pack('!II',len(body),58)
    return body[:2]+struct.pack('!H',total(pseudo+body))+body[4:]
def arp(op,smac,sip,tip,mark): return struct.pack('!HHBBH',1,0x800,6,4,op)+mac(smac)+ip4(sip)+mac(to[0])+ip4(tip)+mark
def option(mark): # an unknown ND option that carries the mark
    mark+=b' '*(-(len(mark)+2)%8); return bytes([253,(len(mark)+2)//8])+mark
def number(name): return struct.pack('!H',ND.index(name)+1)
def lla(kind,address): return bytes([kind,1])+mac(address) if address else b''
def na(src,target,address,name):
    dst='ff02::1'; rest=b'\x20\0'+number(name)+ip6(target)+lla(2,address)
    return v6(src,58,icmp6(src,dst,136,rest),dst,255)
def ns(src,target,address,name):
    rest=b'\0\0'+number(name)+ip6(target)+lla(1,address)
    return v6(src,58,icmp6(src,to[2],135,rest),None,255)
def ra(src,mark):
    dst='ff02::1'; rest=b'\x40\0\x07\x08'+b'\0'*8+b'\x03\x04\x40\xc0'+b'\xff'*8+b'\0'*4+ip6('2001:db8:bad::')+option(mark)
    return v6(src,58,icmp6(src,dst,134,rest),dst,255)
def redirect(src,name):
    rest=b'\0\0'+number(name)+ip6(me[3])+ip6('2001:db8:100::10')
    return v6(src,58,icmp6(src,to[2],137,rest),None,255)
ALL='33:33:00:00:00:01'; BROAD='ff:ff:ff:ff:ff:ff'
def tag(n,kind,data): return (0x8100,b''.join(struct.pack('!HH',0,0x8100) for _ in range(n-1))+struct.pack('!HH',0,kind)+data)
m=lambda name: b'MARK-'+name.encode()+b';'
honest=lambda name: eth(me[0],0x800,v4(me[1],17,udp(4000,4001,m(name))))
def frames():
    yield 'honest-4', honest('honest-4')
    yield 'honest-6', eth(me[0],0x86dd,v6(me[2],17,udp(4000,4001,m('honest-6'))))
    yield 'honest-arp', eth(me[0],0x806,arp(1,me[0],me[1],to[1],m('honest-arp')))
    yield 'honest-na', eth(me[0],0x86dd,na(me[2],me[2],me[0],'honest-na'),ALL)
    yield 'honest-na-bare', eth(me[0],0x86dd,na(me[2],me[2],None,'honest-na-bare'),ALL)
    yield 'honest-ns', eth(me[0],0x86dd,ns(me[2],to[2],me[0],'honest-ns'))
    yield 'honest-ns-local', eth(me[0],0x86dd,ns(me[3],to[2],me[0],'honest-ns-local'))
    yield 'mac', eth(peer[0],0x800,v4(me[1],17,udp(4000,4001,m('mac'))))
    yield 'mac-other', eth('02:ff:ff:ff:ff:01',0x800,v4(me[1],17,udp(4000,4001,m('mac-other'))))
    yield 'mac-kind', eth(peer[0],0x88b5,m('mac-kind')*8)
    yield 'src4', eth(me[0],0x800,v4(peer[1],17,udp(4000,4001,m('src4'))))
    yield 'src4-gateway', eth(me[0],0x800,v4(gw[0],17,udp(4000,4001,m('src4-gateway'))))
    yield 'src4-outside', eth(me[0],0x800,v4('198.51.100.10',17,udp(53,4001,m('src4-outside'))))
    yield 'src6', eth(me[0],0x86dd,v6(peer[2],17,udp(4000,4001,m('src6'))))
    yield 'src6-outside', eth(me[0],0x86dd,v6('2001:db8:100::10',17,udp(4000,4001,m('src6-outside'))))
    yield 'arp-reply', eth(me[0],0x806,arp(2,me[0],peer[1],to[1],m('arp-reply')))
    yield 'arp-request', eth(me[0],0x806,arp(1,me[0],peer[1],to[1],m('arp-request')))
    yield 'arp-gateway', eth(me[0],0x806,arp(2,me[0],gw[0],to[1],m('arp-gateway')),BROAD)
    yield 'arp-mac', eth(me[0],0x806,arp(2,peer[0],me[1],to[1],m('arp-mac')))
    yield 'na', eth(me[0],0x86dd,na(me[2],peer[2],me[0],'na'),ALL)
    yield 'na-bare', eth(me[0],0x86dd,na(me[2],peer[2],None,'na-bare'),ALL)
    yield 'na-lla', eth(me[0],0x86dd,na(me[2],me[2],peer[0],'na-lla'),ALL)
    yield 'na-gateway', eth(me[0],0x86dd,na(me[3],gw[1],me[0],'na-gateway'),ALL)
    yield 'na-local', eth(me[0],0x86dd,na(me[3],peer[3],me[0],'na-local'),ALL)
    yield 'na-source', eth(me[0],0x86dd,na(peer[2],peer[2],me[0],'na-source'),ALL)
    yield 'ns-source', eth(me[0],0x86dd,ns(peer[2],to[2],me[0],'ns-source'))
    yield 'ns-lla', eth(me[0],0x86dd,ns(me[2],to[2],peer[0],'ns-lla'))
    yield 'ns-local', eth(me[0],0x86dd,ns(peer[3],to[2],me[0],'ns-local'))
    yield 'ra', eth(me[0],0x86dd,ra(me[3],m('ra')),ALL)
    yield 'ra-fake', eth(me[0],0x86dd,ra('fe80::1',m('ra-fake')),ALL)
    yield 'redirect', eth(me[0],0x86dd,redirect(me[3],'redirect'))
    yield 'dhcp', eth(me[0],0x800,v4(me[1],17,udp(67,68,m('dhcp'))))
    yield 'dhcp-broadcast', eth(me[0],0x800,v4(me[1],17,udp(67,68,m('dhcp-broadcast')),'255.255.255.255'),BROAD)
    yield 'dhcp6', eth(me[0],0x86dd,v6(me[3],17,udp(547,546,m('dhcp6'))))
    for n in (1,2):
        name='tag%d-src4'%n; k,d=tag(n,0x800,v4(peer[1],17,udp(4000,4001,m(name)))); yield name, eth(me[0],k,d)
        name='tag%d-arp'%n; k,d=tag(n,0x806,arp(2,me[0],peer[1],to[1],m(name))); yield name, eth(me[0],k,d)
        name='tag%d-ra'%n; k,d=tag(n,0x86dd,ra(me[3],m(name))); yield name, eth(me[0],k,d,ALL)
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(('eth0',0))
for name,frame in frames():
    s.send(frame+b'\0'*(60-len(frame))); print('sent',name)
s.send(honest('end'))
";

/// What a member is known by: MAC, IPv4, IPv6, link-local address.
#[track_caller]
fn identity(world: &World, name: &str) -> [String; 4] {
    let endpoint = world.endpoint(name, "mynet");
    let mac = endpoint["MacAddress"].as_str().expect("a MAC").to_owned();
    let link = world
        .line(&format!(
            "exec {name} -- ip -o -6 addr show dev eth0 scope link"
        ))
        .ok();
    let local = link
        .split_whitespace()
        .nth(3)
        .and_then(|text| text.split('/').next());
    let local = local
        .unwrap_or_else(|| panic!("no link-local address: {link}"))
        .to_owned();
    let [v4, v6] = [false, true].map(|ipv6| world.address_on(name, "mynet", ipv6));
    [mac, v4, v6, local]
}

/// Attacker, a member that it claims to be, and the one that listens.
fn scene(world: &World) {
    world
        .network("create --subnet 172.31.1.0/24 --subnet fd00:31::/64 mynet")
        .ok();
    for name in ["attacker", "peer", "listener"] {
        world.sleeper(name, "--network mynet --cap-add NET_ADMIN");
    }
}

fn forge(world: &World) -> String {
    let list = |name: &str| format!("{:?}", identity(world, name));
    format!(
        "me,peer,to={},{},{}\ngw=('172.31.1.1','fd00:31::1')\n{NUMBERED}{FORGE}",
        list("attacker"),
        list("peer"),
        list("listener")
    )
}

fn listen(world: &World, name: &str, end: &str) -> Running {
    let script = format!("END=b'{end}'\n{NUMBERED}{LISTEN}");
    let mut listener = world.python(name, &script).timeout(seconds(60)).start();
    listener.expect("ready");
    listener
}

fn heard(listener: Running) -> BTreeSet<String> {
    let text = listener.wait().expect_code(0).stdout;
    text.lines()
        .filter_map(|line| line.strip_prefix("heard "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn forged_frames_are_dropped() {
    World::test(|world| {
        scene(world);
        let listener = listen(world, "listener", "end");
        let sent = world.python("attacker", &forge(world)).ok();
        assert!(sent.lines().count() > 25, "{sent}");
        let honest =
            "honest-4 honest-6 honest-arp honest-na honest-na-bare honest-ns honest-ns-local";
        let expected: BTreeSet<String> = honest
            .split(' ')
            .chain(["end"])
            .map(str::to_owned)
            .collect();
        assert_eq!(heard(listener), expected);
        world
            .mossnet(["rm", "-f", "attacker", "peer", "listener"])
            .ok();
    });
}

/// Has `from` send `mark` to port 4001 of each address.
fn send_marks(world: &World, from: &str, mark: &str, addresses: &[&str]) {
    let script = format!(
        "import socket\nfor a in {addresses:?}:\n\
         \x20s=socket.socket(socket.AF_INET6 if ':' in a else socket.AF_INET,socket.SOCK_DGRAM)\n\
         \x20s.sendto(b'MARK-{mark};',(a,4001))\n"
    );
    world.python(from, &script).ok();
}

#[test]
fn nobody_gets_a_neighbours_traffic() {
    World::test(|world| {
        scene(world);
        let [mac, v4, v6, _] = identity(world, "peer");
        let own = identity(world, "attacker");
        let spoof = forge(world);
        assert!(world.pings("listener", &v4) && world.pings("listener", &v6));
        let spy = listen(world, "attacker", "over");
        // The attacker takes the neighbour's addresses, too, and answers for them.
        let take = format!("ip addr add {v4}/24 dev eth0; ip -6 addr add {v6}/64 dev eth0 nodad");
        world.within("attacker", &take).ok();
        world.python("attacker", &spoof).ok();
        let neighbours = world.line("exec listener -- ip neigh").ok();
        for address in [&v4, &v6] {
            let mut lines = neighbours.lines();
            let line = lines.find(|line| line.starts_with(&format!("{address} ")));
            let line = line.unwrap_or_else(|| panic!("{address}: {neighbours}"));
            assert!(line.contains(&mac), "still the neighbour's: {line}");
        }
        // Asked again, it is the neighbour that is found.
        for round in 0..5 {
            world.within("listener", "ip neigh flush dev eth0").ok();
            let answered = listen(world, "peer", "end");
            send_marks(world, "listener", "secret", &[&v4, &v6]);
            send_marks(world, "listener", "end", &[&v4]);
            let marks = heard(answered);
            assert!(marks.contains("secret"), "round {round}: {marks:?}");
        }
        send_marks(world, "listener", "over", &[&own[1]]);
        let overheard = heard(spy);
        assert!(!overheard.contains("secret"), "{overheard:?}");
        world
            .mossnet(["rm", "-f", "attacker", "peer", "listener"])
            .ok();
    });
}

#[test]
fn a_changed_mac_or_address_is_mute() {
    World::test(|world| {
        scene(world);
        let peer = identity(world, "peer");
        assert!(world.pings("attacker", &peer[1]));
        let own = identity(world, "attacker");
        world
            .within(
                "attacker",
                "ip link set eth0 address 02:00:00:00:be:ef && ip neigh flush dev eth0",
            )
            .ok();
        assert!(!world.pings("attacker", &peer[1]), "another MAC");
        world
            .within(
                "attacker",
                &format!(
                    "ip link set eth0 address {} && ip neigh flush dev eth0",
                    own[0]
                ),
            )
            .ok();
        assert!(world.pings("attacker", &peer[1]), "its own again");
        world
            .within(
                "attacker",
                &format!(
                    "ip addr del {}/24 dev eth0 && ip addr add 172.31.1.200/24 dev eth0",
                    own[1]
                ),
            )
            .ok();
        assert!(!world.pings("attacker", &peer[1]), "another address");
        world
            .mossnet(["rm", "-f", "attacker", "peer", "listener"])
            .ok();
    });
}

#[test]
fn rogue_advertisements_change_nothing() {
    World::test(|world| {
        scene(world);
        let script = forge(world);
        // Even one that wants to hear them.
        world
            .within(
                "listener",
                "echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra",
            )
            .run();
        let state = || {
            world
                .line("exec listener -- sh -c")
                .then(["ip -6 route; ip -6 -o addr | cut -d' ' -f2-10"])
                .ok()
        };
        let before = state();
        let listener = listen(world, "listener", "end");
        world.python("attacker", &script).ok();
        heard(listener);
        let after = state();
        assert!(!after.contains("2001:db8:bad"), "{after}");
        assert_eq!(
            after.lines().count(),
            before.lines().count(),
            "{before}\n{after}"
        );
        world
            .mossnet(["rm", "-f", "attacker", "peer", "listener"])
            .ok();
    });
}
