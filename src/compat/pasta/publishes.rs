//! Ports of the host that lead into the namespace: those listed, and those that follow who listens there.
//!
//! Sockets are bound here, in the host's network namespace, and then kept for the relay. Invariant: the
//! listed ones are bound all or none; of the others, whoever has a port on the host keeps it.

use super::spec::{Listed, Ports};
use crate::kernel::listeners::{BindError, bind_port_of};
use crate::network::snapshot::PublishView;
use crate::ports::{HostAddr, Port, PortError, PortRange, Proto, Publish, SourceAddress};
use mossnet_helper::relay::Relay;
use mossnet_helper::request::{Failure, MAX_LISTENERS};
use nix::sys::resource::{Resource, getrlimit};
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// Why a port does not lead there.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No socket hears only what comes by that interface.
    #[error("bind {proto} port {port} to interface {interface}: {source}")]
    Interface {
        /// Protocol.
        proto: Proto,
        /// Port.
        port: Port,
        /// Interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// None of them is free.
    #[error("no {0} port of those that may be taken is free")]
    NoneFree(Proto),
    /// The rest of the files are for connections.
    #[error(
        "{count} ports take as many open files, and the limit is {limit}: forward fewer, or raise it (ulimit -Hn)"
    )]
    TooMany {
        /// How many.
        count: usize,
        /// Open files.
        limit: u64,
    },
    /// The same port of the same address for two interfaces.
    #[error("{0} is forwarded twice")]
    Twice(String),
    /// More than there are.
    #[error(transparent)]
    Ports(#[from] PortError),
}

/// What is forwarded.
#[derive(Debug, Default)]
pub struct Publishes {
    fixed: Vec<Publish>,
    keys: BTreeSet<String>,
    /// Sockets that have not been handed over.
    new: BTreeMap<String, OwnedFd>,
    /// Those that follow.
    auto: BTreeSet<(Proto, Port)>,
}

fn key(proto: Proto, addr: HostAddr, port: Port) -> String {
    format!("{addr}:{port}/{proto}")
}

fn publish(proto: Proto, addr: HostAddr, range: PortRange, to: Port) -> Result<Publish, PortError> {
    Publish::new(addr, range, to, proto, SourceAddress::Keep)
}

impl Publishes {
    /// Binds what is listed: TCP, UDP.
    pub fn bind(inward: &[Ports; 2]) -> Result<Self, PublishError> {
        let mut all = Self::default();
        for (ports, proto) in inward.iter().zip([Proto::Tcp, Proto::Udp]) {
            match ports {
                Ports::Listed(listed) => {
                    for listed in listed {
                        all.bind_listed(proto, listed)?;
                    }
                }
                Ports::Open(listed) => all.bind_open(proto, listed)?,
                Ports::Unsaid | Ports::None | Ports::Auto => {}
            }
        }
        Ok(all)
    }

    fn bind_listed(&mut self, proto: Proto, listed: &Listed) -> Result<(), PublishError> {
        for (range, to) in listed.runs() {
            let publish = publish(proto, listed.addr, range, to)?;
            for port in range.iter() {
                let socket = bind_one(&publish, port, listed.interface.as_deref())?;
                self.hold(proto, listed.addr, port, socket)?;
            }
            self.fixed.push(publish);
        }
        Ok(())
    }

