use super::*;

fn mac(last: u8) -> MacAddr {
    MacAddr::try_from([2, 0, 0, 0, 0, last]).expect("a MAC address")
}

fn link(id: u32, uid: u32, kind: LinkKind, prefixes: &[&str]) -> Link {
    Link {
        id,
        uid,
        kind,
        index: id + 100,
        name: format!("mnu{id:06x}").parse().expect("a name"),
        namespace: 3,
        host_mac: mac(1),
        inside_mac: mac(2),
        prefixes: prefixes
            .iter()
            .map(|p| p.parse().expect("a prefix"))
            .collect(),
    }
}

fn socket(id: u32, published: Option<(u32, SocketAddr)>) -> Socket {
    Socket {
        id,
        uid: 1000,
        protocol: if id.is_multiple_of(2) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        port: 80,
        inode: 4711,
        published,
    }
}

fn record() -> Record {
    let target = "[fd00::2]:80".parse().expect("an address");
    Record {
        next: 7,
        allowances: BTreeMap::from([(1000, Allowance { left: 1500, at: 9 })]),
        links: vec![
            link(1, 1000, LinkKind::Uplink, &["10.89.0.0/24", "fd00::/64"]),
            link(2, 1000, LinkKind::Veth, &[]),
            link(3, 1001, LinkKind::Bridge, &["192.168.7.3/32"]),
        ],
        sockets: vec![socket(4, None), socket(5, Some((1, target)))],
    }
}

#[test]
fn a_record_comes_back_as_it_was_written_and_damage_is_seen() {
    let record = record();
    let text = record.to_string();
    assert_eq!(text.parse(), Ok(record));
    assert_eq!("".parse::<Record>(), Err(Damaged { line: 0 }));
    for cut in 1..text.len() {
        let cut_at_line =
            text[..cut].ends_with('\n') && cut > "mossnet-helper record 1\nnext 7".len();
        assert_eq!(
            text[..cut].parse::<Record>().is_ok(),
            cut_at_line,
            "{:?}",
            &text[..cut]
        );
    }
    for (good, bad) in [
        ("record 1", "record 2"),
        ("next 7", "next 16777216"),
        ("next 7", "next 7 7"),
        ("turns", "turn"),
        (" veth ", " tap "),
        (" tcp ", " sctp "),
        ("- -", "- 1"),
        ("10.89.0.0/24", "10.89.0.0/33"),
        ("uplink 101", "uplink  101"),
    ] {
        let damaged = text.replacen(good, bad, 1);
        assert_ne!(damaged, text, "{good}");
        assert!(damaged.parse::<Record>().is_err(), "{damaged}");
    }
}

#[test]
fn numbers_are_never_given_twice() {
    let mut record = record();
    record.next = 1;
    assert_eq!(record.number(), 6);
    record.next = MAX_ID;
    assert_eq!((record.number(), record.number()), (MAX_ID, 0));
}

#[test]
fn turns_run_out_and_come_back_with_time() {
    let mut record = Record::default();
    assert!((0..3).all(|_| record.take_turn(1000, 3, 1000)));
    assert!(!record.take_turn(1000, 3, 1000));
    assert!(record.take_turn(1001, 3, 1000), "of somebody else");
    assert!(!record.take_turn(1000, 3, 20_999));
    assert!(record.take_turn(1000, 3, 21_000), "one each 20 seconds");
    assert!(
        !record.take_turn(1000, 3, 500),
        "a clock that goes back gives nothing"
    );
    assert!(record.take_turn(1001, 3, 200_000));
    assert_eq!(record.allowances.len(), 1, "who was silent is forgotten");
}

#[test]
fn things_are_counted_and_found_by_whose_they_are() {
    let mut record = record();
    assert_eq!((record.links_of(1000), record.links_of(1001)), (2, 1));
    assert_eq!((record.bound_by(1000), record.published_by(1000)), (1, 1));
    assert_eq!(record.sockets[1].mark(), 0x6d00_0005);
    let made = Made {
        index: 101,
        name: "mnu000001".parse().expect("a name"),
    };
    assert!(record.link_of(1000, &made).is_some());
    assert!(record.link_of(1001, &made).is_none());
    let other = Made { index: 102, ..made };
    assert!(
        record.link_of(1000, &other).is_none(),
        "never by name alone"
    );
    assert!(record.uplink_of(1000, 3).is_some() && record.uplink_of(1001, 3).is_none());
    let within = ["10.89.0.128/25".parse().expect("a prefix")];
    let found = |except| {
        record
            .overlapping(LinkKind::Uplink, &within, except)
            .is_some()
    };
    assert!(found(None) && found(Some(2)) && !found(Some(1)));
    record.strike(1);
    assert_eq!((record.links.len(), record.sockets.len()), (2, 1));
}
