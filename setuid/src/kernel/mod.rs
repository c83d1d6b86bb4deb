//! Objects of the host's kernel, each request made with the one capability that it needs raised.
//!
//! Links in namespaces of callers are reached by the number that the host's netns has for them
//! (IFLA_TARGET_NETNSID): this program never enters one.
//!
//! Sources: rtnetlink(7), veth(4), linux/if_link.h, linux/net_namespace.h.

pub mod link;
mod namespace_id;
pub mod nft;
mod route;
pub mod socket_table;
pub mod sysctl;

pub use namespace_id::NamespaceId;

use crate::privilege::{self, PrivilegeError};
use crate::sys;
use caps::Capability;
use mossnet_netlink::{Message, Refused, Socket};
use std::os::fd::AsFd;

/// A request to the kernel that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refused.
    #[error("{what}: {}{}", refused.errno.desc(), words(refused))]
    Refused {
        /// To do what.
        what: &'static str,
        /// How.
        refused: Refused,
    },
    /// The capability could not be raised.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A setting could not be read or written.
    #[error("{path}: {source}")]
    Setting {
        /// Where it is.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something that was just made is not there.
    #[error("{0} is not there")]
    Missing(&'static str),
}

impl KernelError {
    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        match self {
            Self::Refused { refused, .. } => Some(refused.errno),
            Self::Privilege(_) | Self::Setting { .. } | Self::Missing(_) => None,
        }
    }
}

fn words(refused: &Refused) -> String {
    let words = refused.words.as_deref();
    words.map(|words| format!(" ({words})")).unwrap_or_default()
}

type Result<T> = std::result::Result<T, KernelError>;

/// The host: the network namespace in which this program was started.
#[derive(Debug)]
pub struct Host {
    route: Socket,
    netfilter: Socket,
}

impl Host {
    /// Sockets to its kernel. Whoever opens one must have the capability too, not only whoever sends.
    pub fn open() -> Result<Self> {
        let failed = |what| move |errno| refused(what, errno);
        let opened = privilege::with(Capability::CAP_NET_ADMIN, || {
            (Socket::route(), Socket::netfilter())
        });
        let (route, netfilter) = opened?;
        Ok(Self {
            route: route.map_err(failed("open rtnetlink"))?,
            netfilter: netfilter.map_err(failed("open nfnetlink"))?,
        })
    }

    /// A number that only this network namespace has.
    pub fn cookie(&self) -> Result<u64> {
        let cookie = sys::netns_cookie(self.route.as_fd());
        cookie.map_err(|errno| refused("ask which network namespace this is", errno))
    }

    /// Ask for a change, with CAP_NET_ADMIN.
    fn change(&mut self, what: &'static str, message: Message) -> Result<()> {
        let route = &mut self.route;
        let done = privilege::with(Capability::CAP_NET_ADMIN, || route.request(message))?;
        done.map_err(|refused| KernelError::Refused { what, refused })
    }

    /// Look at every object of a kind, without any capability.
    fn dump(
        &mut self,
        what: &'static str,
        message: Message,
        take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let done = self.route.dump(message, take);
        done.map_err(|refused| KernelError::Refused { what, refused })
    }

    /// Look at one object, with CAP_NET_ADMIN: it may be in a caller's namespace.
    fn query(
        &mut self,
        what: &'static str,
        message: Message,
        take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let route = &mut self.route;
        let done = privilege::with(Capability::CAP_NET_ADMIN, || route.query(message, take))?;
        done.map_err(|refused| KernelError::Refused { what, refused })
    }
}

pub(crate) fn refused(what: &'static str, errno: nix::errno::Errno) -> KernelError {
    let refused = Refused::from(errno);
    KernelError::Refused { what, refused }
}
