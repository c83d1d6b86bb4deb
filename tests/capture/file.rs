//! A reader of pcapng files of our own byte order: what `mossnet capture -w` writes must be read by it.

use std::path::Path;

/// What a file says.
#[derive(Debug, Default)]
pub struct File {
    pub interfaces: Vec<Interface>,
    pub packets: Vec<Packet>,
    /// Of each interface: received, dropped.
    pub statistics: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub struct Interface {
    pub name: String,
    pub description: String,
    pub snaplen: u32,
}

#[derive(Debug)]
pub struct Packet {
    pub interface: usize,
    /// Since 1970.
    pub nanoseconds: u64,
    pub inward: bool,
    /// Of the whole frame.
    pub length: usize,
    pub bytes: Vec<u8>,
}

impl Packet {
    /// IPv4 protocol, or 0.
    pub fn protocol(&self) -> u8 {
        match self.bytes.get(12..14) {
            Some([8, 0]) => self.bytes[23],
            _ => 0,
        }
    }

    /// Ports behind an IPv4 header without options.
    pub fn ports(&self) -> [u16; 2] {
        [34, 36].map(|at| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// Source and destination of IPv4.
    pub fn addresses(&self) -> [String; 2] {
        [26, 30].map(|at| {
            let octets = self.bytes[at..at + 4].iter().map(u8::to_string);
            octets.collect::<Vec<_>>().join(".")
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let (code, length) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        if code == 0 {
            return found;
        }
        found.push((code, bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
}

fn option(bytes: &[u8], code: u16) -> Vec<u8> {
    let all = options(bytes);
    let found = all.into_iter().find(|(found, _)| *found == code);
    found.unwrap_or_else(|| panic!("no option {code}")).1
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

impl File {
    #[track_caller]
    pub fn read(path: impl AsRef<Path>) -> Self {
        Self::parse(&std::fs::read(path).expect("a capture"))
    }

    /// Fails the test unless all of it is whole blocks.
    #[track_caller]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut file = Self::default();
        assert_eq!(u32_at(bytes, 0), 0x0a0d_0d0a, "a section first");
        while !bytes.is_empty() {
            let (kind, length) = (u32_at(bytes, 0), u32_at(bytes, 4) as usize);
            assert_eq!(length % 4, 0);
            assert_eq!(u32_at(bytes, length - 4) as usize, length, "a whole block");
            file.block(kind, &bytes[8..length - 4]);
            bytes = &bytes[length..];
        }
        file
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        match kind {
            0x0a0d_0d0a => assert_eq!(u32_at(body, 0), 0x1a2b_3c4d, "byte order"),
            1 => {
                assert_eq!(u16_at(body, 0), 1, "Ethernet");
                assert_eq!(option(&body[8..], 9), [9], "nanoseconds");
                self.interfaces.push(Interface {
                    name: text(option(&body[8..], 2)),
                    description: text(option(&body[8..], 3)),
                    snaplen: u32_at(body, 4),
                });
            }
            6 => {
                let kept = u32_at(body, 12) as usize;
                let flags = option(&body[20 + kept.next_multiple_of(4)..], 2);
                self.packets.push(Packet {
                    interface: u32_at(body, 0) as usize,
                    nanoseconds: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                    inward: u32_at(&flags, 0) & 3 == 1,
                    length: u32_at(body, 16) as usize,
                    bytes: body[20..20 + kept].to_vec(),
                });
            }
            5 => {
                let number = |code| u64_at(&option(&body[12..], code), 0);
                self.statistics.push((number(4), number(5)));
            }
            other => panic!("unknown block {other}"),
        }
    }
}
