//! The wire form of DNS messages: what a client asks, what we answer, what an upstream answers.
//!
//! Place: between the sockets of `udp` and `tcp` and the decisions of `zone`. Pure: bytes in, bytes
//! out, so that it can be fuzzed. Invariant: nothing that a container or an upstream sends makes it
//! panic, loop, or build an answer to an answer. Upstream answers are passed on as they came, only
//! id and question patched, so that record types unknown to us survive.
//!
//! Sources: RFC 1035 §4, RFC 2181 §8 (TTL), RFC 2308 §5 (negative TTL), RFC 6891 (EDNS),
//! RFC 8482 (ANY), RFC 9619 (one question).

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

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

/// A question that one client put, checked.
#[derive(Debug, Clone)]
pub struct ClientQuery {
    bytes: Vec<u8>,
    question_end: usize,
    message: Message,
    name: String,
    record_type: RecordType,
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
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| Rejection::Drop)?;
        if header.metadata.message_type == MessageType::Response {
            return Err(Rejection::Drop);
        }
        if header.metadata.op_code != OpCode::Query {
            return Err(refuse(&header, ResponseCode::NotImp));
        }
        let counts = &header.counts;
        if counts.queries != 1 || counts.answers != 0 || counts.additionals > 8 {
            return Err(refuse(&header, ResponseCode::FormErr));
        }
        // Only an IXFR has an authority section, and transfers are refused.
        if counts.authorities != 0 {
            return Err(refuse(&header, ResponseCode::NotImp));
        }
        let malformed = |_| refuse(&header, ResponseCode::FormErr);
        let question_end = question_end(bytes).ok_or(()).map_err(malformed)?;
        let message = Message::from_vec(bytes).map_err(|_| malformed(()))?;
        let question = message.queries.first().ok_or(()).map_err(malformed)?;
        let record_type = question.query_type();
        let query = Self {
            name: text(question.name()),
            record_type,
            question_end,
            bytes: bytes.to_vec(),
            message,
        };
        query.check_scope()?;
        Ok(query)
    }

    /// Refuses what is well formed and none of our business.
    fn check_scope(&self) -> Result<(), Rejection> {
        if self.message.version() > 0 {
            return Err(Rejection::Answer(self.answer(ResponseCode::BADVERS, &[])));
        }
        let class = self.message.queries.first().map(|q| q.query_class());
        let transfer = matches!(self.record_type, RecordType::AXFR | RecordType::IXFR);
        if class != Some(DNSClass::IN) || transfer {
            return Err(Rejection::Answer(self.answer(ResponseCode::Refused, &[])));
        }
        Ok(())
    }

    /// The name asked for: lower case, without the final dot, odd bytes escaped; empty for the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name asked for, as the client spelt it.
    pub fn spelt_name(&self) -> Name {
        self.message
            .queries
            .first()
            .map_or_else(Name::root, |question| question.name().clone())
    }

    /// The record type asked for.
    pub fn record_type(&self) -> RecordType {
        self.record_type
    }

    /// Largest answer that the client takes by UDP, bytes.
    pub fn udp_limit(&self) -> usize {
        usize::from(self.message.max_payload()).clamp(PLAIN_UDP_LIMIT, MAX_UDP_ANSWER)
    }

    /// The message to send upstream: the client's own with another id.
    pub fn forwarded(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        set_id(&mut bytes, id);
        bytes
    }

    /// Whether two clients asking so can share an answer, and by which key: question, flags and
    /// EDNS. `None` where options (cookies, client subnet) make the answer personal.
    pub fn cache_key(&self) -> Option<Vec<u8>> {
        let edns = self.message.edns.as_ref();
        if edns.is_some_and(|edns| !edns.options().as_ref().is_empty()) {
            return None;
        }
        if !self.message.additionals.is_empty() {
            return None;
        }
        let mut key = self.bytes.get(2..4)?.to_vec();
        // Absent, present, present with DO: the answer differs in its OPT record.
        key.push(edns.map_or(0, |edns| 1 + u8::from(edns.flags().dnssec_ok)));
        let question = self.bytes.get(HEADER_LEN..self.question_end)?;
        let (name, kind) = question.split_at_checked(question.len().checked_sub(4)?)?;
        // Label lengths stay below 64, out of reach of the case change.
        key.extend(name.iter().map(u8::to_ascii_lowercase));
        key.extend_from_slice(kind);
        Some(key)
    }

    /// Our own answer with these records.
    pub fn answer(&self, code: ResponseCode, records: &[Record]) -> Vec<u8> {
        let request = &self.message.metadata;
        let mut answer = Message::response(request.id, request.op_code);
        answer.metadata.recursion_desired = request.recursion_desired;
        answer.metadata.checking_disabled = request.checking_disabled;
        // Without AA and RA glibc takes an empty answer for a lame delegation and asks on.
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative =
            matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        answer.metadata.response_code = code;
        answer.add_queries(self.message.queries.iter().cloned());
        answer.add_answers(records.iter().cloned());
        if let Some(edns) = &self.message.edns {
            answer.set_edns(our_edns(edns.flags().dnssec_ok));
        }
        // Only records that cannot be encoded fail here, and ours are addresses and checked names.
        answer
            .to_vec()
            .unwrap_or_else(|_| bare_answer(request.id, request.op_code, ResponseCode::ServFail))
    }

    /// Whether `answer` is an upstream's answer to what [`Self::forwarded`] sent under `id`.
    pub fn matches(&self, answer: &[u8], id: u16) -> bool {
        let Ok(header) = Header::read(&mut BinDecoder::new(answer)) else {
            return false;
        };
        let right = header.metadata.id == id
            && header.metadata.message_type == MessageType::Response
            && header.metadata.op_code == OpCode::Query;
        // Servers that do not understand a query may leave the question out.
        let bare = header.counts.queries == 0 && header.counts.answers == 0;
        let code = header.metadata.response_code;
        if right && bare && !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return true;
        }
        right && header.counts.queries == 1 && self.same_question(answer)
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

    /// An upstream's (or cached) answer as this client must see it: its id, its spelling.
    pub fn adopt(&self, mut answer: Vec<u8>) -> Vec<u8> {
        let Some(request_id) = self.bytes.first_chunk::<2>() else {
            return answer;
        };
        set_id(&mut answer, u16::from_be_bytes(*request_id));
        if self.same_question(&answer)
            && let Some(ours) = self.bytes.get(HEADER_LEN..self.question_end)
            && let Some(theirs) = answer.get_mut(HEADER_LEN..self.question_end)
        {
            theirs.copy_from_slice(ours);
        }
        answer
    }

    /// `answer`, or an empty truncated one where it exceeds `limit` bytes.
    pub fn fit(&self, answer: Vec<u8>, limit: usize) -> Vec<u8> {
        if answer.len() <= limit {
            return answer;
        }
        let mut short = self.answer(response_code(&answer), &[]);
        if let (Some(flags), Some(theirs)) = (short.get_mut(2..4), answer.get(2..4)) {
            flags.copy_from_slice(theirs);
            flags[0] |= FLAG_TRUNCATED;
        }
        short
    }
}

