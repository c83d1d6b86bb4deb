//! What is captured, as a program for the kernel (classic BPF): what does not match costs no copy.
//!
//! Invariant: pure. Every program ends in one of two `ret`s, and jumps forward only, so that the kernel takes
//! it; values of one kind are alternatives, kinds are conditions.
//!
//! Sources: Documentation/networking/filter.rst, RFC 791, RFC 8200, RFC 826.

use socket2::SockFilter;
use std::net::IpAddr;

/// Most values of one kind: 64 IPv6 addresses make some 1,300 instructions of the 4,096 that may be.
pub const MOST_VALUES: usize = 64;

/// A protocol over IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for IPv4, and ICMPv6.
    Icmp,
}

impl Protocol {
    fn number(self, ipv6: bool) -> u32 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Icmp if ipv6 => 58,
            Self::Icmp => 1,
        }
    }
}

/// Everything, where all are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these.
    pub protocols: Vec<Protocol>,
    /// From or to one of these ports, over TCP or UDP. Fragments but the first bear none.
    pub ports: Vec<u16>,
    /// From or to one of these addresses; of ARP, about one of them.
    pub hosts: Vec<IpAddr>,
}

const TCP: u32 = 6;
const UDP: u32 = 17;
/// The fragment header of IPv6, as a protocol.
const FRAGMENT: u32 = 44;

// Places in a frame.
const ETHERTYPE: u32 = 12;
const V4_FRAGMENT: u32 = 20;
const V4_PROTOCOL: u32 = 23;
const V4_ADDRESSES: [u32; 2] = [26, 30];
const V6_PROTOCOL: u32 = 20;
const V6_ADDRESSES: [u32; 2] = [22, 38];
const V6_FRAGMENT_PROTOCOL: u32 = 54;
const V6_FRAGMENT_OFFSET: u32 = 56;
const ARP_ADDRESSES: [u32; 2] = [28, 38];
/// Source and destination port, behind a transport header that begins at X + 14.
const PORTS: [u32; 2] = [14, 16];

// Instructions.
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_HALF_AT_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
const LOAD_KEPT: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_MEM) as u16;
const KEEP: u16 = libc::BPF_ST as u16;
const X_IS: u16 = (libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM) as u16;
/// X becomes the length of the IPv4 header at k.
const X_IS_V4_LENGTH: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

impl Filter {
    /// Lets at most `snaplen` bytes of each frame that matches pass.
    pub fn program(&self, snaplen: u32) -> Vec<SockFilter> {
        let mut program = Program::default();
        if *self == Self::default() {
            program.add(RETURN, snaplen);
            return program.assemble();
        }
        let (accept, reject) = (program.label(), program.label());
        let [v4, v6, arp] = [program.label(), program.label(), program.label()];
        program.add(LOAD_HALF, ETHERTYPE);
        for (number, section) in [(0x0800, v4), (0x86dd, v6), (0x0806, arp)] {
            program.go_if(IF_EQUAL, number, section);
        }
        program.go(reject);
        program.here(v4);
        self.v4(&mut program, accept, reject);
        program.here(v6);
        self.v6(&mut program, accept, reject);
        program.here(arp);
        if self.protocols.is_empty() && self.ports.is_empty() {
            self.v4_hosts(&mut program, ARP_ADDRESSES, accept);
        }
        program.go(reject);
        program.here(accept);
        program.add(RETURN, snaplen);
        program.here(reject);
        program.add(RETURN, 0);
        program.assemble()
    }

    fn v4(&self, program: &mut Program, accept: Label, reject: Label) {
        if !self.hosts.is_empty() {
            let found = program.label();
            self.v4_hosts(program, V4_ADDRESSES, found);
            program.go(reject);
            program.here(found);
        }
        program.add(LOAD_BYTE, V4_PROTOCOL);
        program.add(KEEP, 0);
        if !self.ports.is_empty() {
            program.add(LOAD_HALF, V4_FRAGMENT);
            program.go_if(IF_ANY_BIT, 0x1fff, reject);
        }
        program.add(X_IS_V4_LENGTH, 14);
        self.upper_layer(program, false, accept, reject);
    }

