//! Framed flows and those who have no part in them: a neighbour that forges, and the relay's death.

use super::{Stage, TALKERS, WAYS, Way};
use crate::world::{Running, World, eventually, inspect, seconds};

/// Talks to the server, and tells the last segment that it has sent: addresses, ports, numbers, clocks.
const TELLS: &str = "\
w=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3)); w.bind(('eth0',0)); w.settimeout(.3)
c=connect(); ask(c,b'first'); time.sleep(.1); ask(c,b'second')
me=c.getsockname()[1]; last=None
try:
    while True:
        f,a=w.recvfrom(9999)
        six=f[12:14]==b'\\x86\\xdd'
        if a[2]!=4 or f[12:14] not in (b'\\x08\\0',b'\\x86\\xdd') or f[20 if six else 23]!=6: continue
        t=f[54:] if six else f[14+(f[14]&15)*4:]
        sport,dport,seq,ack,off=struct.unpack('!HHIIB',t[:13])
        if sport!=me or t[20:24]!=b'\\1\\1\\x08\\n': continue
        ip=f[22:54] if six else f[26:34]
        data=len(t)-(off>>4)*4
        last=(f[:6].hex(),f[6:12].hex(),ip.hex(),sport,dport,seq+data&0xffffffff,ack,*struct.unpack('!II',t[24:32]))
except socket.timeout: pass
w.close()
say('last',*last)
for line in sys.stdin:
    ask(c,line.encode()); say('asked',line.strip())
say('fine')";

/// Sends segments as `last` would go on: data, an end, a reset; echoing each worker's timestamp.
const FORGES: &str = "\
import socket,struct
router,mac,ip,sport,dport,seq,ack,clock,echo=last.split()
router,mac,ip=map(bytes.fromhex,(router,mac,ip))
sport,dport,seq,ack,clock,echo=map(int,(sport,dport,seq,ack,clock,echo))
def total(b):
    b+=b'\\0'*(len(b)%2); n=sum(struct.unpack('!%dH'%(len(b)//2),b))
    while n>>16: n=(n&65535)+(n>>16)
    return ~n&65535
def frame(source,flags,at,data,echo):
    t=struct.pack('!HHIIBBHHH',sport,dport,at&0xffffffff,ack,8<<4,flags,500,0,0)+struct.pack('!BBBBII',1,1,8,10,clock,echo)+data
    t=t[:16]+struct.pack('!H',total(ip+struct.pack('!II',len(t),6)+t))+t[18:]
    if len(ip)==32: return router+source+b'\\x86\\xdd'+struct.pack('!IHBB',6<<28,len(t),6,64)+ip+t
    h=struct.pack('!BBHHHBBH',0x45,0,20+len(t),0,0x4000,64,6,0)+ip
    return router+source+b'\\x08\\0'+h[:10]+struct.pack('!H',total(h))+h[12:]+t
own=bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':',''))
w=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); w.bind(('eth0',0))
for source in {mac,own}:
    for e in {echo,0x6d6f7300,0x6d6f7301,0x6d6f7302,0x6d6f7303}:
        for flags,at,data in kinds: w.send(frame(source,flags,seq+at,data,e))
print('sent')";

/// Of [`FORGES`]: what harms most, and a reset alone.
const EVERYTHING: &str =
    "[(0x18,0,b'forged'),(0x11,0,b''),(0x14,0,b''),(4,0,b''),(4,-1,b''),(0x14,1,b'')]";
const A_RESET: &str = "[(0x14,0,b'')]";

fn forge(world: &World, name: &str, last: &str, kinds: &str) {
    let script = format!("last='{last}'\nkinds={kinds}\n{FORGES}");
    assert_eq!(world.python(name, &script).ok(), "sent\n", "{name}");
}