/// Whether the server cut the answer short.
pub fn is_truncated(answer: &[u8]) -> bool {
    answer
        .get(2)
        .is_some_and(|flags| flags & FLAG_TRUNCATED != 0)
}

/// The answer's code, without the bits in its OPT record.
pub fn response_code(answer: &[u8]) -> ResponseCode {
    answer.get(3).map_or(ResponseCode::FormErr, |flags| {
        ResponseCode::from_low(*flags)
    })
}

/// What a cache needs to know of an upstream's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetime {
    /// Seconds for which it holds.
    pub ttl: u32,
    /// Byte offsets of its TTL fields.
    pub ttl_offsets: Vec<usize>,
}

/// For how long an answer holds; `None` for one that must not be kept.
pub fn lifetime(answer: &[u8]) -> Option<Lifetime> {
    let mut decoder = BinDecoder::new(answer);
    let header = Header::read(&mut decoder).ok()?;
    let code = header.metadata.response_code;
    if header.metadata.truncation
        || header.counts.queries != 1
        || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return None;
    }
    hickory_proto::op::Query::read(&mut decoder).ok()?;
    let mut shortest = None;
    let mut denial = None;
    let mut ttl_offsets = Vec::new();
    let records = u32::from(header.counts.answers)
        + u32::from(header.counts.authorities)
        + u32::from(header.counts.additionals);
    for _ in 0..records {
        let record = read_record(&mut decoder)?;
        if record.kind == RecordType::OPT {
            continue;
        }
        ttl_offsets.push(record.ttl_offset);
        shortest = Some(record.ttl.min(shortest.unwrap_or(u32::MAX)));
        if record.kind == RecordType::SOA {
            denial = record.soa_minimum.map(|minimum| minimum.min(record.ttl));
        }
    }
    // RFC 2308 §5: an empty answer holds for as long as its SOA says, or not at all.
    let empty = code == ResponseCode::NXDomain || header.counts.answers == 0;
    let ttl = if empty {
        denial.min(shortest)?
    } else {
        shortest?
    };
    Some(Lifetime { ttl, ttl_offsets })
}

