use super::*;
use proptest::prelude::*;

const ISN: u32 = u32::MAX - 5;
const OURS: u32 = u32::MAX - 2;

const OFFER: Offer = Offer {
    isn: ISN,
    window: 64_240,
    mss: 1460,
    scale: Some(7),
    sack: true,
    timestamp: 1000,
};

/// A segment, numbers counted from the first byte of data of either side.
#[derive(Debug, Clone)]
struct Said {
    at: i32,
    acknowledges: i32,
    flags: Flags,
    window: u16,
    clock: u32,
    data: Vec<u8>,
}

fn said(at: i32, acknowledges: i32, data: &[u8]) -> Said {
    Said {
        at,
        acknowledges,
        flags: Flags::ACK,
        window: 500,
        clock: 1001,
        data: data.to_vec(),
    }
}

impl Said {
    fn with(mut self, flags: Flags) -> Self {
        self.flags = self.flags.with(flags);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let sequence = ISN.wrapping_add(1).wrapping_add_signed(self.at);
        let acknowledged = OURS.wrapping_add(1).wrapping_add_signed(self.acknowledges);
        let mut bytes = vec![0, 80, 0, 81];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(acknowledged.to_be_bytes());
        bytes.extend([8 << 4, self.flags.0]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 1, 1, 8, 10]);
        bytes.extend(self.clock.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.data);
        bytes
    }
}

fn place() -> Place {
    Place {
        port: 7,
        mac: [2, 0, 0, 0, 0, 1],
    }
}

fn asked() -> Connection {
    let ends = FourTuple {
        client: "10.0.0.2:1000".parse().unwrap(),
        destination: "192.0.2.1:80".parse().unwrap(),
    };
    Connection::answering(ends, place(), OFFER, OURS)
}

fn begun() -> Connection {
    let mut connection = asked();
    hear(&mut connection, &said(0, 0, b""));
    assert!(connection.is_established());
    connection
}

/// What it is taken for, and the data.
fn hear(connection: &mut Connection, said: &Said) -> (String, Vec<u8>) {
    let bytes = said.bytes();
    let segment = Segment::parse(&bytes).unwrap();
    match connection.receive(&segment) {
        Received::Due { data, end } => (if end { "end" } else { "due" }.to_owned(), data.to_vec()),
        other => (format!("{other:?}").to_lowercase(), Vec::new()),
    }
}

fn kind(connection: &mut Connection, said: Said) -> String {
    hear(connection, &said).0
}

#[test]
fn a_handshake_agrees_on_what_was_offered() {
    let mut connection = asked();
    let greeting = connection.greeting();
    assert_eq!(greeting.flags, Flags::SYN.with(Flags::ACK));
    assert_eq!(greeting.sequence, OURS);
    assert_eq!(greeting.acknowledgement, ISN.wrapping_add(1));
    assert_eq!(u32::from(greeting.window), WINDOW);
    assert_eq!((greeting.echo, greeting.segment_len), (1000, 1448));
    // Of another connection.
    assert_eq!(kind(&mut connection, said(0, -1, b"")), "nothing");
    assert_eq!(kind(&mut connection, said(0, 1, b"")), "nothing");
    assert!(!connection.is_established());
    assert_eq!(kind(&mut connection, said(0, 0, b"")), "due");
    assert!(connection.is_established() && connection.is_acknowledged());
    assert_eq!(connection.room(), 500 << 7);
}

#[test]
fn data_is_taken_in_order_and_once() {
    let mut connection = begun();
    assert_eq!(
        hear(&mut connection, &said(0, 0, b"abc")),
        ("due".to_owned(), b"abc".to_vec())
    );
    assert_eq!(connection.owed(), 3);
    assert_eq!(kind(&mut connection, said(0, 0, b"abc")), "repeated");
    assert_eq!(kind(&mut connection, said(2, 0, b"cd")), "odd");
    assert_eq!(kind(&mut connection, said(4, 0, b"e")), "odd");
    // A kernel asks whether we live.
    assert_eq!(kind(&mut connection, said(2, 0, b"")), "repeated");
    assert_eq!(
        connection.acknowledge().acknowledgement,
        ISN.wrapping_add(4)
    );
    assert_eq!(connection.owed(), 0);
}

