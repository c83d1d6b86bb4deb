//! The wire form of DNS messages: what a client asks, what we answer, what an upstream answers.
//!
//! Place: between the sockets of `udp` and `tcp` and the decisions of `zone`. Pure: bytes in, bytes
//! out, so that it can be fuzzed. Invariant: nothing that a container or an upstream sends makes it
//! panic, loop, or build an answer to an answer. Queries and upstream answers are passed on as they came,
//! only id and question patched, so that record types unknown to us survive; nothing is decoded that
//! we need not know. Answers of our own are made by hickory.
//!
//! Sources: RFC 1035 §4, RFC 2181 §8 (TTL), RFC 2308 §5 (negative TTL), RFC 6891 (EDNS),
//! RFC 8482 (ANY), RFC 9619 (one question).

mod records;

pub use records::{age, lifetime, response_code};

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use records::{RecordView, count};
use std::borrow::Cow;
use std::rc::Rc;

/// Fixed part of every message, bytes.
pub const HEADER_LEN: usize = 12;
/// Largest query taken, bytes: one name, EDNS and its padding (RFC 8467) come to a fraction of it.
pub const MAX_QUERY: usize = 4096;
/// Largest UDP answer to a client without EDNS, bytes (RFC 1035 §4.2.1).
pub const PLAIN_UDP_LIMIT: usize = 512;
/// What we announce to take by UDP: fits unfragmented through an IPv6 path (DNS flag day 2020).
pub const OUR_UDP_LIMIT: u16 = 1232;
/// No UDP answer is larger than this, whatever the client announces: sandboxes sit behind a veth of
/// at least the usual Ethernet size, and larger answers belong on TCP.
const MAX_UDP_ANSWER: usize = 4096;

const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_CHECKING_DISABLED: u8 = 0x10;
const FLAGS_OP_CODE: u8 = 0x78;
/// In the third byte of an OPT record's TTL.
const FLAG_DNSSEC_OK: u8 = 0x80;
/// Longest name, bytes with the lengths of its labels (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// A question that one client put, checked.
#[derive(Debug, Clone)]
pub struct ClientQuery {
    bytes: Vec<u8>,
    question_end: usize,
    name: String,
    record_type: RecordType,
    edns: Option<EdnsView>,
    /// There are additional records besides EDNS.
    more: bool,
}

/// What matters to us of the client's OPT record (RFC 6891 §6.1).
#[derive(Debug, Clone, Copy)]
struct EdnsView {
    payload: u16,
    version: u8,
    dnssec_ok: bool,
    options: bool,
}

/// Why a message from a client is not answered by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// No header, or itself an answer: answering could start a loop.
    Drop,
    /// Send this instead.
    Answer(Vec<u8>),
}

