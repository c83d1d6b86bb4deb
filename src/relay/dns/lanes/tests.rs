//! Lanes to a resolver on the loopback that answers what, when and where the test says.

use super::*;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket as Resolver;
use tokio::task::{LocalSet, yield_now};

/// Of a test's patience: until something must have happened.
const SOON: Duration = Duration::from_secs(10);
/// Never within a test.
const LATE: Duration = Duration::from_secs(1000);

fn resolver() -> (Resolver, SocketAddr) {
    let resolver = Resolver::bind("127.0.0.1:0").unwrap();
    resolver.set_read_timeout(Some(SOON)).unwrap();
    let address = resolver.local_addr().unwrap();
    (resolver, address)
}

fn query(name: &str) -> Rc<ClientQuery> {
    let mut message = Message::query();
    let name = Name::from_ascii(name).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    Rc::new(ClientQuery::parse(&message.to_vec().unwrap()).unwrap())
}

/// What was asked next, as bytes, and from where.
fn hear(resolver: &Resolver) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 512];
    let (length, from) = resolver.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

fn answer_to(asked: &[u8]) -> Vec<u8> {
    let query = ClientQuery::parse(asked).unwrap();
    query.answer(ResponseCode::NXDomain, &[])
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

async fn soon(ticket: &mut Ticket) -> io::Result<Vec<u8>> {
    tokio::time::timeout(SOON, ticket.answer()).await.unwrap()
}

/// Lets the readers take what is there. The loopback delivers within send(2).
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// No task looks for silence by itself.
fn still() -> Rc<Lanes> {
    let lanes = Lanes::new(LATE);
    lanes.watching.set(true);
    lanes
}

#[test]
fn a_port_takes_few_questions_and_no_id_twice() {
    run(async {
        let (resolver, address) = resolver();
        let lanes = still();
        let mut asked: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
        let mut tickets = Vec::new();
        for number in 0..20 * QUESTIONS {
            tickets.push(lanes.ask(address, query("www.example.com.")).unwrap());
            let (message, from) = hear(&resolver);
            let id = u16::from_be_bytes([message[0], message[1]]);
            assert!(asked.entry(from.port()).or_default().insert(id), "{number}");
        }
        assert!(asked.len() >= 20);
        assert!(asked.values().all(|ids| ids.len() <= QUESTIONS));
        // Those who give up leave nothing behind but what takes new questions.
        drop(tickets);
        settle().await;
        let lanes_left = lanes.all.borrow().iter().filter_map(Weak::upgrade).count();
        assert!(lanes_left <= LANES, "{lanes_left}");
        // And that no longer than it may.
        assert!(lanes.look(Instant::now() + AGE));
        settle().await;
        assert!(!lanes.look(Instant::now() + AGE));
        assert!(lanes.current.borrow().is_empty() && lanes.all.borrow().is_empty());
    });
}

#[test]
fn questions_are_spread_and_leave_from_no_old_port() {
    run(async {
        let (resolver, address) = resolver();
        let lanes = still();
        let mut tickets = Vec::new();
        let mut ports = |count: usize| -> BTreeSet<u16> {
            let ask = || lanes.ask(address, query("www.example.com.")).unwrap();
            tickets.extend(std::iter::repeat_with(ask).take(count));
            let heard = std::iter::repeat_with(|| hear(&resolver).1.port());
            heard.take(count).collect()
        };
        let first = ports(64);
        assert!(first.len() >= LANES, "{first:?}");
        std::thread::sleep(AGE);
        assert!(ports(20).is_disjoint(&first));
    });
}

#[test]
fn what_answers_nothing_is_not_heard_and_closes_the_port() {
    run(async {
        let (resolver, address) = resolver();
        let lanes = still();
        let mut ticket = lanes.ask(address, query("www.example.com.")).unwrap();
        let (asked, from) = hear(&resolver);
        let right = answer_to(&asked);
        let mut other_id = right.clone();
        other_id[0] ^= 1;
        let mut other_type = right.clone();
        let kind = asked.len() - 3;
        other_type[kind] = 28;
        let other_name = {
            let mut name = right.clone();
            name[13] = b'x';
            name
        };
        for forgery in [&other_id[..], &other_type, &other_name, b"", b"x", &asked] {
            resolver.send_to(forgery, from).unwrap();
        }
        // Nor is anybody heard who is not the resolver.
        let stranger = Resolver::bind("127.0.0.1:0").unwrap();
        stranger.send_to(&right, from).unwrap();
        settle().await;
        assert!(ticket.answer.try_recv().is_err());
        let mut others = Vec::new();
        for _ in 0..2 * QUESTIONS {
            others.push(lanes.ask(address, query("www.example.com.")).unwrap());
            assert_ne!(hear(&resolver).1, from, "a port that somebody knows");
        }
        resolver.send_to(&right, from).unwrap();
        assert_eq!(soon(&mut ticket).await.unwrap(), right);
    });
}

#[test]
fn an_answer_counts_on_the_port_of_its_question_alone() {
    run(async {
        let (resolver, address) = resolver();
        let lanes = still();
        let mut ask = || {
            let ticket = lanes.ask(address, query("www.example.com.")).unwrap();
            let (asked, from) = hear(&resolver);
            (ticket, answer_to(&asked), from)
        };
        let (mut first, answer, from) = ask();
        let (_second, _, elsewhere) = std::iter::repeat_with(&mut ask)
            .take(100)
            .find(|(.., other)| *other != from)
            .unwrap();
        resolver.send_to(&answer, elsewhere).unwrap();
        settle().await;
        assert!(first.answer.try_recv().is_err());
        resolver.send_to(&answer, from).unwrap();
        assert_eq!(soon(&mut first).await.unwrap(), answer);
    });
}

#[test]
fn silence_is_told_and_a_late_answer_still_comes() {
    run(async {
        let (resolver, address) = resolver();
        let lanes = still();
        let (sender, told) = oneshot::channel();
        let listener: Listener = Box::new(|heard| {
            if let Heard::Silence(ticket) = heard {
                let _ = sender.send(ticket);
            }
        });
        let patience = Duration::from_secs(5);
        lanes.tell(address, query("www.example.com."), patience, listener);
        let (asked, from) = hear(&resolver);
        lanes.look(Instant::now());
        let mut told = told;
        assert!(told.try_recv().is_err(), "too early");
        lanes.look(Instant::now() + patience);
        let mut ticket = told.await.unwrap();
        ticket.send_again();
        assert_eq!(hear(&resolver), (asked.clone(), from));
        let answer = answer_to(&asked);
        resolver.send_to(&answer, from).unwrap();
        assert_eq!(soon(&mut ticket).await.unwrap(), answer);
    });
}

#[test]
fn a_refusal_is_told_to_all_who_wait_there() {
    run(async {
        let (resolver, address) = resolver();
        let lanes = still();
        let mut tickets = Vec::new();
        for _ in 0..40 {
            tickets.push(lanes.ask(address, query("www.example.com.")).unwrap());
        }
        drop(resolver);
        // Nobody listens any longer: on each lane one question more hears so, and then all do.
        for _ in 0..40 {
            tickets.push(lanes.ask(address, query("www.example.com.")).unwrap());
        }
        let mut refused = 0;
        for ticket in &mut tickets {
            match tokio::time::timeout(Duration::from_millis(200), ticket.answer()).await {
                Ok(answer) => refused += usize::from(answer.is_err()),
                Err(_lane_full_before) => {}
            }
        }
        assert!(refused >= 40, "{refused}");
    });
}