    fn v6(&self, program: &mut Program, accept: Label, reject: Label) {
        if !self.hosts.is_empty() {
            let found = program.label();
            self.v6_hosts(program, found);
            program.go(reject);
            program.here(found);
        }
        let [fragment, known] = [program.label(), program.label()];
        program.add(X_IS, 40);
        program.add(LOAD_BYTE, V6_PROTOCOL);
        program.add(KEEP, 0);
        program.go_if(IF_EQUAL, FRAGMENT, fragment);
        program.go(known);
        program.here(fragment);
        if !self.ports.is_empty() {
            program.add(LOAD_HALF, V6_FRAGMENT_OFFSET);
            program.go_if(IF_ANY_BIT, 0xfff8, reject);
        }
        program.add(X_IS, 48);
        program.add(LOAD_BYTE, V6_FRAGMENT_PROTOCOL);
        program.add(KEEP, 0);
        program.here(known);
        self.upper_layer(program, true, accept, reject);
    }

    /// The protocol is kept, X is the length of what stands before its header.
    fn upper_layer(&self, program: &mut Program, ipv6: bool, accept: Label, reject: Label) {
        program.add(LOAD_KEPT, 0);
        if !self.protocols.is_empty() {
            let numbers = self.protocols.iter().map(|protocol| protocol.number(ipv6));
            program.one_of(numbers, reject);
        }
        if self.ports.is_empty() {
            return program.go(accept);
        }
        program.one_of([TCP, UDP].into_iter(), reject);
        for place in PORTS {
            program.add(LOAD_HALF_AT_X, place);
            for port in &self.ports {
                program.go_if(IF_EQUAL, (*port).into(), accept);
            }
        }
        program.go(reject);
    }

    fn v4_hosts(&self, program: &mut Program, places: [u32; 2], found: Label) {
        for place in places {
            program.add(LOAD_WORD, place);
            for host in &self.hosts {
                if let IpAddr::V4(host) = host {
                    program.go_if(IF_EQUAL, (*host).into(), found);
                }
            }
        }
    }

    fn v6_hosts(&self, program: &mut Program, found: Label) {
        for place in V6_ADDRESSES {
            for host in &self.hosts {
                let IpAddr::V6(host) = host else { continue };
                let bits = host.to_bits();
                let other = program.label();
                for (number, shift) in (0..).zip([96, 64, 32, 0]) {
                    program.add(LOAD_WORD, place + 4 * number);
                    // Each fourth of the address.
                    program.go_unless_equal((bits >> shift) as u32, other);
                }
                program.go(found);
                program.here(other);
            }
        }
    }
}

/// A place in a program, before or after it is known.
#[derive(Debug, Clone, Copy)]
struct Label(usize);

#[derive(Debug, Default)]
struct Program {
    code: Vec<Instruction>,
    /// Where each label is.
    labels: Vec<usize>,
}

#[derive(Debug)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
    /// Of a jump.
    to: Option<Label>,
}

/// Conditional jumps reach 255 instructions only; so each jumps over, or to, one that reaches all.
impl Program {
    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn here(&mut self, label: Label) {
        let here = self.code.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = here;
        }
    }

    fn push(&mut self, code: u16, (if_true, if_false): (u8, u8), k: u32, to: Option<Label>) {
        self.code.push(Instruction {
            code,
            if_true,
            if_false,
            k,
            to,
        });
    }

    fn add(&mut self, code: u16, k: u32) {
        self.push(code, (0, 0), k, None);
    }

    fn go(&mut self, to: Label) {
        self.push(JUMP, (0, 0), 0, Some(to));
    }

    fn go_if(&mut self, condition: u16, k: u32, to: Label) {
        self.push(condition, (0, 1), k, None);
        self.go(to);
    }

    fn go_unless_equal(&mut self, k: u32, to: Label) {
        self.push(IF_EQUAL, (1, 0), k, None);
        self.go(to);
    }

    /// Goes on where the accumulator is one of these.
    fn one_of(&mut self, values: impl Iterator<Item = u32>, otherwise: Label) {
        let found = self.label();
        for value in values {
            self.go_if(IF_EQUAL, value, found);
        }
        self.go(otherwise);
        self.here(found);
    }

    fn assemble(self) -> Vec<SockFilter> {
        let labels = self.labels;
        let distance = |from: usize, to: Label| {
            let to = labels.get(to.0).copied().unwrap_or(from);
            to.saturating_sub(from + 1) as u32
        };
        let code = self.code.into_iter().enumerate();
        code.map(|(at, instruction)| {
            let k = instruction.to.map_or(instruction.k, |to| distance(at, to));
            SockFilter::new(
                instruction.code,
                instruction.if_true,
                instruction.if_false,
                k,
            )
        })
        .collect()
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
