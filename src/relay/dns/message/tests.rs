//! Wire cases, and properties of whatever bytes arrive.

use super::*;
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, SOA};
use proptest::prelude::*;

fn query_bytes(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn query(name: &str) -> ClientQuery {
    ClientQuery::parse(&query_bytes(name, RecordType::A, None)).unwrap()
}

fn answer_of(query: &ClientQuery, ttls: &[u32]) -> Vec<u8> {
    let data = RData::A(A([192, 0, 2, 1].into()));
    let records: Vec<_> = ttls
        .iter()
        .map(|ttl| record(&query.spelt_name(), *ttl, data.clone()))
        .collect();
    query.answer(ResponseCode::NoError, &records)
}

fn code_of(rejection: Rejection) -> ResponseCode {
    match rejection {
        Rejection::Answer(answer) => Message::from_vec(&answer).unwrap().response_code,
        Rejection::Drop => panic!("dropped"),
    }
}

#[test]
fn a_query_is_read() {
    let bytes = query_bytes("WWW.Example.COM.", RecordType::AAAA, Some(1232));
    let query = ClientQuery::parse(&bytes).unwrap();
    assert_eq!(query.name(), "www.example.com");
    assert_eq!(query.record_type(), RecordType::AAAA);
    assert_eq!(query.udp_limit(), 1232);
    assert_eq!(super::tests::query("a.").udp_limit(), 512);
    assert_eq!(query.forwarded(0xbeef)[..2], [0xbe, 0xef]);
    assert_eq!(query.forwarded(0xbeef)[2..], bytes[2..]);
}

#[test]
fn what_is_no_query_is_dropped_or_refused_by_kind() {
    let good = query_bytes("example.com.", RecordType::A, None);
    let parse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        ClientQuery::parse(&bytes).unwrap_err()
    };
    assert_eq!(parse(&|bytes| bytes.truncate(11)), Rejection::Drop);
    assert_eq!(parse(&|bytes| bytes[2] |= FLAG_RESPONSE), Rejection::Drop);
    assert_eq!(
        code_of(parse(&|bytes| bytes[2] |= 5 << 3)),
        ResponseCode::NotImp
    );
    assert_eq!(code_of(parse(&|bytes| bytes[5] = 0)), ResponseCode::FormErr);
    assert_eq!(code_of(parse(&|bytes| bytes[5] = 2)), ResponseCode::FormErr);
    assert_eq!(
        code_of(parse(&|bytes| bytes[4] = 0xff)),
        ResponseCode::FormErr
    );
    assert_eq!(
        code_of(parse(&|bytes| bytes.truncate(20))),
        ResponseCode::FormErr
    );
    assert_eq!(code_of(parse(&|bytes| bytes[9] = 1)), ResponseCode::NotImp);
    let last = good.len() - 1;
    assert_eq!(
        code_of(parse(&|bytes| bytes[last] = 3)),
        ResponseCode::Refused
    );
    assert_eq!(
        code_of(parse(&|bytes| bytes[last - 2] = 252)),
        ResponseCode::Refused
    );
}

#[test]
fn an_unknown_edns_version_is_told_so() {
    let mut bytes = query_bytes("example.com.", RecordType::A, Some(4096));
    let version = bytes.len() - 5;
    bytes[version] = 1;
    let rejection = ClientQuery::parse(&bytes).unwrap_err();
    // BADVERS and BADSIG share the number.
    assert_eq!(
        u16::from(code_of(rejection)),
        u16::from(ResponseCode::BADVERS)
    );
}

#[test]
fn only_the_answer_to_the_query_matches() {
    let query = query("www.example.com.");
    let answer = answer_of(&query, &[60]);
    let id = u16::from_be_bytes([answer[0], answer[1]]);
    assert!(query.matches(&answer, id));
    assert!(!query.matches(&answer, id.wrapping_add(1)));
    assert!(
        !query.matches(&query.forwarded(id), id),
        "a query is no answer"
    );
    let mut upper = answer.clone();
    upper[HEADER_LEN + 1].make_ascii_uppercase();
    assert!(query.matches(&upper, id));
    let mut other_type = answer.clone();
    other_type[query.question_end - 3] = 28;
    assert!(!query.matches(&other_type, id));
    let bare = |code| bare_answer(answer.first_chunk().unwrap(), code);
    assert!(query.matches(&bare(ResponseCode::ServFail), id));
    assert!(!query.matches(&bare(ResponseCode::NoError), id));
}

#[test]
fn answers_hold_for_their_shortest_ttl_and_age() {
    let query = query("www.example.com.");
    let mut answer = answer_of(&query, &[300, 60, 4000]);
    assert_eq!(lifetime(&answer), Some(60));
    age(&mut answer, 50);
    assert_eq!(lifetime(&answer), Some(10));
    let ttls = |answer: &[u8]| -> Vec<_> {
        let records = Message::from_vec(answer).unwrap().answers;
        records.iter().map(|record| record.ttl).collect()
    };
    assert_eq!(ttls(&answer), [250, 10, 3950]);
    age(&mut answer, 50);
    assert_eq!(lifetime(&answer), Some(0));
    assert_eq!(lifetime(&answer_of(&query, &[u32::MAX])), Some(0));
    // What stands in an OPT record's place for a TTL are flags.
    let bytes = query_bytes("www.example.com.", RecordType::A, Some(1232));
    let query = ClientQuery::parse(&bytes).unwrap();
    let mut answer = answer_of(&query, &[60]);
    answer[2] |= FLAG_RESPONSE;
    let edns = answer[answer.len() - 11..].to_vec();
    age(&mut answer, 50);
    assert_eq!(lifetime(&answer), Some(10));
    assert_eq!(answer[answer.len() - 11..], edns);
}