impl ClientQuery {
    /// Reads a client's message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(Rejection::Drop)?;
        if header[2] & FLAG_RESPONSE != 0 {
            return Err(Rejection::Drop);
        }
        if op_code(header) != OpCode::Query {
            return Err(refuse(header, ResponseCode::NotImp));
        }
        let counts = [0, 1, 2, 3].map(|section| count(header, section).unwrap_or(0));
        let [questions, answers, authorities, additionals] = counts;
        if questions != 1 || answers != 0 || additionals > 8 {
            return Err(refuse(header, ResponseCode::FormErr));
        }
        // Only an IXFR has an authority section, and transfers are refused.
        if authorities != 0 {
            return Err(refuse(header, ResponseCode::NotImp));
        }
        Self::read(bytes, additionals)
            .ok_or_else(|| refuse(header, ResponseCode::FormErr))?
            .check_scope()
    }

    /// A message with one question and so many additional records; `None` where it is malformed.
    fn read(bytes: &[u8], additionals: u16) -> Option<Self> {
        let question_end = question_end(bytes)?;
        let [name @ .., t0, t1, _, _] = bytes.get(HEADER_LEN..question_end)? else {
            return None;
        };
        let (mut edns, mut more) = (None, false);
        let mut at = question_end;
        for _ in 0..additionals {
            let record = RecordView::read(bytes, at)?;
            if record.kind != RecordType::OPT {
                more = true;
            } else if edns.replace(EdnsView::of(&record)).is_some() {
                return None;
            }
            at = record.end;
        }
        Some(Self {
            name: text(name)?,
            record_type: u16::from_be_bytes([*t0, *t1]).into(),
            question_end,
            bytes: bytes.to_vec(),
            edns,
            more,
        })
    }

    /// Refuses what is well formed and none of our business.
    fn check_scope(self) -> Result<Self, Rejection> {
        if self.edns.is_some_and(|edns| edns.version > 0) {
            return Err(Rejection::Answer(self.answer(ResponseCode::BADVERS, &[])));
        }
        let question = self.bytes.get(..self.question_end);
        let class = question.and_then(|question| question.last_chunk::<2>());
        let transfer = matches!(self.record_type, RecordType::AXFR | RecordType::IXFR);
        if class.map(|class| DNSClass::from(u16::from_be_bytes(*class))) != Some(DNSClass::IN)
            || transfer
        {
            return Err(Rejection::Answer(self.answer(ResponseCode::Refused, &[])));
        }
        Ok(self)
    }

    /// The name asked for: lower case, without the final dot, odd bytes escaped; empty for the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name asked for, as the client spelt it.
    pub fn spelt_name(&self) -> Name {
        self.question()
            .map_or_else(Name::root, |question| question.name().clone())
    }

    /// Decoded only where an answer of our own is made.
    fn question(&self) -> Option<Query> {
        let bytes = self.bytes.get(HEADER_LEN..self.question_end)?;
        Query::read(&mut BinDecoder::new(bytes)).ok()
    }

    /// The record type asked for.
    pub fn record_type(&self) -> RecordType {
        self.record_type
    }

    /// Largest answer that the client takes by UDP, bytes.
    pub fn udp_limit(&self) -> usize {
        let payload = self.edns.map_or(0, |edns| usize::from(edns.payload));
        payload.clamp(PLAIN_UDP_LIMIT, MAX_UDP_ANSWER)
    }

    /// The message to send upstream: the client's own with another id.
    pub fn forwarded(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        set_id(&mut bytes, id);
        bytes
    }

    /// Whether two clients of the network with this bridge that ask so can share an answer, and by
    /// which key: network, question, flags and EDNS. `None` where options (cookies, client subnet)
    /// make the answer personal.
    pub fn cache_key(&self, bridge: &str) -> Option<Rc<[u8]>> {
        if self.more || self.edns.is_some_and(|edns| edns.options) {
            return None;
        }
        let flags = self.bytes.get(2..4)?;
        let question = self.bytes.get(HEADER_LEN..self.question_end)?;
        let (name, kind) = question.split_at_checked(question.len().checked_sub(4)?)?;
        let mut key = Vec::with_capacity(bridge.len() + 1 + 3 + question.len());
        // No name of an interface has a zero in it.
        key.extend_from_slice(bridge.as_bytes());
        key.push(0);
        key.extend_from_slice(flags);
        // Absent, present, present with DO: the answer differs in its OPT record.
        key.push(self.edns.map_or(0, |edns| 1 + u8::from(edns.dnssec_ok)));
        // Label lengths stay below 64, out of reach of the case change.
        key.extend(name.iter().map(u8::to_ascii_lowercase));
        key.extend_from_slice(kind);
        Some(key.into())
    }

    /// Our own answer with these records.
    pub fn answer(&self, code: ResponseCode, records: &[Record]) -> Vec<u8> {
        let header = self.bytes.first_chunk::<HEADER_LEN>();
        let header = header.unwrap_or(&[0; HEADER_LEN]);
        let mut answer = Message::response(id(header), OpCode::Query);
        answer.metadata.recursion_desired = header[2] & FLAG_RECURSION_DESIRED != 0;
        answer.metadata.checking_disabled = header[3] & FLAG_CHECKING_DISABLED != 0;
        // Without AA and RA glibc takes an empty answer for a lame delegation and asks on.
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative =
            matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        answer.metadata.response_code = code;
        answer.add_queries(self.question());
        answer.add_answers(records.iter().cloned());
        if let Some(edns) = self.edns {
            answer.set_edns(our_edns(edns.dnssec_ok));
        }
        // Only records that cannot be encoded fail here, and ours are addresses and checked names.
        answer
            .to_vec()
            .unwrap_or_else(|_| bare_answer(header, ResponseCode::ServFail))
    }

    /// Whether `answer` is an upstream's answer to what [`Self::forwarded`] sent under `id`.
    pub fn matches(&self, answer: &[u8], expected: u16) -> bool {
        let Some(header) = answer.first_chunk::<HEADER_LEN>() else {
            return false;
        };
        let right = id(header) == expected
            && header[2] & FLAG_RESPONSE != 0
            && op_code(header) == OpCode::Query;
        if !right {
            return false;
        }
        match count(header, 0) {
            Some(1) => self.same_question(answer),
            // Servers that do not understand a query may leave the question out.
            Some(0) => {
                let code = response_code(header);
                count(header, 1) == Some(0)
                    && !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
            }
            _more_or_none => false,
        }
    }

    fn same_question(&self, answer: &[u8]) -> bool {
        let ours = self.bytes.get(HEADER_LEN..self.question_end);
        let theirs = answer.get(HEADER_LEN..self.question_end);
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return false;
        };
        let split = ours.len().saturating_sub(4);
        // Type and class are numbers: no case to fold there.
        ours[split..] == theirs[split..] && ours[..split].eq_ignore_ascii_case(&theirs[..split])
    }

    /// Makes an upstream's (or cached) answer what this client must see: its id, its spelling.
    pub fn adopt(&self, answer: &mut [u8]) {
        if let (Some(theirs), Some(ours)) = (answer.get_mut(..2), self.bytes.get(..2)) {
            theirs.copy_from_slice(ours);
        }
        if self.same_question(answer)
            && let Some(ours) = self.bytes.get(HEADER_LEN..self.question_end)
            && let Some(theirs) = answer.get_mut(HEADER_LEN..self.question_end)
        {
            theirs.copy_from_slice(ours);
        }
    }

    /// `answer`, or an empty truncated one where it exceeds `limit` bytes.
    pub fn fit<'a>(&self, answer: &'a [u8], limit: usize) -> Cow<'a, [u8]> {
        if answer.len() <= limit {
            return Cow::Borrowed(answer);
        }
        let mut short = self.answer(response_code(answer), &[]);
        if let (Some(flags), Some(theirs)) = (short.get_mut(2..4), answer.get(2..4)) {
            flags.copy_from_slice(theirs);
            flags[0] |= FLAG_TRUNCATED;
        }
        Cow::Owned(short)
    }
}

