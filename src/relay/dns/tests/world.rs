//! A name server on loopback sockets, resolvers made up on 127.0.0.x, and clients.

use super::super::*;
use crate::network::snapshot::{NameRecord, NetworkView, ResolverView, Snapshot};
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const GATEWAY: &str = "127.0.0.1";
/// A second address of the same server, as every other network's gateway is.
pub const OTHER_GATEWAY: &str = "127.0.1.1";
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Sees a query and says what to send back; `None` for silence. The flag tells TCP from UDP.
pub type Script = dyn Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync;

/// A resolver on a loopback address; counts what it was asked.
pub struct Resolver {
    pub asked: Arc<AtomicUsize>,
    pub ports: Arc<Mutex<Vec<u16>>>,
    pub port: u16,
}

impl Resolver {
    pub fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub fn resolver(address: SocketAddr, script: Arc<Script>) -> io::Result<Resolver> {
    let resolver = Resolver {
        asked: Arc::default(),
        ports: Arc::default(),
        port: address.port(),
    };
    let udp = UdpSocket::bind(address)?;
    let tcp = StdListener::bind(address)?;
    let (asked, ports, by_udp) = (
        Arc::clone(&resolver.asked),
        Arc::clone(&resolver.ports),
        Arc::clone(&script),
    );
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            asked.fetch_add(1, Ordering::SeqCst);
            ports.lock().unwrap().push(client.port());
            let query = Message::from_vec(&buffer[..length]).unwrap();
            if let Some(answer) = by_udp(&query, false) {
                udp.send_to(&answer, client).unwrap();
            }
        }
    });
    let asked = Arc::clone(&resolver.asked);
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            asked.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_vec(&read_framed(&mut stream)).unwrap();
            if let Some(answer) = script(&query, true) {
                write_framed(&mut stream, &answer);
            }
        }
    });
    Ok(resolver)
}

/// Resolvers on 127.0.0.2 and up, all on one port, as resolv.conf knows no ports.
pub fn resolvers(scripts: &[Arc<Script>]) -> (u16, Vec<Resolver>) {
    for _ in 0..50 {
        let probe = UdpSocket::bind("127.0.0.2:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let addresses = (2u8..).map(|n| SocketAddr::from(([127, 0, 0, n], port)));
        let started = addresses
            .zip(scripts)
            .map(|(at, script)| resolver(at, Arc::clone(script)));
        // Another test may be quicker to take the port.
        if let Ok(all) = started.collect::<io::Result<Vec<_>>>() {
            return (port, all);
        }
    }
    panic!("no port is free on every loopback address");
}

pub fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

pub fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).unwrap();
}

/// An answer with one address.
pub fn address(query: &Message, last: u8) -> Message {
    let mut answer = Message::response(query.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    let name = query.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(
        name,
        300,
        RData::A(A([192, 0, 2, last].into())),
    ));
    answer
}

pub fn answers(last: u8) -> Arc<Script> {
    Arc::new(move |query, _| Some(address(query, last).to_vec().unwrap()))
}

pub fn silent() -> Arc<Script> {
    Arc::new(|_, _| None)
}

/// A name server with its sockets, and resolvers on a port that is free on all their addresses.
pub struct World {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub udp6: SocketAddr,
    pub tcp6: SocketAddr,
    pub resolvers: Vec<Resolver>,
    pub rules: Arc<Mutex<Arc<Snapshot>>>,
}

pub fn snapshot(nameservers: Vec<IpAddr>, internal: bool) -> Snapshot {
    let pool = (2..102u8).map(|n| IpAddr::from([127, 0, 9, n])).collect();
    let names = vec![
        NameRecord {
            name: "web".into(),
            addresses: vec!["127.0.9.1".parse().unwrap()],
        },
        NameRecord {
            name: "pool".into(),
            addresses: pool,
        },
    ];
    Snapshot {
        generation: 1,
        networks: vec![NetworkView {
            name: "mynet".into(),
            bridge: "br-000000000001".parse().unwrap(),
            subnets: vec!["127.0.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()],
            gateways: [GATEWAY, OTHER_GATEWAY, "::1"]
                .map(|at| at.parse().unwrap())
                .into(),
            internal,
            dns: Vec::new(),
            names,
        }],
        resolver: ResolverView {
            nameservers,
            search: Vec::new(),
        },
        multihomed: Vec::new(),
        publishes: Vec::new(),
        host_loopback: Vec::new(),
        ..Snapshot::default()
    }
}

pub fn timing(port: u16) -> Timing {
    Timing {
        port,
        total: Duration::from_secs(4),
        patience: Duration::from_millis(150),
        resend: Duration::from_millis(400),
        distrust: Duration::from_secs(60),
    }
}

/// Bound as the relay binds its own: to IPv6 alone.
fn wildcard_v6(kind: Type) -> Socket {
    let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
    socket.set_only_v6(true).unwrap();
    let any: SocketAddr = "[::]:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    if kind == Type::STREAM {
        socket.listen(16).unwrap();
    }
    socket
}

impl World {
    pub fn new(scripts: &[Arc<Script>]) -> Self {
        Self::with(scripts, Quotas::default(), false)
    }

    pub fn with(scripts: &[Arc<Script>], quotas: Quotas, internal: bool) -> Self {
        let (port, resolvers) = resolvers(scripts);
        let nameservers = (2u8..)
            .take(scripts.len())
            .map(|n| [127, 0, 0, n].into())
            .collect();
        let rules = Arc::new(Mutex::new(Arc::new(snapshot(nameservers, internal))));
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let tcp = StdListener::bind("0.0.0.0:0").unwrap();
        let udp6: UdpSocket = wildcard_v6(Type::DGRAM).into();
        let tcp6: StdListener = wildcard_v6(Type::STREAM).into();
        let at = |gateway: &str, bound: io::Result<SocketAddr>| {
            SocketAddr::new(gateway.parse().unwrap(), bound.unwrap().port())
        };
        let world = Self {
            udp: at(GATEWAY, udp.local_addr()),
            tcp: at(GATEWAY, tcp.local_addr()),
            udp6: at("::1", udp6.local_addr()),
            tcp6: at("::1", tcp6.local_addr()),
            resolvers,
            rules,
        };
        let sockets = DnsSockets {
            udp4: Some(udp.into()),
            udp6: Some(udp6.into()),
            tcp4: Some(tcp.into()),
            tcp6: Some(tcp6.into()),
        };
        let current = Arc::clone(&world.rules);
        let rules_of = Box::new(move || Arc::clone(&current.lock().unwrap()));
        spawn_with(sockets, rules_of, timing(port), quotas).unwrap();
        world
    }

    pub fn ask(&self, message: &Message) -> Message {
        self.ask_from("127.0.0.1", message)
    }

    pub fn ask_from(&self, client: &str, message: &Message) -> Message {
        let socket = self.client(client);
        socket.send(&message.to_vec().unwrap()).unwrap();
        let answer = receive(&socket);
        assert_eq!(answer.id, message.id);
        answer
    }

    pub fn client(&self, address: &str) -> UdpSocket {
        self.client_of(self.udp, address)
    }

    pub fn client_of(&self, server: SocketAddr, address: &str) -> UdpSocket {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Connected: an answer from any other address than the one asked is not heard.
        socket.connect(server).unwrap();
        socket
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

pub fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

pub fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub fn first_address(message: &Message) -> IpAddr {
    match &message.answers[0].data {
        RData::A(A(address)) => (*address).into(),
        other => panic!("{other:?}"),
    }
}
