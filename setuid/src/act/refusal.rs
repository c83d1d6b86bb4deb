//! Why a request was not performed. The admin reads it in the log; the caller sees what [`Refusal::reply`]
//! makes of it.

use crate::kernel::KernelError;
use crate::namespace::NotOwned;
use crate::policy::LoadError;
use crate::record::StoreError;
use crate::request::{Protocol, Reply, Unavailable, Verb};
use crate::trusted::Untrusted;
use crate::wire::Malformed;
use ipnet::IpNet;
use nix::errno::Errno;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing is granted to the caller.
    #[error("nothing is granted")]
    NoGrant,
    /// The verb is not granted.
    #[error("the verb {0:?} is not granted")]
    Verb(Verb),
    /// Descriptors too many or too few.
    #[error("{got} descriptors instead of {wanted}")]
    Descriptors {
        /// How many the request wants.
        wanted: usize,
        /// How many came.
        got: usize,
    },
    /// No request of ours.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The policy cannot be used.
    #[error("policy: {0}")]
    Policy(#[from] LoadError),
    /// Nor the list of users and groups.
    #[error("accounts: {0}")]
    Accounts(#[from] Untrusted),
    /// The namespace is not the caller's.
    #[error(transparent)]
    NotOwned(#[from] NotOwned),
    /// The subnet is not granted.
    #[error("the subnet {0} is not granted")]
    Subnet(IpNet),
    /// The bridge is not granted.
    #[error("the bridge {0} is not granted")]
    BridgeNotGranted(String),
    /// An address is not granted on that bridge.
    #[error("an address is not granted on the bridge {0}")]
    Address(String),
    /// What the grant calls a bridge is none: a physical interface, say.
    #[error("{0} is not a bridge")]
    NotABridge(String),
    /// The port is not granted.
    #[error("the port {port} ({protocol:?}) is not granted")]
    Port {
        /// Protocol.
        protocol: Protocol,
        /// Port.
        port: u16,
    },
    /// As much as the quota allows is there.
    #[error("the quota of {most} {what} is used up")]
    Quota {
        /// Of what.
        what: &'static str,
        /// How many.
        most: u32,
    },
    /// Too many requests.
    #[error("more than {most} requests in a minute")]
    Rate {
        /// How many are allowed.
        most: u32,
    },
    /// Not a link that was made for the caller.
    #[error("no such link was made for the caller")]
    NotMade,
    /// The socket proves nothing.
    #[error("the socket is none that listens in the host, of the target's family")]
    Socket,
    /// The target is not behind the uplink.
    #[error("the target {0} is not behind the uplink")]
    Target(std::net::SocketAddr),
    /// The record cannot be used.
    #[error("record: {0}")]
    Store(#[from] StoreError),
    /// A namespace of the caller's that is just ending has the subnet still.
    #[error("another uplink of the caller has the subnet")]
    Leaving,
    /// It would be granted.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// It would be granted, but the kernel has refused.
    #[error("kernel: {0}")]
    Kernel(#[from] KernelError),
    /// A system call that does not fail has failed.
    #[error("system: {}", .0.desc())]
    System(Errno),
}

impl Refusal {
    /// What the caller is told.
    pub fn reply(&self) -> Reply {
        match self {
            Self::NoGrant
            | Self::Verb(_)
            | Self::Descriptors { .. }
            | Self::Malformed(_)
            | Self::Policy(_)
            | Self::Accounts(_)
            | Self::NotOwned(_)
            | Self::Subnet(_)
            | Self::BridgeNotGranted(_)
            | Self::Address(_)
            | Self::NotABridge(_)
            | Self::Port { .. }
            | Self::Quota { .. }
            | Self::Rate { .. }
            | Self::NotMade
            | Self::Socket
            | Self::Target(_)
            | Self::System(_) => Reply::Denied,
            Self::Store(StoreError::Locked { .. }) => Reply::Unavailable(Unavailable::Busy),
            Self::Store(_) => Reply::Denied,
            Self::Leaving => Reply::Unavailable(Unavailable::SubnetInUse),
            Self::Unavailable(reason) => Reply::Unavailable(*reason),
            Self::Kernel(error) => Reply::Unavailable(match error.errno() {
                Some(Errno::EEXIST | Errno::EADDRINUSE) => Unavailable::InUse,
                Some(Errno::EADDRNOTAVAIL) => Unavailable::Absent,
                _ => Unavailable::Kernel,
            }),
        }
    }
}