impl EdnsView {
    fn of(record: &RecordView<'_>) -> Self {
        let [_extended_code, version, flags, _] = record.raw_ttl.to_be_bytes();
        Self {
            payload: record.class,
            version,
            dnssec_ok: flags & FLAG_DNSSEC_OK != 0,
            options: !record.data.is_empty(),
        }
    }
}

/// Whether the server cut the answer short.
pub fn is_truncated(answer: &[u8]) -> bool {
    answer
        .get(2)
        .is_some_and(|flags| flags & FLAG_TRUNCATED != 0)
}

/// Where the question section of a message with one question ends. A question's name is not
/// compressed: there is nothing before it to point at.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER_LEN;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    at += 1;
    let end = at + 4;
    (at - HEADER_LEN <= MAX_NAME && end <= message.len()).then_some(end)
}

/// An uncompressed name as zones and searches compare it.
fn text(name: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let [length, others @ ..] = rest
        && *length > 0
    {
        let (label, others) = others.split_at_checked(usize::from(*length))?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.first() == Some(&b'-') || !label.iter().all(plain) {
            return escaped_text(name);
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
        rest = others;
    }
    Some(text)
}

/// The same of one with odd bytes in it.
fn escaped_text(name: &[u8]) -> Option<String> {
    let name = Name::read(&mut BinDecoder::new(name)).ok()?;
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    Some(text)
}

fn our_edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(OUR_UDP_LIMIT);
    edns.set_dnssec_ok(dnssec_ok);
    edns
}

fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut::<2>() {
        *field = id.to_be_bytes();
    }
}

fn id(header: &[u8; HEADER_LEN]) -> u16 {
    u16::from_be_bytes([header[0], header[1]])
}

fn op_code(header: &[u8; HEADER_LEN]) -> OpCode {
    OpCode::from_u8((header[2] >> 3) & 15)
}

fn refuse(header: &[u8; HEADER_LEN], code: ResponseCode) -> Rejection {
    Rejection::Answer(bare_answer(header, code))
}

/// A header and nothing else, to the message with this one.
fn bare_answer(header: &[u8; HEADER_LEN], code: ResponseCode) -> Vec<u8> {
    let op_code = header[2] & FLAGS_OP_CODE;
    let mut answer = vec![header[0], header[1], FLAG_RESPONSE | op_code, code.low()];
    answer.resize(HEADER_LEN, 0);
    answer
}

/// An address or pointer record of `name`.
pub fn record(name: &Name, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name.clone(), ttl, data)
}

#[cfg(test)]
mod tests;
