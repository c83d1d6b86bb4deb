//! The kernel's answer to what mossnet will ask of it: a child process makes the same namespaces,
//! links and rules as the helper does, and is thrown away with all of them.
//!
//! Place: the hidden word `probe` of the binary, started by `doctor`; a process of its own since a
//! threaded one cannot unshare its user namespace. It writes one line of JSON to its standard
//! output. Invariant: it touches no namespace but its own.
//!
//! Sources: user_namespaces(7) (who may write which map), unshare(2).

use mossnet_helper::bandwidth::{Bandwidth, Rate};
use mossnet_helper::netlink::{Explain, Netlink, NewBridge, Refused};
use mossnet_helper::request::{Failure, NetworkRules, UplinkKind};
use mossnet_helper::router::{Port, hold};
use mossnet_helper::ruleset::{self, Families};
use mossnet_helper::{IfName, MacAddr, sysctl};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// What became of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Try {
    /// Something before it failed.
    #[default]
    NotTried,
    /// It works.
    Works,
    /// It does not.
    Fails {
        /// What was tried.
        what: String,
        /// The system call's error number, where one was at fault.
        errno: Option<i32>,
    },
}

impl Try {
    /// Whether it works.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }

    /// Why it does not.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Fails { errno, .. } => errno.map(Errno::from_raw),
            Self::NotTried | Self::Works => None,
        }
    }

    fn fails(what: &str, error: Errno) -> Self {
        Self::Fails {
            what: what.to_owned(),
            errno: Some(error as i32),
        }
    }

    fn of<T>(what: &str, result: Result<T, Errno>) -> Self {
        result.map_or_else(|error| Self::fails(what, error), |_| Self::Works)
    }
}

impl From<Failure> for Try {
    fn from(failure: Failure) -> Self {
        Self::Fails {
            what: failure.what,
            errno: failure.errno,
        }
    }
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried => f.write_str("not tried"),
            Self::Works => f.write_str("works"),
            Self::Fails { what, errno } => {
                let reason = errno.map(|errno| format!(": {}", Errno::from_raw(errno).desc()));
                write!(f, "{what}{}", reason.unwrap_or_default())
            }
        }
    }
}

/// Every attempt of the child.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// A user namespace.
    pub user_namespace: Try,
    /// Ourselves as its user 0.
    pub id_map: Try,
    /// A network namespace in it.
    pub net_namespace: Try,
    /// A bridge in that.
    pub bridge: Try,
    /// A veth pair in that.
    pub veth: Try,
    /// mossnet's own ruleset, tproxy and all, and a socket that tproxy may lead to.
    pub nft_tproxy: Try,
    /// An AF_PACKET socket.
    pub packet_socket: Try,
    /// A bandwidth for one end of the pair.
    pub bandwidth: Try,
    /// Another user namespace within, as sandboxes have.
    pub nested_user_namespace: Try,
}

/// Starts the child, which is `program` with the word `probe`, and reads its findings. One that
/// says nothing has tried nothing.
pub fn spawn(program: &Path) -> Probe {
    let mut command = Command::new(program);
    let command = command
        .arg("probe")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let found = command
        .output()
        .map(|output| read(&String::from_utf8_lossy(&output.stdout)));
    match found {
        Ok(Some(probe)) => probe,
        Ok(None) => silent("run the probe", None),
        Err(error) => silent("start the probe", error.raw_os_error()),
    }
}

fn silent(what: &str, errno: Option<i32>) -> Probe {
    Probe {
        user_namespace: Try::Fails {
            what: what.to_owned(),
            errno,
        },
        ..Probe::default()
    }
}

fn read(output: &str) -> Option<Probe> {
    output
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
}

