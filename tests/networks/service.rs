//! The name service under load and over time: a cache, limits for each client, idle connections.

use crate::world::dns::Dns;
use crate::world::{Running, SERVER, World, installed, seconds};
use std::collections::BTreeSet;

/// Opens COUNT connections to the gateway's port 53, says what became of the last, and stays.
const HOARD: &str = "import socket,time\n\
    kept=[]\n\
    for _ in range(COUNT):\n\
    \x20try: kept.append(socket.create_connection((GATEWAY,53),2))\n\
    \x20except OSError: break\n\
    for s in kept:\n\
    \x20try: s.sendall(b'\\0')\n\
    \x20except OSError: pass\n\
    print('hoarding',flush=True)\n\
    kept[0].settimeout(60)\n\
    try: d=kept[0].recv(1)\n\
    except ConnectionError: d=b''\n\
    print('closed' if d==b'' else 'data',flush=True)\n\
    time.sleep(1000)";

/// Asks for a name that is never answered, a thousand times a second or as often as it can, from many
/// ports.
const FLOOD: &str = "import socket,time\n\
    q=lambda i: i.to_bytes(2,'big')+b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0'+bytes([6])+b'x%05d'%i+b'\\4slow\\4test\\7example\\0\\0\\1\\0\\1'\n\
    socks=[socket.socket(socket.AF_INET,socket.SOCK_DGRAM) for _ in range(200)]\n\
    print('flooding',flush=True)\n\
    i=0\n\
    while True:\n\
    \x20i=(i+1)%60000\n\
    \x20socks[i%200].sendto(q(i),(GATEWAY,53))\n\
    \x20if PACE and i%10==0: time.sleep(.01)";

/// Asks for a member's name forty times, and says how often there was an answer within a second.
const LOSS: &str = "import socket,time\n\
    s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
    s.settimeout(1)\n\
    got=0\n\
    for i in range(40):\n\
    \x20s.sendto(i.to_bytes(2,'big')+b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x0bgreedy-nick\\0\\0\\1\\0\\1',('172.31.1.1',53))\n\
    \x20try:\n\
    \x20\x20while s.recv(512)[:2]!=i.to_bytes(2,'big'): pass\n\
    \x20\x20got+=1\n\
    \x20except TimeoutError: pass\n\
    print(got)";

fn two_members(world: &World) {
    world.network("create --subnet 172.31.1.0/24 mynet").ok();
    for name in ["greedy", "modest"] {
        world.sleeper(name, &format!("--network mynet:alias={name}-nick"));
    }
}

fn starts(world: &World, script: &str, word: &str) -> Running {
    let script = format!("GATEWAY='172.31.1.1'\nCOUNT=300\nPACE=True\n{script}");
    let mut running = world.python("greedy", &script).timeout(seconds(85)).start();
    running.expect(word);
    running
}

/// What the greedy one runs outlives whoever asked for it.
fn silence(world: &World) {
    let all = ["exec", "greedy", "--", "sh", "-c", "kill -9 -1"];
    world.mossnet(all).ok();
}

fn modest_is_served(world: &World, transport: &str) {
    let expected = BTreeSet::from([world.address_on("greedy", "mynet", false)]);
    assert_eq!(
        world.dig("modest", &format!("{transport} greedy-nick A")),
        expected
    );
    let expected = BTreeSet::from([SERVER.to_owned()]);
    let world_name = format!("{transport} www.test.example A");
    assert_eq!(world.dig("modest", &world_name), expected);
}

#[test]
fn one_client_does_not_starve_another() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        Dns::start("server");
        two_members(world);
        let mut hoard = starts(world, HOARD, "hoarding");
        for transport in ["+notcp", "+tcp"] {
            modest_is_served(world, transport);
        }
        // Whoever says nothing is sent away, in the end.
        hoard.expect("closed");
        drop(hoard);
        let flood = starts(world, FLOOD, "flooding");
        for transport in ["+notcp", "+tcp"] {
            modest_is_served(world, transport);
        }
        drop(flood);
        silence(world);
        let flood = starts(world, &FLOOD.replace("PACE", "False"), "flooding");
        let served = world.python("modest", LOSS).timeout(seconds(100)).ok();
        let served: u32 = served.trim().parse().expect("a number");
        assert!(served >= 12, "{served} of 40");
        drop(flood);
        silence(world);
        modest_is_served(world, "+notcp");
        world.mossnet(["rm", "-f", "greedy", "modest"]).ok();
    });
}

#[test]
fn answers_of_the_world_are_remembered() {
    World::test(|world| {
        if !installed("dig") {
            return;
        }
        let dns = Dns::start("server");
        two_members(world);
        for _ in 0..5 {
            for name in ["greedy", "modest"] {
                // A cookie, which dig sends, is for one asker alone.
                assert_eq!(world.dig(name, "+nocookie www.test.example A").len(), 1);
            }
        }
        let asked = dns.asked();
        let count = asked
            .iter()
            .filter(|asked| asked.starts_with("www."))
            .count();
        assert_eq!(count, 1, "{asked:?}");
        // Names of members are never stale: they are not remembered by anybody.
        let text = world.line("exec modest -- dig greedy-nick A").ok();
        let answer = text
            .lines()
            .find(|line| line.contains("\tA\t"))
            .unwrap_or_default();
        let ttl = answer
            .split_whitespace()
            .nth(1)
            .and_then(|ttl| ttl.parse::<u32>().ok());
        assert!(ttl.is_some_and(|ttl| ttl <= 5), "{text}");
        world.mossnet(["rm", "-f", "greedy", "modest"]).ok();
    });
}
