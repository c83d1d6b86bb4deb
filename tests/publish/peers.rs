//! Who may speak in a published flow: its client and its container, and nobody else.

use super::ports::{end, serves, tell};
use super::*;
use crate::world::{SERVER, SERVER_B, SERVER6};

/// A client that hears everybody.
fn open_client(address: &str, port: u16) -> UdpSocket {
    within("server", || {
        let socket = UdpSocket::bind((address.parse::<IpAddr>().unwrap(), port)).unwrap();
        socket.set_read_timeout(Some(seconds(20))).unwrap();
        socket
    })
}

/// Text and sender of what comes.
fn heard(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut buffer = [0; 256];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Some((text, from))
}

fn accepted(world: &World) -> String {
    let counted = "{{.HostPorts}} {{.Accepted}} {{.Refused}}";
    world
        .mossnet(["port", "ls", "web", "--format", counted])
        .ok()
}

#[test]
fn datagrams_reach_the_client_of_their_own_flow_only() {
    World::test(|world| {
        tell(world, "web", &["-p", "5353:53/udp"]);
        world.sleeper("neighbour", "");
        for (host, own, port) in [(HOST, SERVER, 6000), (HOST6, SERVER6, 6001)] {
            let client = open_client(own, port);
            let asked = at(host, 5353);
            client.send_to(b"who am I?", asked).unwrap();
            let expected = at(own, port).to_string();
            assert_eq!(heard(&client), Some((expected.clone(), asked)));
            // The container from another port, and its neighbour from the same one, send to the client
            // as to anybody: by the host's address, and not by the port that it asked.
            for (name, source) in [("web", 54), ("neighbour", 53)] {
                let send = format!(
                    "import socket\n\
                     u=socket.socket(socket.AF_INET6 if ':' in '{own}' else socket.AF_INET,socket.SOCK_DGRAM)\n\
                     u.bind(('',{source})); u.sendto(b'stranger',('{own}',{port}))"
                );
                world.python(name, &send).ok();
                let (text, from) = heard(&client).expect("a stranger's datagram");
                assert_eq!((text.as_str(), from.ip()), ("stranger", asked.ip()));
                assert_ne!(from.port(), 5353, "{name}");
            }
            client.send_to(b"who am I?", asked).unwrap();
            assert_eq!(heard(&client), Some((expected, asked)));
        }
        // Another client by the same port number is another flow.
        let (one, other) = (open_client(SERVER, 6002), open_client(SERVER_B, 6002));
        for (client, own) in [(&one, SERVER), (&other, SERVER_B), (&one, SERVER)] {
            client.send_to(b"?", at(HOST, 5353)).unwrap();
            let answer = (at(own, 6002).to_string(), at(HOST, 5353));
            assert_eq!(heard(client), Some(answer));
        }
        assert_eq!(accepted(world), "5353 4 0\n");
        end(world);
    });
}

/// Prints every datagram on port 53 and its sender, and tells the sender whom it is taken for.
const WATCH: &str = "import socket\n\
    u=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
    u.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0); u.bind(('::',53))\n\
    print('serves',flush=True)\n\
    while True:\n\
    \x20d,p=u.recvfrom(999); a=p[0].replace('::ffff:','')\n\
    \x20n=('[%s]:%d' if ':' in a else '%s:%d')%(a,p[1])\n\
    \x20print('datagram',d.decode(),'from',n,flush=True); u.sendto(n.encode(),p)";