/// The child: `mossnet probe`.
pub fn main() -> ExitCode {
    let probe = attempt();
    let line = serde_json::to_string(&probe).map_err(io::Error::from);
    match line.and_then(|line| writeln!(io::stdout(), "{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn attempt() -> Probe {
    let mut probe = Probe::default();
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let made = unshare(CloneFlags::CLONE_NEWUSER);
    probe.user_namespace = Try::of("unshare the user namespace", made);
    if !probe.user_namespace.works() {
        return probe;
    }
    probe.id_map = map_ids(uid, gid);
    if !probe.id_map.works() {
        return probe;
    }
    let made = unshare(CloneFlags::CLONE_NEWNET);
    probe.net_namespace = Try::of("unshare the network namespace", made);
    if probe.net_namespace.works() {
        probe.bridge = in_words(bridge());
        probe.veth = in_words(veth());
        probe.bandwidth = in_words(bandwidth());
        probe.nft_tproxy = in_words(nft_tproxy());
        let made = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        );
        probe.packet_socket = Try::of("open a packet socket", made);
    }
    // Last, since in there the network namespace is out of reach.
    let made = unshare(CloneFlags::CLONE_NEWUSER);
    probe.nested_user_namespace = match made {
        Ok(()) => map_ids(0, 0),
        Err(error) => Try::fails("unshare a nested user namespace", error),
    };
    probe
}

/// Becomes user and group 0 of a user namespace just made.
fn map_ids(uid: u32, gid: u32) -> Try {
    let files = [
        ("uid_map", format!("0 {uid} 1\n")),
        // The kernel demands it of whoever lacks CAP_SETGID outside.
        ("setgroups", "deny\n".to_owned()),
        ("gid_map", format!("0 {gid} 1\n")),
    ];
    for (file, text) in files {
        if let Err(error) = std::fs::write(format!("/proc/self/{file}"), text) {
            return Try::Fails {
                what: format!("write /proc/self/{file}"),
                errno: error.raw_os_error(),
            };
        }
    }
    Try::Works
}

fn in_words(result: Result<(), Failure>) -> Try {
    result.map_or_else(Try::from, |()| Try::Works)
}

fn name(name: &str) -> Result<IfName, Failure> {
    name.parse()
        .map_err(|_| Failure::invalid("interface name of the probe"))
}

fn mac(last: u8) -> Result<MacAddr, Failure> {
    MacAddr::try_from([2, 0, 0, 0, 0, last]).map_err(|_| Failure::invalid("MAC of the probe"))
}

fn route() -> Result<Netlink, Failure> {
    Netlink::route().map_err(|errno| Failure::kernel("open an rtnetlink socket", errno))
}

fn bridge() -> Result<(), Failure> {
    let name = name("br-probe")?;
    let bridge = NewBridge {
        name: &name,
        mac: Some(mac(1)?),
        mtu: 1500,
    };
    let made = route()?.add_bridge(bridge);
    made.map_err(|refused: Refused| refused.failure("make a bridge"))
}

fn veth() -> Result<(), Failure> {
    let (one, other) = (name("up0")?, name("up1")?);
    let made = route()?.add_veth_pair((&one, mac(2)?), (&other, mac(3)?), 1500);
    made.map_err(|refused| refused.failure("make a veth pair"))
}

fn bandwidth() -> Result<(), Failure> {
    let (one, turnaround) = (name("up0")?, name("if-probe")?);
    let mut route = route()?;
    let link = route.link(one.as_str());
    let link = link.map_err(|refused| refused.failure("look for a veth pair"))?;
    let link = link.ok_or_else(|| Failure::not_found("a veth pair is missing"))?;
    let rate = Rate::try_from(1_000_000);
    let rate = rate.map_err(|_| Failure::invalid("rate of the probe"))?;
    let both = Bandwidth {
        inward: Some(rate.into()),
        outward: Some(rate.into()),
    };
    let port = Port {
        index: link.index,
        mtu: link.mtu,
        turnaround: &turnaround,
        ifname: &one,
    };
    hold(&mut route, port, both)
}

fn nft_tproxy() -> Result<(), Failure> {
    let network = NetworkRules {
        bridge: name("br-probe")?,
        subnets: vec![ipnet::Ipv4Net::new_assert([10, 89, 0, 0].into(), 24).into()],
        gateways: vec![[10, 89, 0, 1].into()],
        internal: false,
        uplink: UplinkKind::Relay,
    };
    let families = Families {
        ipv6: sysctl::has_ipv6(),
    };
    let mut netfilter =
        Netlink::netfilter().map_err(|errno| Failure::kernel("open an nfnetlink socket", errno))?;
    ruleset::apply(&mut netfilter, &ruleset::ruleset(&[network], families))?;
    let transparent = |errno| Failure::kernel("make a transparent socket", errno);
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(transparent)?;
    setsockopt(&socket, sockopt::IpTransparent, &true).map_err(transparent)
}
