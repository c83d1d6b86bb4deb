//! Walking over the records of a message without decoding them: types that nobody knows yet must be
//! passed on and kept, too.
//!
//! Invariant: each step goes forward and stays within the message; a pointer (RFC 1035 §4.1.4) ends a
//! name and is not followed, so that there is nothing to loop on.

use super::HEADER_LEN;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// Type, class, TTL and length of the data: what stands between a record's name and its data, bytes.
const FIXED_LEN: usize = 10;

/// One record.
pub struct RecordView<'a> {
    /// Its type.
    pub kind: RecordType,
    /// Its class, or what a pseudo-record has there.
    pub class: u16,
    /// The four bytes of its TTL, as they are.
    pub raw_ttl: u32,
    /// Where they begin.
    pub ttl_offset: usize,
    /// Its data.
    pub data: &'a [u8],
    /// Where the next record begins.
    pub end: usize,
}

impl<'a> RecordView<'a> {
    /// The record that begins at `at`.
    pub fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let start = name_end(message, at)?;
        let (fixed, rest) = message.get(start..)?.split_first_chunk::<FIXED_LEN>()?;
        let [t0, t1, c0, c1, s0, s1, s2, s3, l0, l1] = *fixed;
        let data = rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
        Some(Self {
            kind: u16::from_be_bytes([t0, t1]).into(),
            class: u16::from_be_bytes([c0, c1]),
            raw_ttl: u32::from_be_bytes([s0, s1, s2, s3]),
            ttl_offset: start + 4,
            data,
            end: start + FIXED_LEN + data.len(),
        })
    }

    /// Seconds (RFC 2181 §8: with the top bit set it counts as zero).
    fn ttl(&self) -> u32 {
        if self.raw_ttl > i32::MAX as u32 {
            0
        } else {
            self.raw_ttl
        }
    }

    /// The last of SOA's five numbers (RFC 1035 §3.3.13).
    fn soa_minimum(&self) -> Option<u32> {
        let last = self.data.last_chunk::<4>();
        last.map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// Where the name that begins at `at` ends.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return message.get(at + 1).map(|_| at + 2),
            64..192 => return None,
        }
    }
}

/// One of the four counts in the header: questions, answers, authorities, additionals.
pub fn count(message: &[u8], section: usize) -> Option<u16> {
    let at = 4 + 2 * section;
    let bytes = message.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// The answer's code, without the bits in its OPT record.
pub fn response_code(answer: &[u8]) -> ResponseCode {
    answer.get(3).map_or(ResponseCode::FormErr, |flags| {
        ResponseCode::from_low(*flags)
    })
}

/// Where the records of a message with one question begin, and how many there are.
fn records(message: &[u8]) -> Option<(usize, u32)> {
    if count(message, 0)? != 1 {
        return None;
    }
    let start = name_end(message, HEADER_LEN)? + 4;
    let mut records = 0;
    for section in 1..4 {
        records += u32::from(count(message, section)?);
    }
    Some((start, records))
}

/// For how many seconds an answer holds; `None` for one that must not be kept.
pub fn lifetime(answer: &[u8]) -> Option<u32> {
    let code = response_code(answer);
    let kept = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    if !kept || super::is_truncated(answer) {
        return None;
    }
    let (mut at, records) = records(answer)?;
    let mut shortest = None;
    let mut denial = None;
    for _ in 0..records {
        let record = RecordView::read(answer, at)?;
        at = record.end;
        if record.kind == RecordType::OPT {
            continue;
        }
        let ttl = record.ttl();
        shortest = Some(ttl.min(shortest.unwrap_or(u32::MAX)));
        if record.kind == RecordType::SOA {
            denial = record.soa_minimum().map(|minimum| minimum.min(ttl));
        }
    }
    // RFC 2308 §5: an empty answer holds for as long as its SOA says, or not at all.
    let empty = code == ResponseCode::NXDomain || count(answer, 1)? == 0;
    if empty {
        denial.min(shortest)
    } else {
        shortest
    }
}

/// Lets `seconds` pass for every TTL in an answer that has a [`lifetime`].
pub fn age(answer: &mut [u8], seconds: u32) {
    let Some((mut at, records)) = records(answer) else {
        return;
    };
    for _ in 0..records {
        let Some(record) = RecordView::read(answer, at) else {
            return;
        };
        at = record.end;
        let (kind, field) = (record.kind, record.ttl_offset);
        let left = record.ttl().saturating_sub(seconds);
        if kind != RecordType::OPT
            && let Some(field) = answer.get_mut(field..field + 4)
        {
            field.copy_from_slice(&left.to_be_bytes());
        }
    }
}
