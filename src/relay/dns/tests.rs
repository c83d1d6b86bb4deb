//! The whole server on loopback sockets, against resolvers made up on 127.0.0.x.

mod world;

use super::*;
use crate::network::snapshot::{NameRecord, Snapshot};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use world::*;

#[test]
fn endpoints_are_named_and_the_spelling_comes_back() {
    let world = World::new(&[]);
    let answer = world.ask(&query("WeB.", RecordType::A));
    assert_eq!(first_address(&answer).to_string(), "127.0.9.1");
    assert_eq!(answer.queries[0].name().to_string(), "WeB.");
    assert!(answer.authoritative && answer.recursion_available && answer.answers[0].ttl == 0);
    let nodata = world.ask(&query("web.", RecordType::AAAA));
    assert_eq!(
        (nodata.response_code, nodata.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let absent = world.ask(&query("nosuch.", RecordType::A));
    assert_eq!(absent.response_code, ResponseCode::NXDomain);
}

#[test]
fn names_come_and_go_at_once() {
    let world = World::new(&[answers(7)]);
    let with = |change: &dyn Fn(&mut Snapshot)| {
        let mut changed = Snapshot::clone(&world.rules.lock().unwrap());
        change(&mut changed);
        *world.rules.lock().unwrap() = Arc::new(changed);
    };
    let late = query("late.example.", RecordType::A);
    // Asked outside, and kept: an endpoint of that name wins at once nevertheless.
    assert_eq!(first_address(&world.ask(&late)).to_string(), "192.0.2.7");
    with(&|snapshot| {
        snapshot.networks[0].names.push(NameRecord {
            name: "late.example".into(),
            addresses: vec!["127.0.9.200".parse().unwrap()],
        });
    });
    assert_eq!(first_address(&world.ask(&late)).to_string(), "127.0.9.200");
    let pointer = query("200.9.0.127.in-addr.arpa.", RecordType::PTR);
    let pointed = world.ask(&pointer).answers[0].data.to_string();
    assert_eq!(pointed, "late.example.");
    with(&|snapshot| {
        snapshot.networks[0]
            .names
            .retain(|name| name.name == "pool")
    });
    assert_eq!(first_address(&world.ask(&late)).to_string(), "192.0.2.7");
    let gone = world.ask(&query("web.", RecordType::A));
    assert_eq!(gone.response_code, ResponseCode::NXDomain);
    assert!(gone.authorities.is_empty(), "an SOA would have it cached");
    // The test's networks lie in the loopback prefix, whose addresses have a name of their own.
    let pointed = world.ask(&pointer).answers[0].data.to_string();
    assert_eq!(pointed, "localhost.");
}

#[test]
fn a_client_on_several_networks_hears_them_all_at_one_gateway() {
    let world = World::new(&[]);
    let mut changed = snapshot(Vec::new(), false);
    let mut other = changed.networks[0].clone();
    other.name = "other".into();
    other.bridge = "br-000000000002".parse().unwrap();
    other.subnets = vec!["127.5.0.0/16".parse().unwrap()];
    other.gateways = vec!["127.5.0.1".parse().unwrap()];
    other.names = vec![NameRecord {
        name: "far".into(),
        addresses: vec!["127.5.0.2".parse().unwrap()],
    }];
    changed.networks.push(other);
    changed.multihomed = vec![vec![
        "127.0.0.70".parse().unwrap(),
        "127.5.0.70".parse().unwrap(),
    ]];
    *world.rules.lock().unwrap() = Arc::new(changed);
    let far = query("far.", RecordType::A);
    let heard = world.ask_from("127.0.0.70", &far);
    assert_eq!(first_address(&heard).to_string(), "127.5.0.2");
    let neighbour = world.ask_from("127.0.0.71", &far);
    assert_eq!(neighbour.response_code, ResponseCode::NXDomain);
}

#[test]
fn every_gateway_answers_from_its_own_address_over_both_families() {
    let world = World::new(&[]);
    let other = SocketAddr::new(OTHER_GATEWAY.parse().unwrap(), world.udp.port());
    for (server, client) in [
        (world.udp, "127.0.0.1"),
        (other, "127.0.0.1"),
        (world.udp6, "::1"),
    ] {
        let socket = world.client_of(server, client);
        socket
            .send(&query("web.", RecordType::A).to_vec().unwrap())
            .unwrap();
        assert_eq!(receive(&socket).answers.len(), 1, "{server}");
    }
    for server in [world.tcp, world.tcp6] {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write_framed(&mut stream, &query("web.", RecordType::A).to_vec().unwrap());
        let answer = Message::from_vec(&read_framed(&mut stream)).unwrap();
        assert_eq!(answer.answers.len(), 1, "{server}");
    }
}

#[test]
fn ipv6_resolvers_are_asked_too() {
    let world = World::new(&[silent()]);
    // The port of the world's resolvers, on the IPv6 loopback.
    let port = world.resolvers[0].port;
    let Ok(over_v6) = resolver(("::1".parse::<IpAddr>().unwrap(), port).into(), answers(9)) else {
        eprintln!("skipped: another test has port {port} on ::1");
        return;
    };
    *world.rules.lock().unwrap() = Arc::new(snapshot(vec!["::1".parse().unwrap()], false));
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(first_address(&answer).to_string(), "192.0.2.9");
    assert_eq!(over_v6.count(), 1);
}

#[test]
fn strangers_are_refused_and_junk_is_survived() {
    let world = World::new(&[answers(1)]);
    let stranger = world.ask_from("127.9.0.1", &query("web.", RecordType::A));
    assert_eq!(stranger.response_code, ResponseCode::Refused);
    let client = world.client("127.0.0.1");
    for junk in [
        &b""[..],
        b"x",
        &[0; 11],
        &[0xff; 600],
        b"\0\x01\x80\0\0\0\0\0\0\0\0\0",
    ] {
        client.send(junk).unwrap();
    }
    client
        .send(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01")
        .unwrap();
    let answer = receive(&client);
    assert_eq!(
        (answer.id, answer.response_code),
        (0x1234, ResponseCode::FormErr)
    );
}

#[test]
fn foreign_names_are_forwarded_once_and_cached_for_the_spelling_asked() {
    let world = World::new(&[answers(7)]);
    let first = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(first_address(&first).to_string(), "192.0.2.7");
    let second = world.ask(&query("EXAMPLE.com.", RecordType::A));
    assert_eq!(first_address(&second).to_string(), "192.0.2.7");
    assert_eq!(second.queries[0].name().to_string(), "EXAMPLE.com.");
    assert_eq!(world.resolvers[0].count(), 1);
    // Other resolvers may answer otherwise: what the old ones said is forgotten.
    let mut changed = Snapshot::clone(&world.rules.lock().unwrap());
    changed.resolver.search.push("vpn.example".into());
    *world.rules.lock().unwrap() = Arc::new(changed);
    world.ask(&query("example.com.", RecordType::A));
    assert_eq!(world.resolvers[0].count(), 2);
}

#[test]
fn ports_towards_resolvers_are_several_and_change() {
    let world = World::new(&[answers(7)]);
    let ports = |from: usize| -> BTreeSet<u16> {
        let ports = world.resolvers[0].ports.lock().unwrap();
        ports[from..].iter().copied().collect()
    };
    for n in 0..300 {
        world.ask(&query(&format!("h{n}.example.com."), RecordType::A));
    }
    let first = ports(0);
    // Each port takes 32 questions at most, and no less than four are drawn from at a time.
    assert!(first.len() >= 10, "{first:?}");
    // However few the questions are, none leaves from a port that is old.
    std::thread::sleep(Duration::from_millis(120));
    for n in 0..10 {
        world.ask(&query(&format!("i{n}.example.com."), RecordType::A));
    }
    assert!(ports(300).is_disjoint(&first), "{first:?}");
}

#[test]
fn internal_networks_ask_nobody() {
    let world = World::with(&[answers(7)], Quotas::default(), true);
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
    assert_eq!(world.resolvers[0].count(), 0);
}

#[test]
fn the_next_resolver_is_asked_when_one_fails_or_is_silent() {
    let failing: Arc<Script> = Arc::new(|query, _| {
        let answer = Message::error_msg(query.id, OpCode::Query, ResponseCode::ServFail);
        Some(answer.to_vec().unwrap())
    });
    let world = World::new(&[failing, silent(), answers(3)]);
    let start = Instant::now();
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(first_address(&answer).to_string(), "192.0.2.3");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    // The silent one is asked last from now on; the failing one answered and keeps its place.
    world.ask(&query("example.org.", RecordType::A));
    assert_eq!(world.resolvers[1].count(), 1);
}

#[test]
fn servfail_when_nobody_answers() {
    let world = World::new(&[silent()]);
    let start = Instant::now();
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(answer.response_code, ResponseCode::ServFail);
    assert_eq!(answer.queries.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(world.resolvers[0].count() > 1, "asked again on silence");
    let nobody = World::new(&[]);
    let answer = nobody.ask(&query("example.com.", RecordType::A));
    assert_eq!(answer.response_code, ResponseCode::ServFail);
}

#[test]
fn a_resolver_that_is_not_there_costs_no_time() {
    let world = World::new(&[answers(3)]);
    let (nobody, somebody) = ([127, 0, 0, 250].into(), [127, 0, 0, 2].into());
    *world.rules.lock().unwrap() = Arc::new(snapshot(vec![nobody], false));
    let start = Instant::now();
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(answer.response_code, ResponseCode::ServFail);
    assert!(
        start.elapsed() < Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
    *world.rules.lock().unwrap() = Arc::new(snapshot(vec![nobody, somebody], false));
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(first_address(&answer).to_string(), "192.0.2.3");
}

#[test]
fn forged_answers_are_not_heard() {
    let forging: Arc<Script> = Arc::new(|query, _| {
        // Two datagrams cannot be sent by a script; so the first query is answered wrongly, and the
        // one that follows on the same socket rightly.
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let mut answer = address(query, 6);
        if TURN.fetch_add(1, Ordering::SeqCst) == 0 {
            answer.metadata.id = query.id.wrapping_add(1);
        }
        Some(answer.to_vec().unwrap())
    });
    let world = World::new(&[forging]);
    let answer = world.ask(&query("example.com.", RecordType::A));
    assert_eq!(first_address(&answer).to_string(), "192.0.2.6");
    assert_eq!(world.resolvers[0].count(), 2);
}

/// Truncated over UDP, 3,000 bytes and more over TCP.
fn long_answers() -> Arc<Script> {
    Arc::new(|query, tcp| {
        let mut answer = Message::response(query.id, OpCode::Query);
        answer.add_queries(query.queries.iter().cloned());
        answer.metadata.truncation = !tcp;
        let name = query.queries[0].name();
        for n in 0..if tcp { 15 } else { 0 } {
            let text = RData::TXT(TXT::new(vec![format!("{n}{}", "x".repeat(200))]));
            answer.add_answer(Record::from_rdata(name.clone(), 60, text));
        }
        Some(answer.to_vec().unwrap())
    })
}

#[test]
fn truncated_answers_are_fetched_over_tcp_for_tcp_clients_only() {
    let world = World::new(&[long_answers()]);
    let message = query("long.example.com.", RecordType::TXT);
    let short = world.ask(&message);
    assert!(short.truncation && short.answers.is_empty());
    let mut stream = world.connect();
    write_framed(&mut stream, &message.to_vec().unwrap());
    let whole = Message::from_vec(&read_framed(&mut stream)).unwrap();
    assert!(!whole.truncation);
    assert_eq!(whole.answers.len(), 15);
    // From the cache now, and still cut to what the client takes.
    let mut roomy = query("long.example.com.", RecordType::TXT);
    let short_again = world.ask(&roomy);
    assert!(short_again.truncation && short_again.answers.is_empty());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    roomy.set_edns(edns);
    assert!(world.ask(&roomy).truncation, "EDNS answers are kept apart");
}

#[test]
fn local_answers_are_cut_to_the_clients_size() {
    let world = World::new(&[]);
    let mut message = query("pool.", RecordType::A);
    let plain = world.ask(&message);
    assert!(plain.truncation && plain.answers.is_empty());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let whole = world.ask(&message);
    assert!(!whole.truncation && whole.edns.is_some());
    assert_eq!(whole.answers.len(), 100);
}

#[test]
fn tcp_queries_are_pipelined_and_answered_as_they_become_ready() {
    let slow_first: Arc<Script> = Arc::new(|query, _| {
        let slow = query.queries[0].name().to_string().starts_with("slow");
        (!slow).then(|| address(query, 5).to_vec().unwrap())
    });
    let world = World::new(&[slow_first]);
    let mut stream = world.connect();
    for name in ["slow.example.com.", "fast.example.com.", "web."] {
        write_framed(&mut stream, &query(name, RecordType::A).to_vec().unwrap());
    }
    // The client has said all it had to say: the answers still come.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let order: Vec<_> = (0..3)
        .map(|_| {
            Message::from_vec(&read_framed(&mut stream))
                .unwrap()
                .queries[0]
                .name()
                .to_string()
        })
        .collect();
    assert_eq!(order[2], "slow.example.com.");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn stalled_tcp_clients_hold_up_nobody_and_are_few() {
    let quotas = Quotas {
        connections_per_client: 4,
        ..Quotas::default()
    };
    let world = World::with(&[], quotas, false);
    let mut stalled: Vec<_> = (0..4).map(|_| world.connect()).collect();
    for stream in &mut stalled {
        stream.write_all(b"\0\x20half").unwrap();
    }
    // UDP still answers the same client, and TCP another one.
    assert!(!world.ask(&query("web.", RecordType::A)).answers.is_empty());
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other
        .bind(&"127.0.0.77:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    other.connect(&world.tcp.into()).unwrap();
    let mut other: TcpStream = other.into();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    write_framed(&mut other, &query("web.", RecordType::A).to_vec().unwrap());
    assert_eq!(
        Message::from_vec(&read_framed(&mut other))
            .unwrap()
            .answers
            .len(),
        1
    );
    // The fifth connection of the greedy client is closed, whatever it says.
    let mut fifth = world.connect();
    let ended = fifth.read(&mut [0; 1]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_ne!(
        ended.err().map(|e| e.kind()),
        Some(io::ErrorKind::WouldBlock)
    );
}

#[test]
fn tcp_clients_that_stall_are_let_go_and_make_room() {
    let quotas = Quotas {
        connections_per_client: 1,
        idle: Duration::from_millis(200),
        ..Quotas::default()
    };
    let world = World::with(&[], quotas, false);
    // Nothing, half a length, half a message, and bytes trickling in: all end alike.
    for begun in [&b""[..], b"\0", b"\0\x20half"] {
        let mut stream = world.connect();
        stream.write_all(begun).unwrap();
        let ended = stream.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0)), "{begun:?}: {ended:?}");
    }
    let mut trickle = world.connect();
    let start = Instant::now();
    trickle
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let open = |stream: &mut TcpStream| match stream.read(&mut [0; 1]) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    while start.elapsed() < PATIENCE && trickle.write_all(b"\x01").is_ok() && open(&mut trickle) {}
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_client_that_floods_starves_only_itself() {
    let picky: Arc<Script> = Arc::new(|query, _| {
        let flood = query.queries[0].name().to_string().starts_with("flood");
        (!flood).then(|| address(query, 5).to_vec().unwrap())
    });
    let quotas = Quotas {
        queries: 64,
        queries_per_client: 8,
        ..Quotas::default()
    };
    let world = World::with(&[picky], quotas, false);
    let flooder = world.client("127.0.0.1");
    for n in 0..9 {
        let message = query(&format!("flood{n}.example.com."), RecordType::A);
        flooder.send(&message.to_vec().unwrap()).unwrap();
    }
    let start = Instant::now();
    // The ninth is told at once; names that need no resolver are still answered.
    let refused = receive(&flooder);
    assert_eq!(refused.response_code, ResponseCode::ServFail);
    assert!(refused.queries[0].name().to_string().starts_with("flood8"));
    assert_eq!(world.ask(&query("web.", RecordType::A)).answers.len(), 1);
    let other = world.ask_from("127.0.0.78", &query("fine.example.com.", RecordType::A));
    assert_eq!(first_address(&other).to_string(), "192.0.2.5");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(other.message_type, MessageType::Response);
}