#[test]
fn no_more_is_taken_than_the_window_allows() {
    let mut connection = begun();
    let much = vec![0; WINDOW as usize];
    assert_eq!(kind(&mut connection, said(0, 0, &much)), "due");
    assert_eq!(
        kind(&mut connection, said(much.len() as i32, 0, b"x")),
        "odd"
    );
    assert_eq!(connection.state(&much, 1).receive_from, ISN.wrapping_add(1));
}

#[test]
fn what_is_sent_is_kept_until_it_is_acknowledged() {
    let mut connection = begun();
    assert_eq!(
        connection.send(b"hello", false).sequence,
        OURS.wrapping_add(1)
    );
    assert_eq!(
        connection.send(b"world", false).sequence,
        OURS.wrapping_add(6)
    );
    assert_eq!(connection.room(), (500 << 7) - 10);
    // Never sent.
    assert_eq!(kind(&mut connection, said(0, 11, b"")), "nothing");
    assert_eq!(kind(&mut connection, said(0, 7, b"")), "due");
    let again = connection.again();
    assert_eq!(
        (again.sequence, again.data),
        (OURS.wrapping_add(8), &b"rld"[..])
    );
    // Overtaken by the last one.
    assert_eq!(kind(&mut connection, said(0, 5, b"")), "due");
    assert_eq!(connection.state(b"", 1).unacknowledged, b"rld");
    assert_eq!(kind(&mut connection, said(0, 10, b"")), "due");
    assert!(connection.is_acknowledged());
}

#[test]
fn the_end_of_a_container_is_acknowledged_with_ours() {
    let mut connection = begun();
    assert_eq!(
        kind(&mut connection, said(0, 0, b"x").with(Flags::FIN)),
        "end"
    );
    assert_eq!(connection.owed(), 1);
    assert_eq!(
        connection.acknowledge().acknowledgement,
        ISN.wrapping_add(2)
    );
    assert_eq!(
        kind(&mut connection, said(1, 0, b"").with(Flags::FIN)),
        "odd"
    );
    let last = connection.send(b"", true);
    assert_eq!(last.flags, Flags::ACK.with(Flags::FIN));
    assert_eq!(last.acknowledgement, ISN.wrapping_add(3));
    assert!(!connection.is_over());
    assert_eq!(kind(&mut connection, said(2, 1, b"")), "due");
    assert!(connection.is_over());
    assert_eq!(
        kind(&mut connection, said(1, 1, b"").with(Flags::FIN)),
        "repeated"
    );
}

#[test]
fn our_end_may_come_first() {
    let mut connection = begun();
    let last = connection.send(b"bye", true);
    assert_eq!(last.flags, Flags::ACK.with(Flags::FIN).with(Flags::PSH));
    assert_eq!(connection.state(b"", 1).send_from, OURS.wrapping_add(1));
    assert_eq!(kind(&mut connection, said(0, 4, b"")), "due");
    // The kernel says it again.
    assert_eq!(connection.state(b"", 1).send_from, OURS.wrapping_add(4));
    assert_eq!(
        kind(&mut connection, said(0, 4, b"ok").with(Flags::FIN)),
        "end"
    );
    assert!(connection.is_over());
    assert_eq!(
        connection.acknowledge().acknowledgement,
        ISN.wrapping_add(4)
    );
}