#[test]
fn denials_hold_for_as_long_as_their_soa_says() {
    let query = query("nosuch.example.com.");
    assert_eq!(lifetime(&query.answer(ResponseCode::NXDomain, &[])), None);
    assert_eq!(lifetime(&query.answer(ResponseCode::ServFail, &[])), None);
    let name = Name::from_ascii("example.com.").unwrap();
    let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 30);
    let mut message = Message::from_vec(&query.answer(ResponseCode::NXDomain, &[])).unwrap();
    message.add_authority(record(&name, 3600, RData::SOA(soa)));
    assert_eq!(lifetime(&message.to_vec().unwrap()), Some(30));
    message.metadata.truncation = true;
    assert_eq!(lifetime(&message.to_vec().unwrap()), None);
}

#[test]
fn options_keep_an_answer_out_of_the_cache_and_flags_keep_it_apart() {
    let plain = query("www.example.com.");
    let spelt = query("WWW.example.com.");
    let key = |query: &ClientQuery| query.cache_key("br-0");
    assert_eq!(key(&plain), key(&spelt));
    assert_ne!(key(&plain), plain.cache_key("br-1"));
    let edns = ClientQuery::parse(&query_bytes("www.example.com.", RecordType::A, Some(1232)));
    assert_ne!(key(&plain), key(&edns.unwrap()));
    let mut message =
        Message::from_vec(&query_bytes("www.example.com.", RecordType::A, Some(1232))).unwrap();
    let cookie = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(10, vec![0; 8]);
    message.edns.as_mut().unwrap().options_mut().insert(cookie);
    let personal = ClientQuery::parse(&message.to_vec().unwrap()).unwrap();
    assert_eq!(key(&personal), None);
    let mut more =
        Message::from_vec(&query_bytes("www.example.com.", RecordType::A, None)).unwrap();
    let address = RData::A(A([192, 0, 2, 1].into()));
    more.add_additional(record(&plain.spelt_name(), 1, address));
    let more = ClientQuery::parse(&more.to_vec().unwrap()).unwrap();
    assert_eq!(key(&more), None);
}

#[test]
fn two_edns_records_are_one_too_many() {
    let mut bytes = query_bytes("example.com.", RecordType::A, Some(1232));
    let edns = bytes[bytes.len() - 11..].to_vec();
    bytes.extend(edns);
    bytes[11] = 2;
    let rejection = ClientQuery::parse(&bytes).unwrap_err();
    assert_eq!(code_of(rejection), ResponseCode::FormErr);
}

#[test]
fn a_cut_answer_keeps_code_question_and_edns() {
    let query =
        ClientQuery::parse(&query_bytes("pool.example.", RecordType::A, Some(600))).unwrap();
    let long = answer_of(&query, &[60; 100]);
    assert!(long.len() > 600);
    let short = query.fit(&long, query.udp_limit());
    assert!(short.len() <= 600 && is_truncated(&short));
    let message = Message::from_vec(&short).unwrap();
    assert!(message.edns.is_some() && message.answers.is_empty() && message.queries.len() == 1);
    assert_eq!(query.fit(&long, 65_535), long);
}

fn text_by_hickory(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

/// A well-formed query with bytes changed, or bytes out of nowhere.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let changed = (
        "[a-zA-Z0-9]{1,20}(\\.[a-z]{1,20}){0,4}\\.",
        any::<Option<u16>>(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(name, payload, changes, cut)| {
            let mut bytes = query_bytes(&name, RecordType::A, payload);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let length = bytes.len();
            bytes.truncate(length - cut.index(length) / 4);
            bytes
        });
    prop_oneof![changed, prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_refused_or_dropped(bytes in messages()) {
        match ClientQuery::parse(&bytes) {
            Ok(query) => {
                let answer = query.answer(ResponseCode::NXDomain, &[]);
                let id = u16::from_be_bytes([bytes[0], bytes[1]]);
                prop_assert!(query.matches(&answer, id));
                let mut adopted = answer.clone();
                query.adopt(&mut adopted);
                prop_assert_eq!(&adopted, &answer);
                let _ = query.cache_key("br-0");
                // Names that we read by ourselves are those that hickory reads.
                prop_assert_eq!(query.name(), text_by_hickory(&query.spelt_name()));
            }
            Err(Rejection::Answer(answer)) => {
                prop_assert!(answer[2] & FLAG_RESPONSE != 0);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
                prop_assert!(answer.len() <= 512);
            }
            Err(Rejection::Drop) => {}
        }
    }

    #[test]
    fn whatever_an_upstream_says_is_survived(bytes in messages(), limit in 512usize..4096) {
        let query = query("www.example.com.");
        let _ = query.matches(&bytes, 1);
        let before = lifetime(&bytes);
        let mut aged = bytes.clone();
        age(&mut aged, 7);
        if let (Some(before), Some(after)) = (before, lifetime(&aged)) {
            prop_assert!(after <= before && before - after <= 7);
        }
        query.adopt(&mut aged);
        prop_assert_eq!(aged.len(), bytes.len());
        prop_assert!(query.fit(&aged, limit).len() <= limit);
    }

    #[test]
    fn any_name_reads_as_hickory_has_it(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 0..6),
    ) {
        let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in &labels {
            bytes.push(label.len() as u8);
            bytes.extend(label);
        }
        bytes.extend([0, 0, 1, 0, 1]);
        let query = ClientQuery::parse(&bytes).unwrap();
        prop_assert_eq!(query.name(), text_by_hickory(&query.spelt_name()));
        let message = Message::from_vec(&bytes).unwrap();
        prop_assert_eq!(message.queries[0].name(), &query.spelt_name());
    }
}