/// A client of [`TELLS`] by a framed flow, and what it tells. Where the machine is busy, the kernel has taken some over.
fn framed_client(stage: &Stage<'_>, way: Way) -> (Running, String) {
    for _ in 0..5 {
        let mut client = stage.start(way, TELLS);
        client.expect("last");
        client.expect("\n");
        let last = client.stdout().trim().replace("last ", "");
        let echo = last.rsplit(' ').next().and_then(|echo| echo.parse().ok());
        if echo.is_some_and(|echo: u32| echo & !3 == 0x6d6f_7300) && stage.in_router().is_empty() {
            return (client, last);
        }
        drop(client.wait());
    }
    panic!("{way:?}: no flow was framed");
}

#[test]
fn a_neighbour_cannot_speak_in_them() {
    World::test(|world| {
        let stage = Stage::set(
            world,
            "d=b''\ntry:\n    while more:=c.recv(999): d+=more; c.sendall(more)\n    how='eof'\n\
             except OSError as e: how=errno.errorcode[e.errno]\nsay('got',d,how)",
        );
        world.sleeper("near", "");
        for v6 in [false, true] {
            let way = Way::Out { v6 };
            let (mut client, last) = framed_client(&stage, way);
            let got = |words: &str| stage.said(way).matches(words).count();
            let before = got("got");
            forge(world, "near", &last, EVERYTHING);
            client.write(b"third\n");
            client.expect("asked third");
            assert_eq!(got("got"), before, "{}", stage.said(way));
            // The same from where the container is does what it says: by that it is seen that forging is what
            // fails. Its number is that of the next byte.
            let mut numbers: Vec<_> = last.split(' ').map(str::to_owned).collect();
            let next: u32 = numbers[5].parse().unwrap();
            numbers[5] = next.wrapping_add(6).to_string();
            let words = "got b'firstsecondthird\\n' ECONNRESET";
            let before = got(words);
            forge(world, "client", &numbers.join(" "), A_RESET);
            eventually(seconds(5), words, || got(words) == before + 1);
        }
        world.mossnet(["rm", "-f", "near"]).ok();
        stage.end();
    });
}

/// Goes on sending by the connection `c` until that fails; hears nothing.
const GOES_ON: &str = "\
def go_on(c):
    try:
        while True: time.sleep(.2); c.send(b'tick')
    except OSError as e: say('ended',errno.errorcode[e.errno])
";

#[test]
fn what_died_with_the_relay_is_reset() {
    World::test(|world| {
        let serve = format!("{GOES_ON}take(c,5); c.sendall(b'hello'); go_on(c)");
        let stage = Stage::set(world, &serve);
        let script = format!(
            "{GOES_ON}all=[connect() for _ in range({TALKERS})]\n\
             for c in all: ask(c,b'hello')\nsay('open')\n\
             threads=[threading.Thread(target=go_on,args=(c,)) for c in all]\n\
             for t in threads: t.start()\nfor t in threads: t.join()\nsay('fine')"
        );
        let mut clients = Vec::new();
        for way in WAYS {
            let mut client = stage.start(way, &script);
            client.expect("open");
            clients.push((way, client));
        }
        let there = stage.in_router();
        assert!(there.len() <= WAYS.len() * TALKERS / 2, "{there:#?}");
        let relay = inspect::the("relay");
        inspect::kill_hard(&[relay]);
        eventually(seconds(10), "another relay", || {
            inspect::mossnet_processes("relay")
                .iter()
                .any(|pid| *pid != relay)
        });
        for (way, client) in clients {
            if let Way::Out { .. } = way {
                let said = client.wait().expect_code(0).stdout;
                assert_eq!(said.matches("ended ECONNRESET").count(), TALKERS, "{said}");
            } else {
                drop(client);
            }
        }
        let web = || stage.said(Way::In { v6: false });
        eventually(seconds(10), "containers that serve are told, too", || {
            web().matches("ended ECONNRESET").count() == 2 * TALKERS
        });
        let again = "c=connect(); ask(c,b'hello'); say('fine')";
        for way in WAYS {
            eventually(seconds(5), "new connections", || {
                stage.client(way, again).run().stdout == "fine\n"
            });
        }
        stage.end();
    });
}