/// Lets `seconds` pass for every TTL in a kept answer.
pub fn age(answer: &mut [u8], lifetime: &Lifetime, seconds: u32) {
    for &offset in &lifetime.ttl_offsets {
        if let Some(field) = answer
            .get_mut(offset..)
            .and_then(|rest| rest.first_chunk_mut::<4>())
        {
            *field = u32::from_be_bytes(*field)
                .saturating_sub(seconds)
                .to_be_bytes();
        }
    }
}

struct RecordView {
    kind: RecordType,
    ttl: u32,
    ttl_offset: usize,
    soa_minimum: Option<u32>,
}

/// One record, its data unread: types that nobody knows yet must be cacheable too.
fn read_record(decoder: &mut BinDecoder<'_>) -> Option<RecordView> {
    Name::read(decoder).ok()?;
    let kind = RecordType::from(decoder.read_u16().ok()?.unverified());
    decoder.read_u16().ok()?;
    let ttl_offset = decoder.index();
    let raw_ttl = decoder.read_u32().ok()?.unverified();
    let length = usize::from(decoder.read_u16().ok()?.unverified());
    let data = decoder.read_slice(length).ok()?.unverified();
    // The minimum is the last of SOA's five numbers (RFC 1035 §3.3.13).
    let soa_minimum = data
        .last_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes));
    Some(RecordView {
        kind,
        // RFC 2181 §8: a TTL with the top bit set counts as zero.
        ttl: if raw_ttl > i32::MAX as u32 {
            0
        } else {
            raw_ttl
        },
        ttl_offset,
        soa_minimum,
    })
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
    let end = at + 1 + 4;
    (end <= message.len()).then_some(end)
}

/// A name as zones and searches compare it.
fn text(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
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

fn refuse(header: &Header, code: ResponseCode) -> Rejection {
    Rejection::Answer(bare_answer(
        header.metadata.id,
        header.metadata.op_code,
        code,
    ))
}

/// A header and nothing else.
fn bare_answer(id: u16, op_code: OpCode, code: ResponseCode) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut answer = vec![
        high,
        low,
        FLAG_RESPONSE | (u8::from(op_code) << 3),
        code.low(),
    ];
    answer.resize(HEADER_LEN, 0);
    answer
}

/// An address or pointer record of `name`.
pub fn record(name: &Name, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name.clone(), ttl, data)
}

#[cfg(test)]
mod tests;
