//! The record as text, one thing a line, fields separated by a space. Whatever is not exactly of this
//! form is damage, and a damaged record grants nothing.

use super::{Allowance, Link, LinkKind, MAX_ID, Record, Socket};
use crate::request::Protocol;
use std::fmt::{self, Write};
use std::str::FromStr;

const HEAD: &str = "mossnet-helper record 1";

/// The record is not what this program has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the record is damaged")]
pub struct Damaged {
    /// Which line, from 1.
    pub line: usize,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\nnext {}", self.next)?;
        for (uid, allowance) in &self.allowances {
            writeln!(f, "turns {uid} {} {}", allowance.left, allowance.at)?;
        }
        for link in &self.links {
            let kind = word(link.kind);
            let Link {
                id,
                uid,
                index,
                name,
                namespace,
                host_mac,
                inside_mac,
                ..
            } = link;
            write!(
                f,
                "link {id} {uid} {kind} {index} {name} {namespace} {host_mac} {inside_mac} "
            )?;
            let mut prefixes = String::new();
            for prefix in &link.prefixes {
                write!(prefixes, ",{prefix}")?;
            }
            writeln!(
                f,
                "{}",
                if prefixes.is_empty() {
                    "-"
                } else {
                    &prefixes[1..]
                }
            )?;
        }
        for socket in &self.sockets {
            let protocol = match socket.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let Socket {
                id,
                uid,
                port,
                inode,
                ..
            } = socket;
            write!(f, "socket {id} {uid} {protocol} {port} {inode} ")?;
            match socket.published {
                Some((uplink, target)) => writeln!(f, "{uplink} {target}")?,
                None => writeln!(f, "- -")?,
            }
        }
        Ok(())
    }
}

fn word(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Veth => "veth",
        LinkKind::Bridge => "bridge",
        LinkKind::Uplink => "uplink",
    }
}

impl FromStr for Record {
    type Err = Damaged;

    fn from_str(text: &str) -> Result<Self, Damaged> {
        let mut record = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            let known = match line {
                1 => (content == HEAD).then_some(()),
                _ => record.add(content),
            };
            known.ok_or(Damaged { line })?;
        }
        // What is cut is damaged, too.
        match record.to_string() == text {
            true => Ok(record),
            false => Err(Damaged { line: 0 }),
        }
    }
}

impl Record {
    fn add(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields.as_slice() {
            ["next", next] => self.next = id(next)?,
            ["turns", uid, left, at] => {
                let allowance = Allowance {
                    left: left.parse().ok()?,
                    at: at.parse().ok()?,
                };
                self.allowances.insert(uid.parse().ok()?, allowance);
            }
            ["link", rest @ ..] => self.links.push(link(rest)?),
            ["socket", rest @ ..] => self.sockets.push(socket(rest)?),
            _ => return None,
        }
        Some(())
    }
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

fn link(fields: &[&str]) -> Option<Link> {
    let [
        number,
        uid,
        kind,
        index,
        name,
        namespace,
        host_mac,
        inside_mac,
        prefixes,
    ] = fields
    else {
        return None;
    };
    let all = [LinkKind::Veth, LinkKind::Bridge, LinkKind::Uplink];
    let prefixes = match *prefixes {
        "-" => Vec::new(),
        list => list
            .split(',')
            .map(|one| one.parse().ok())
            .collect::<Option<_>>()?,
    };
    Some(Link {
        id: id(number)?,
        uid: uid.parse().ok()?,
        kind: all.into_iter().find(|one| word(*one) == *kind)?,
        index: index.parse().ok()?,
        name: name.parse().ok()?,
        namespace: namespace.parse().ok()?,
        host_mac: host_mac.parse().ok()?,
        inside_mac: inside_mac.parse().ok()?,
        prefixes,
    })
}

fn socket(fields: &[&str]) -> Option<Socket> {
    let [number, uid, protocol, port, inode, uplink, target] = fields else {
        return None;
    };
    Some(Socket {
        id: id(number)?,
        uid: uid.parse().ok()?,
        protocol: match *protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        },
        port: port.parse().ok()?,
        inode: inode.parse().ok()?,
        published: match (*uplink, *target) {
            ("-", "-") => None,
            (uplink, target) => Some((id(uplink)?, target.parse().ok()?)),
        },
    })
}
