//! A router netns with sandboxes of plain namespaces, and the relay, without daemon and helper: the
//! test hands the relay its snapshots and sockets itself.

use super::netns::{ip, within};
use mossnet::network::snapshot::{NetworkView, PublishView, Snapshot};
use mossnet::ports::{HostAddr, PublishSpec, SourceAddress};
use mossnet::sys::descriptors;
use mossnet_helper::request::{BridgeSpec, EndpointSpec, NetworkRules, UplinkKind};
use mossnet_helper::router::Router;
use mossnet_helper::{IfName, SandboxId};
use nix::sys::memfd::{MFdFlags, memfd_create};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything.
pub struct BareRelay {
    router: Router,
    networks: Vec<(BridgeSpec, bool)>,
    relay: Child,
    control: OwnedFd,
    pub snapshot: Snapshot,
    /// Duplicates, as the helper would keep them.
    pub listeners: Vec<OwnedFd>,
}

/// One test after the other runs in a process, but addresses are told apart anyway.
static ENDPOINTS: AtomicUsize = AtomicUsize::new(2);

impl BareRelay {
    /// Networks `10.89.N.0/24` and `fd00:89:N::/64`, N from 1; internal ones where it says `true`.
    pub fn start(internal: &[bool]) -> Self {
        Self::start_within(internal, 0)
    }

    /// The same, with a limit of open files; 0 for the usual one.
    pub fn start_within(internal: &[bool], limit: u32) -> Self {
        let mut router = Router::create().expect("a router netns");
        let mut networks = Vec::new();
        for (number, internal) in (1..).zip(internal) {
            let addresses = [
                format!("10.89.{number}.1/24"),
                format!("fd00:89:{number}::1/64"),
            ];
            let bridge = BridgeSpec {
                name: format!("br-net{number}").parse().unwrap(),
                mac: format!("02:42:0a:59:{number:02x}:01").parse().unwrap(),
                mtu: 1500,
                icc: true,
                vlan: None,
                addresses: addresses.map(|address| address.parse().unwrap()).into(),
            };
            networks.push((bridge, *internal));
        }
        let rules: Vec<_> = networks.iter().map(rules).collect();
        router.ruleset(&rules).expect("rules");
        for (bridge, _) in &networks {
            router.bridge(bridge).expect("a bridge");
        }
        let snapshot = Snapshot {
            generation: 1,
            networks: networks.iter().map(view).collect(),
            ..Snapshot::default()
        };
        let (relay, control) = spawn(&router, limit);
        let mut bare = Self {
            router,
            networks,
            relay,
            control,
            snapshot,
            listeners: Vec::new(),
        };
        assert_eq!(bare.answer(), "ready");
        assert_eq!(bare.tell(), "ok");
        bare
    }

    /// A netns on one network: its addresses.
    pub fn sandbox(&mut self, name: &str, network: usize) -> [IpAddr; 2] {
        let host = ENDPOINTS.fetch_add(1, Ordering::Relaxed);
        ip(None, &format!("netns add {name}\n"));
        within(name, || super::netns::ip(None, "link set lo up\n"));
        let netns = File::open(format!("/run/netns/{name}")).expect("the netns");
        let addresses = [
            format!("10.89.{network}.{host}/24"),
            format!("fd00:89:{network}::{host}/64"),
        ];
        let (bridge, internal) = &self.networks[network - 1];
        let gateways = bridge.addresses.iter().map(|gateway| gateway.addr());
        let spec = EndpointSpec {
            sandbox: SandboxId::from([host as u8; 32]),
            bridge: bridge.name.clone(),
            router_ifname: format!("ve-{name}").parse::<IfName>().unwrap(),
            ifname: "eth0".parse().unwrap(),
            mac: format!("02:42:0a:59:{network:02x}:{host:02x}")
                .parse()
                .unwrap(),
            mtu: 1500,
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            default_routes: if *internal {
                Vec::new()
            } else {
                gateways.collect()
            },
        };
        self.router.attach(&spec, netns.as_fd()).expect("attach");
        addresses.map(|address| address.split('/').next().unwrap().parse().unwrap())
    }

    /// Publishes, and hands over the sockets.
    pub fn publish(&mut self, spec: &str, targets: &[IpAddr]) {
        self.publish_as(spec, targets, SourceAddress::Keep);
    }

    /// The same with a policy.
    pub fn publish_as(&mut self, spec: &str, targets: &[IpAddr], source: SourceAddress) {
        let spec: PublishSpec = spec.parse().unwrap();
        let publish = spec.fixed(source).expect("fixed ports");
        let tcp = spec.proto() == mossnet::ports::Proto::Tcp;
        let ports = publish.host_ports().iter();
        let sockets: Vec<_> = ports
            .map(|port| listening(tcp, publish.host_addr(), port.get()))
            .collect();
        self.hand_over(&sockets);
        self.listeners.extend(sockets);
        self.snapshot.publishes.push(PublishView {
            sandbox: "box".into(),
            publish,
            targets: targets.to_vec(),
            inside: false,
            either_family: false,
        });
        assert_eq!(self.tell(), "ok");
    }

