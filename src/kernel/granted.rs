//! What an admin grants: the installed `mossnet-helper`, asked for what no user can do alone.
//!
//! Place: `daemon` asks here for ways through the host's kernel, `listeners` for sockets at low ports.
//! Invariant: whatever it does not grant is an error that says what an admin would write; all that needs
//! no grant works without it.

use crate::error::one_line;
use crate::ports::Proto;
use crate::sys::installed;
use ipnet::IpNet;
use mossnet_setuid::client::{CallError, Helper};
use mossnet_setuid::request::{Bind, Grants, Protocol, Unavailable, Verb};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use tracing::debug;

/// Where an admin says who may do what.
pub const GRANTS: &str = "/etc/mossnet/grants.toml";

/// Something that takes a grant was not done.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// No admin has installed it.
    #[error("`--uplink kernel` needs mossnet-helper, which is not installed on this host")]
    NotInstalled,
    /// It is there, but grants no uplink, or none to these subnets.
    #[error("mossnet-helper does not grant {user} an uplink{}", to(.missing))]
    NotGranted {
        /// Who asked.
        user: String,
        /// Subnets of no grant; none: any.
        missing: Vec<IpNet>,
    },
    /// It grants uplinks of one family only.
    #[error("mossnet-helper grants no {family} subnet that a network could have")]
    NoSubnet {
        /// IPv4 or IPv6.
        family: &'static str,
    },
    /// It was asked, and said no, or could not.
    #[error("{what}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        source: CallError,
    },
    /// Our own thread for the question.
    #[error("ask mossnet-helper")]
    Thread(#[source] tokio::task::JoinError),
}

fn to(missing: &[IpNet]) -> String {
    match missing {
        [] => String::new(),
        some => format!(" for {}", list(some)),
    }
}

fn list(nets: &[IpNet]) -> String {
    let texts: Vec<_> = nets.iter().map(IpNet::to_string).collect();
    texts.join(", ")
}

impl GrantError {
    /// What to do next.
    pub fn hint(&self) -> String {
        const WITHOUT: &str = "or leave --uplink out: relay needs no grant";
        match self {
            Self::NotInstalled => {
                format!("an admin can install it ('mossnet doctor' says where), {WITHOUT}")
            }
            Self::NotGranted { user, missing } => {
                let example = ["10.200.0.0/16".to_owned()];
                let subnets: Vec<_> = missing.iter().map(IpNet::to_string).collect();
                let subnets = if subnets.is_empty() {
                    &example[..]
                } else {
                    &subnets
                };
                format!(
                    "an admin can write in {GRANTS} or grants.d: {}; {WITHOUT}",
                    grant(user, subnets)
                )
            }
            Self::NoSubnet { .. } => {
                format!("an admin can grant one in {GRANTS}, {WITHOUT}")
            }
            Self::Refused { source, .. } => match source {
                CallError::Denied => {
                    "a quota may be used up: 'mossnet doctor' shows it, the system's log says why"
                        .to_owned()
                }
                _ => "see 'mossnet doctor', and the system's log".to_owned(),
            },
            Self::Thread(_) => "try again".to_owned(),
        }
    }
}

/// A grant of uplinks, as a file of one line.
pub fn grant(user: &str, subnets: &[String]) -> String {
    let subnets: Vec<_> = subnets
        .iter()
        .map(|subnet| format!("\"{subnet}\""))
        .collect();
    let subnets = subnets.join(", ");
    format!("grant = [{{ user = \"{user}\", verbs = [\"uplink\"], subnets = [{subnets}] }}]")
}

/// Asks, on a thread that may wait; `what` it was asked for.
pub async fn ask<T: Send + 'static>(
    what: &'static str,
    question: impl FnOnce(&Helper) -> Result<T, CallError> + Send + 'static,
) -> Result<T, GrantError> {
    let helper = installed::helper().ok_or(GrantError::NotInstalled)?;
    let answer = tokio::task::spawn_blocking(move || question(&helper)).await;
    let answer = answer.map_err(GrantError::Thread)?;
    answer.map_err(|source| GrantError::Refused { what, source })
}

/// Subnets that uplinks of this user may have; at least one.
pub async fn uplink_subnets() -> Result<Vec<IpNet>, GrantError> {
    let nothing = || GrantError::NotGranted {
        user: user_name(),
        missing: Vec::new(),
    };
    let asked = ask("ask mossnet-helper what it grants", Helper::query).await;
    let grants: Grants = match asked {
        Err(GrantError::Refused {
            source: CallError::Denied,
            ..
        }) => return Err(nothing()),
        asked => asked?,
    };
    match grants.verbs.contains(&Verb::Uplink) && !grants.subnets.is_empty() {
        true => Ok(grants.subnets),
        false => Err(nothing()),
    }
}

/// Refuses subnets that are in no granted one.
pub fn check_granted(wanted: &[IpNet], granted: &[IpNet]) -> Result<(), GrantError> {
    let within = |subnet: &&IpNet| granted.iter().any(|grant| grant.contains(*subnet));
    let missing: Vec<IpNet> = wanted.iter().filter(|s| !within(s)).copied().collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(GrantError::NotGranted {
            user: user_name(),
            missing,
        }),
    }
}

/// A socket at a port that is too low for users: a listening one, for TCP. EACCES where it is not
/// granted.
pub fn listener(proto: Proto, address: SocketAddr) -> io::Result<OwnedFd> {
    let helper = installed::helper().ok_or(io::ErrorKind::PermissionDenied)?;
    let protocol = match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    };
    helper.bind(Bind { protocol, address }).map_err(|error| {
        debug!(error = one_line(&error), %address, "low port not granted");
        let kind = match error {
            CallError::Unavailable(Unavailable::InUse) => io::ErrorKind::AddrInUse,
            CallError::Unavailable(Unavailable::Absent) => io::ErrorKind::AddrNotAvailable,
            _ => io::ErrorKind::PermissionDenied,
        };
        kind.into()
    })
}

/// Who we are, as grants name users.
pub fn user_name() -> String {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_of_no_grant_are_named_with_what_to_write() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let granted = nets(&["10.200.0.0/16", "fd00:200::/48"]);
        assert!(check_granted(&nets(&["10.200.7.0/24", "fd00:200::/64"]), &granted).is_ok());
        let wanted = nets(&["10.200.7.0/24", "10.89.0.0/24"]);
        let error = check_granted(&wanted, &granted).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("an uplink for 10.89.0.0/24"), "{text}");
        assert!(
            error.hint().contains("[\"10.89.0.0/24\"]"),
            "{}",
            error.hint()
        );
        assert!(error.hint().contains(GRANTS));
    }
}