#[test]
fn resets_count_where_they_can_be_meant() {
    let rst = |at| said(at, 0, b"").with(Flags::RST);
    for (at, expected) in [
        (0, "reset"),
        (WINDOW as i32, "reset"),
        (WINDOW as i32 + 1, "nothing"),
        (-1, "nothing"),
        (i32::MIN, "nothing"),
        (i32::MAX, "nothing"),
    ] {
        assert_eq!(kind(&mut begun(), rst(at)), expected, "{at}");
    }
    let mut owing = begun();
    hear(&mut owing, &said(0, 0, b"abc"));
    assert_eq!(kind(&mut owing, rst(-1)), "nothing");
    assert_eq!(kind(&mut owing, rst(0)), "reset");
}

#[test]
fn nobody_begins_twice() {
    let mut connection = begun();
    assert_eq!(
        kind(&mut connection, said(0, 0, b"").with(Flags::SYN)),
        "nothing"
    );
    let mut silent = said(0, 0, b"x");
    silent.flags = Flags::PSH;
    assert_eq!(kind(&mut connection, silent), "nothing");
}

#[test]
fn offers_are_read_from_options() {
    let offer = |options: &[u8]| {
        let mut bytes = vec![0, 80, 0, 81, 0, 0, 0, 9, 0, 0, 0, 0];
        bytes.push((((20 + options.len()) / 4) << 4) as u8);
        bytes.extend([2, 0x10, 0, 0, 0, 0, 0]);
        bytes.extend(options);
        Offer::of(&Segment::parse(&bytes).unwrap())
    };
    let full = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 3, 0xe8, 0, 0, 0, 0, 1, 3, 3, 200,
    ];
    let expected = Offer {
        isn: 9,
        window: 4096,
        scale: Some(14),
        ..OFFER
    };
    assert_eq!(offer(&full), Some(expected));
    let bare = offer(&[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]).unwrap();
    assert_eq!((bare.mss, bare.scale, bare.sack), (536, None, false));
    assert_eq!(offer(&[]), None, "no timestamps");
    assert_eq!(offer(&[8, 10, 0, 0]), None, "cut off");
    assert_eq!(
        offer(&[8, 0, 0, 0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        None
    );
}

proptest! {
    /// Whatever a container says: we acknowledge nothing that did not come, and keep what it has not
    /// acknowledged.
    #[test]
    fn numbers_stay_in_order(
        steps in prop::collection::vec(
            (any::<bool>(), -20i32..20_000, -20i32..60, any::<u8>(), 0usize..3000, any::<u16>()),
            0..60,
        )
    ) {
        let mut connection = begun();
        let (mut taken, mut sent, mut acknowledged) = (0i64, 0i64, 0i64);
        for (ours, at, acknowledges, flags, length, window) in steps {
            if ours {
                let data = vec![1; length.min(connection.room())];
                if !connection.has_ended() {
                    let head = connection.send(&data, false);
                    prop_assert_eq!(head.sequence, OURS.wrapping_add(1).wrapping_add(sent as u32));
                    sent += data.len() as i64;
                }
            } else {
                let flags = Flags(flags & 0x3f);
                let said = Said { flags, window, ..said(at, acknowledges, &vec![2; length]) };
                let (kind, data) = hear(&mut connection, &said);
                if kind == "due" || kind == "end" {
                    prop_assert_eq!(i64::from(at), taken);
                    taken += data.len() as i64;
                }
                if flags.contains(Flags::ACK) && !flags.contains(Flags::SYN)
                    && !flags.contains(Flags::RST) && i64::from(acknowledges) <= sent {
                    acknowledged = acknowledged.max(acknowledges.into());
                }
            }
            let head = connection.acknowledge();
            prop_assert_eq!(head.acknowledgement, ISN.wrapping_add(1).wrapping_add(taken as u32));
            let state = connection.state(&[], 1);
            prop_assert_eq!(state.send_from, OURS.wrapping_add(1).wrapping_add(acknowledged as u32));
            prop_assert_eq!(state.unacknowledged.len() as i64, sent - acknowledged);
            prop_assert!(connection.owed() == 0);
        }
    }
}