    /// Hands sockets to the relay.
    pub fn hand_over(&self, sockets: &[OwnedFd]) {
        for some in sockets.chunks(descriptors::MOST) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            assert_eq!(self.offer(&some), "ok");
        }
    }

    /// Hands a few sockets to the relay; its answer.
    pub fn offer(&self, sockets: &[BorrowedFd<'_>]) -> String {
        descriptors::send(self.control.as_fd(), b"listeners", sockets).expect("hand over");
        self.answer()
    }

    /// Gives the relay the snapshot; its answer.
    pub fn tell(&mut self) -> String {
        self.snapshot.generation += 1;
        let json = serde_json::to_string(&self.snapshot).unwrap();
        let mut file = File::from(memfd_create(c"snapshot", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all(json.as_bytes()).unwrap();
        let length = (json.len() as u64).to_le_bytes();
        descriptors::send(self.control.as_fd(), &length, &[file.as_fd()]).expect("a snapshot");
        self.answer()
    }

    /// What the published ports have seen.
    pub fn counters(&self) -> serde_json::Value {
        let mut file = File::from(memfd_create(c"counters", MFdFlags::MFD_CLOEXEC).unwrap());
        descriptors::send(self.control.as_fd(), b"counters", &[file.as_fd()]).unwrap();
        let answer = self.answer();
        let mut json = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut json).unwrap();
        assert_eq!(answer, format!("counted {}", json.len()));
        serde_json::from_str(&json).unwrap()
    }

    /// Ends it at once; what it published goes on being bound.
    pub fn kill(&mut self) {
        self.relay.kill().unwrap();
        self.relay.wait().unwrap();
    }

    /// Starts another one in its place.
    pub fn start_again(&mut self) {
        (self.relay, self.control) = spawn(&self.router, 0);
        assert_eq!(self.answer(), "ready");
        self.hand_over(&self.listeners);
        assert_eq!(self.tell(), "ok");
    }

    fn answer(&self) -> String {
        let mut buffer = [0; 512];
        let message = descriptors::receive(self.control.as_fd(), &mut buffer).expect("an answer");
        String::from_utf8(buffer[..message.length].to_vec()).unwrap()
    }
}

impl Drop for BareRelay {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

/// `limit`: of open files, 0 for the usual one.
fn spawn(router: &Router, limit: u32) -> (Child, OwnedFd) {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("a socket pair");
    let netns = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        router.netns().as_raw_fd()
    );
    let script = "[ \"$2\" = 0 ] || ulimit -n \"$2\"
        exec /run/world/bin/mossnet relay 3<&0 4<\"$1\" 0</dev/null";
    let relay = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([netns, limit.to_string()])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("the relay");
    (relay, ours.into())
}

/// A socket as the daemon makes it for a published port.
pub fn listening(tcp: bool, address: HostAddr, port: u16) -> OwnedFd {
    let (domain, ip): (_, IpAddr) = match address {
        HostAddr::Any => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        HostAddr::Only(ip) if ip.is_ipv4() => (Domain::IPV4, ip),
        HostAddr::Only(ip) => (Domain::IPV6, ip),
    };
    let (kind, protocol) = if tcp {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(domain, kind, Some(protocol)).unwrap();
    if domain == Domain::IPV6 {
        socket.set_only_v6(address != HostAddr::Any).unwrap();
    }
    if tcp {
        socket.set_reuse_address(true).unwrap();
    }
    socket.bind(&SocketAddr::new(ip, port).into()).unwrap();
    if tcp {
        socket.listen(4096).unwrap();
    }
    socket.into()
}

fn rules((bridge, internal): &(BridgeSpec, bool)) -> NetworkRules {
    NetworkRules {
        bridge: bridge.name.clone(),
        subnets: bridge.addresses.iter().map(|net| net.trunc()).collect(),
        gateways: bridge.addresses.iter().map(|net| net.addr()).collect(),
        internal: *internal,
        uplink: UplinkKind::Relay,
    }
}

fn view(network: &(BridgeSpec, bool)) -> NetworkView {
    let rules = rules(network);
    NetworkView {
        name: rules.bridge.to_string(),
        bridge: rules.bridge,
        subnets: rules.subnets,
        gateways: rules.gateways,
        internal: rules.internal,
        dns: Vec::new(),
        names: Vec::new(),
    }
}