    /// What is free of it.
    fn bind_open(&mut self, proto: Proto, all: &[Listed]) -> Result<(), PublishError> {
        let count: usize = all.iter().map(|listed| listed.ports.len()).sum();
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
        if u64::try_from(count).is_ok_and(|count| count > limit / 2) {
            return Err(PublishError::TooMany { count, limit });
        }
        let before = self.fixed.len();
        for listed in all {
            let mut bound = listed.clone();
            bound.ports.clear();
            for (port, to) in &listed.ports {
                let publish = publish(proto, listed.addr, PortRange::one(*port), *to)?;
                match bind_one(&publish, *port, listed.interface.as_deref()) {
                    Ok(socket) => {
                        self.hold(proto, listed.addr, *port, socket)?;
                        bound.ports.insert(*port, *to);
                    }
                    Err(PublishError::Bind(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            for (range, to) in bound.runs() {
                self.fixed.push(publish(proto, listed.addr, range, to)?);
            }
        }
        match self.fixed.len() == before {
            true => Err(PublishError::NoneFree(proto)),
            false => Ok(()),
        }
    }

    fn hold(
        &mut self,
        proto: Proto,
        addr: HostAddr,
        port: Port,
        socket: OwnedFd,
    ) -> Result<(), PublishError> {
        let key = key(proto, addr, port);
        match self.keys.insert(key.clone()) {
            true => {
                self.new.insert(key, socket);
                Ok(())
            }
            false => Err(PublishError::Twice(key)),
        }
    }

    /// Lets exactly `wanted` follow, as far as the host's ports are free; whether something changed.
    pub fn follow(&mut self, wanted: &BTreeSet<(Proto, Port)>) -> bool {
        let gone: Vec<_> = self.auto.difference(wanted).copied().collect();
        for (proto, port) in &gone {
            let key = key(*proto, HostAddr::Any, *port);
            self.keys.remove(&key);
            self.new.remove(&key);
            self.auto.remove(&(*proto, *port));
        }
        let come: Vec<_> = wanted.difference(&self.auto).copied().collect();
        let mut changed = !gone.is_empty();
        for (proto, port) in come {
            let key = key(proto, HostAddr::Any, port);
            let publish = publish(proto, HostAddr::Any, PortRange::one(port), port);
            // Somebody has it on the host, or it is too low for users: it may be free the next time.
            let Some(socket) = publish.ok().and_then(|p| bind_one(&p, port, None).ok()) else {
                continue;
            };
            if self.keys.insert(key.clone()) {
                self.new.insert(key, socket);
                self.auto.insert((proto, port));
                changed = true;
            }
        }
        changed
    }

    /// For the relay.
    pub fn views(&self, targets: &[IpAddr]) -> Vec<PublishView> {
        let auto = self.auto.iter();
        let auto = auto.filter_map(|(proto, port)| {
            publish(*proto, HostAddr::Any, PortRange::one(*port), *port).ok()
        });
        let view = |publish| PublishView {
            sandbox: "pasta".to_owned(),
            publish,
            targets: targets.to_vec(),
            either_family: false,
            inside: false,
        };
        self.fixed.iter().copied().chain(auto).map(view).collect()
    }

    /// Keys of all sockets.
    pub fn keys(&self) -> Vec<String> {
        self.keys.iter().cloned().collect()
    }

    /// Hands new sockets to whoever keeps them.
    pub fn hand_over(&mut self, relay: &mut Relay) -> Result<(), Failure> {
        while !self.new.is_empty() {
            let (mut keys, mut sockets) = (Vec::new(), Vec::new());
            while keys.len() < MAX_LISTENERS
                && let Some((key, socket)) = self.new.pop_first()
            {
                keys.push(key);
                sockets.push(socket);
            }
            relay.keep(keys, sockets)?;
        }
        Ok(())
    }

    /// The host's ports that are ours.
    pub fn own(&self) -> BTreeSet<(Proto, Port)> {
        let fixed = self.fixed.iter().flat_map(|publish| {
            let proto = publish.proto();
            publish.host_ports().iter().map(move |port| (proto, port))
        });
        fixed.chain(self.auto.iter().copied()).collect()
    }
}

fn bind_one(
    publish: &Publish,
    port: Port,
    interface: Option<&str>,
) -> Result<OwnedFd, PublishError> {
    let socket = bind_port_of(publish, port)?;
    if let Some(name) = interface {
        let bound = SockRef::from(&socket).bind_device(Some(name.as_bytes()));
        bound.map_err(|source| PublishError::Interface {
            proto: publish.proto(),
            port,
            interface: name.to_owned(),
            source,
        })?;
    }
    Ok(socket)
}
