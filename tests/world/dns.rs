//! The outside world's name server, with a record of what it was asked.

use super::netns::within;
use super::servers::listener;
use super::{SERVER, SERVER6};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

/// Serves `test.example`: `www` has A and AAAA, `four` only A, `big` a TXT of 3 kB, `slow`
/// never answers; anything else does not exist.
#[derive(Clone, Default)]
pub struct Dns {
    asked: Arc<Mutex<Vec<String>>>,
    address: Option<IpAddr>,
}

impl Dns {
    /// Serves on port 53 of netns `netns`, over UDP and TCP, on every address.
    pub fn start(netns: &str) -> Self {
        Self::start_at(netns, IpAddr::V6(Ipv6Addr::UNSPECIFIED), None)
    }

    /// Serves on one address; `www` then has `answer` as its only IPv4 address.
    pub fn start_at(netns: &str, address: IpAddr, answer: Option<IpAddr>) -> Self {
        let dns = Self {
            asked: Arc::default(),
            address: answer,
        };
        let udp = within(netns, || UdpSocket::bind((address, 53))).expect("bind port 53");
        let server = dns.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = server.answer(&buffer[..count], false) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let tcp = match address {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => listener(netns, 53),
            address => within(netns, || std::net::TcpListener::bind((address, 53))).expect("bind"),
        };
        let server = dns.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve_stream(stream));
            }
        });
        dns
    }

    /// Names asked so far, each with its type and transport: `www.test.example. A udp`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("record").clone()
    }

    fn serve_stream(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut query).is_err() {
                return;
            }
            let Some(answer) = self.answer(&query, true) else {
                return;
            };
            let mut framed = u16::try_from(answer.len())
                .expect("size")
                .to_be_bytes()
                .to_vec();
            framed.extend(answer);
            if stream.write_all(&framed).is_err() {
                return;
            }
        }
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let question = query.queries.first()?.clone();
        let name = question.name.to_string().to_lowercase();
        let transport = if tcp { "tcp" } else { "udp" };
        let record = format!("{name} {} {transport}", question.query_type);
        self.asked.lock().expect("record").push(record);
        let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(question.clone());
        let v4 = self
            .address
            .unwrap_or_else(|| SERVER.parse().expect("address"));
        let v6: Ipv6Addr = SERVER6.parse().expect("address");
        let data = match (name.as_str(), question.query_type) {
            ("www.test.example." | "four.test.example.", RecordType::A) => match v4 {
                IpAddr::V4(address) => vec![RData::A(A(address))],
                IpAddr::V6(_) => vec![],
            },
            ("www.test.example.", RecordType::AAAA) => vec![RData::AAAA(AAAA(v6))],
            ("big.test.example.", RecordType::TXT) => {
                let text = |n: u8| RData::TXT(TXT::new(vec![format!("{n:02}{}", "x".repeat(198))]));
                (0..15).map(text).collect()
            }
            ("www.test.example." | "four.test.example." | "big.test.example.", _) => vec![],
            ("slow.test.example.", _) => return None,
            _ => {
                message.metadata.response_code = ResponseCode::NXDomain;
                vec![]
            }
        };
        message.add_answers(
            data.into_iter()
                .map(|d| Record::from_rdata(question.name.clone(), 60, d)),
        );
        let room = query
            .edns
            .as_ref()
            .map_or(512, |edns| edns.max_payload())
            .max(512);
        let bytes = message.to_vec().ok()?;
        if !tcp && bytes.len() > usize::from(room) {
            let mut short = message.truncate();
            short.metadata.truncation = true;
            short.answers.clear();
            return short.to_vec().ok();
        }
        Some(bytes)
    }
}