/// `me`, `victim`: MAC, IPv4, IPv6; `client`: IPv4, IPv6 and its ports; `near`: on one network.
const FORGE: &str = r"
import socket,struct,subprocess
mac=lambda t: bytes.fromhex(t.replace(':',''))
def total(b):
    b+=b'\0'*(len(b)%2); n=sum(struct.unpack('!%dH'%(len(b)//2),b))
    while n>>16: n=(n&65535)+(n>>16)
    return ~n&65535
def pack(a): return socket.inet_pton(socket.AF_INET6 if ':' in a else socket.AF_INET,a)
def packet(src,dst,proto,body,at):
    if ':' in src:
        pseudo=pack(src)+pack(dst)+struct.pack('!II',len(body),proto)
        body=body[:at]+struct.pack('!H',total(pseudo+body))+body[at+2:]
        return struct.pack('!IHBB',6<<28,len(body),proto,64)+pack(src)+pack(dst)+body
    if proto==1: body=body[:at]+struct.pack('!H',total(body))+body[at+2:]
    h=struct.pack('!BBHHHBBH',0x45,0,20+len(body),0,0,64,proto,0)+pack(src)+pack(dst)
    return h[:10]+struct.pack('!H',total(h))+h[12:]+body
def udp(src,sport,dst,dport,text):
    return packet(src,dst,17,struct.pack('!HHHH',sport,dport,8+len(text),0)+text,6)
def unreachable(src,dst,about):
    six=':' in src
    return packet(src,dst,58 if six else 1,struct.pack('!BBHI',1 if six else 3,4 if six else 3,0,0)+about,2)
w=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); w.bind(('eth0',0))
def send(to,p): w.send(mac(to)+mac(me[0])+(b'\x86\xdd' if p[0]>>4==6 else b'\x08\x00')+p)
for f in (0,1):
    g=gateway[f]; subprocess.run(['ping','-c1','-W2','-n',g],stdout=subprocess.DEVNULL,check=True)
    router=subprocess.run(['ip','neigh','show',g],capture_output=True,text=True).stdout.split('lladdr ')[1].split()[0]
    my,its,c,p=me[1+f],victim[1+f],client[f],ports[f]
    asked=udp(c,p,its,53,b'who am I?')
    for _ in range(3):
        send(router,udp(its,53,c,p,b'forged-answer'))
        send(router,udp(my,53,c,p,b'own-answer'))
        send(router,udp(c,p,its,53,b'forged-question'))
        send(router,unreachable(my,c,asked))
        send(router,unreachable(its,c,asked))
        send(router,unreachable(g,c,asked))
        if near:
            send(victim[0],udp(c,p,its,53,b'forged-question'))
            send(victim[0],udp(g,p,its,53,b'forged-question'))
            send(victim[0],unreachable(c,its,udp(its,53,c,p,b'?')))
    if near:
        send(victim[0],udp(my,4000,its,53,b'honest-question'))
print('sent')
";

/// MAC, IPv4 and IPv6 of a sandbox on a network.
fn identity(world: &World, name: &str, network: &str) -> [String; 3] {
    let mac = world.endpoint(name, network)["MacAddress"]
        .as_str()
        .unwrap()
        .to_owned();
    let [v4, v6] = [false, true].map(|ipv6| world.address_on(name, network, ipv6));
    [mac, v4, v6]
}

#[test]
fn nobody_poses_as_a_client_or_as_the_container() {
    World::test(|world| {
        for (name, n) in [("mine", 1), ("theirs", 2)] {
            let subnets = format!("--subnet 10.77.{n}.0/24 --subnet fd00:77:{n}::/64");
            world.network(&format!("create {subnets} {name}")).ok();
        }
        let head = [
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "mine",
            "-p",
            "5353:53/udp",
        ];
        world
            .mossnet(head)
            .then(["--", "python3", "-c", WATCH])
            .ok();
        serves(world, "web");
        world.sleeper("near", "--network mine");
        world.sleeper("far", "--network theirs");
        let ports = [6000, 6001];
        let clients = [HOST, HOST6].iter().zip(ports);
        let clients: Vec<_> = clients
            .map(|(host, port)| udp_client("server", port, at(host, 5353)))
            .collect();
        for client in &clients {
            assert_eq!(udp_seen(client), client.local_addr().unwrap());
        }
        let victim = identity(world, "web", "mine");
        for (name, network, n) in [("near", "mine", 1), ("far", "theirs", 2)] {
            let script = format!(
                "me={:?}\nvictim={victim:?}\nclient=['{SERVER}','{SERVER6}']\nports={ports:?}\n\
                 gateway=['10.77.{n}.1','fd00:77:{n}::1']\nnear={}\n{FORGE}",
                identity(world, name, network),
                if name == "near" { "True" } else { "False" },
            );
            assert_eq!(world.python(name, &script).ok(), "sent\n");
            for client in &clients {
                client
                    .set_read_timeout(Some(Duration::from_millis(300)))
                    .unwrap();
                let forged = client.recv(&mut [0; 64]);
                assert!(forged.is_err(), "{name}: {forged:?}");
                client.set_read_timeout(Some(seconds(20))).unwrap();
                assert_eq!(udp_seen(client), client.local_addr().unwrap(), "{name}");
            }
            // The flows are those of the beginning: nobody has ended one.
            assert_eq!(accepted(world), "5353 2 0\n", "{name}");
        }
        let log = world.mossnet(["logs", "web"]).ok();
        assert!(!log.contains("forged"), "{log}");
        assert_eq!(log.matches("honest-question").count(), 2, "{log}");
        world.mossnet(["rm", "-f", "web", "near", "far"]).ok();
    });
}
