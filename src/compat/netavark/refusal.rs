//! Why something was not done, in the words that end up in podman's error message.

use super::state::StateError;
use ipnet::IpNet;
use mossnet_helper::NameError;
use mossnet_helper::request::Failure;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Bad arguments, in clap's words.
    #[error("{0}")]
    Usage(String),
    /// Standard input, or the file that takes its place, cannot be read.
    #[error("read {from}: {source}")]
    Read {
        /// Which.
        from: String,
        /// Why.
        source: io::Error,
    },
    /// It is too long.
    #[error("input of more than {most} bytes")]
    TooLong {
        /// What would be read.
        most: usize,
    },
    /// It is no JSON, or not of this kind.
    #[error("failed to load network options: {0}")]
    Json(#[from] serde_json::Error),
    /// A container's id, a network's name.
    #[error("{what} '{value}' is not one: letters, digits, '_', '.' and '-'")]
    Name {
        /// container id, network name.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// A container is on a network that is not described.
    #[error("network '{0}' has no entry in network_info")]
    NoInfo(String),
    /// Something is the matter with one network.
    #[error("network '{network}': {source}")]
    Network {
        /// Its name.
        network: String,
        /// What.
        source: NetworkRefusal,
    },
    /// Something is the matter with a port mapping.
    #[error("port mapping {port}: {source}")]
    Port {
        /// Port of the host.
        port: u16,
        /// What.
        source: PortRefusal,
    },
    /// The container's network namespace.
    #[error("open network namespace {}: {source}", path.display())]
    Netns {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and is something else.
    #[error("{} is not a network namespace", .0.display())]
    NotNetns(PathBuf),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Failure),
    /// The record of what is connected.
    #[error(transparent)]
    State(#[from] StateError),
    /// The name server's files, or the name server.
    #[error("name server: {what}: {source}")]
    Dns {
        /// What failed.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A network without containers, or one whose containers have no name server.
    #[error("network '{0}' has no name server that runs")]
    NoSuchZone(String),
    /// One of netavark's commands that this is not.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Several, of a teardown that went on.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Refusal>),
}

/// What is the matter with a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkRefusal {
    /// As netavark says it.
    #[error("unknown network driver {0}")]
    Driver(String),
    /// As netavark says it.
    #[error("no container interface name given")]
    NoInterface,
    /// As netavark says it.
    #[error("no bridge interface name given")]
    NoBridge,
    /// A name that no interface can have, or a MAC address that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// As netavark says it.
    #[error("no static ips provided")]
    NoAddresses,
    /// A subnet of which the container has no address.
    #[error("no address of {0} among the container's")]
    NoAddressOf(IpNet),
    /// An address in none of the subnets.
    #[error("address {0} is in none of the network's subnets")]
    Stray(IpAddr),
    /// An option's value.
    #[error("unable to parse \"{option}\": '{value}' is not {wanted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Options that do not go together, or that there is nothing for.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A route's destination has bits beyond its prefix, say.
    #[error("route to {destination}: {problem}")]
    Route {
        /// Where to.
        destination: IpNet,
        /// What is wrong.
        problem: &'static str,
    },
    /// The link whose wire is to be shared, or the bridge that is somebody else's, is not there.
    #[error("interface {0} does not exist")]
    NoParent(String),
    /// A new network's.
    #[error(transparent)]
    Create(#[from] CreateRefusal),
}

/// What is the matter with a network that does not exist yet.
#[derive(Debug, thiserror::Error)]
pub enum CreateRefusal {
    /// Podman looks for these words.
    #[error("it already exists")]
    Exists,
    /// Of podman's making, usually.
    #[error("id '{0}' is not 64 hexadecimal digits")]
    Id(String),
    /// An option that the driver does not have.
    #[error("unknown option '{option}' of a {driver} network; there are {known}")]
    UnknownOption {
        /// bridge, macvlan, ipvlan.
        driver: String,
        /// Its name.
        option: String,
        /// Those that there are.
        known: String,
    },
    /// As netavark says it.
    #[error("bridge name {0} already in use")]
    BridgeInUse(String),
    /// Or what begins so is no name.
    #[error("no free name of a bridge that begins with '{0}'; give one with --interface-name")]
    NoBridgeName(String),
    /// The kernel does not say which links there are.
    #[error(transparent)]
    Links(Failure),
    /// Addresses, and nobody who hands them out.
    #[error("subnets do not go with the ipam driver none")]
    SubnetsWithoutIpam,
    /// Nothing to hand out.
    #[error("the ipam driver host-local needs a subnet here; give one with --subnet")]
    NoSubnets,
    /// Resolvers that nobody would ask.
    #[error("it has DNS servers, but its names are not resolved: leave out --disable-dns or --dns")]
    ServersWithoutNames,
    /// As podman says it.
    #[error("subnet {0} is already used on the host or by another config")]
    SubnetInUse(IpNet),
    /// Of one network.
    #[error("its subnets {0} and {1} overlap")]
    Overlap(IpNet, IpNet),
    /// Nothing is left for a gateway, or for containers.
    #[error("subnet {0} has no address for a gateway; a shorter prefix has")]
    NoRoom(IpNet),
    /// A gateway, an end of the range.
    #[error("{what} {address} not in subnet {subnet}")]
    Outside {
        /// gateway, start_ip, end_ip.
        what: &'static str,
        /// Where it is.
        address: IpAddr,
        /// Where it should be.
        subnet: IpNet,
    },
    /// The wrong way round.
    #[error("its range of addresses begins with {0} and ends with {1}")]
    Range(IpAddr, IpAddr),
    /// default_subnet_pools of containers.conf(5).
    #[error(
        "default_subnet_pools: {base} has no subnets with prefixes of {size} bits; 30 are the most"
    )]
    Pool {
        /// Of which.
        base: IpNet,
        /// Length of the prefix.
        size: u8,
    },
    /// default_subnet_pools of containers.conf(5), again.
    #[error("no free subnet in {0}; give one with --subnet, or remove networks")]
    PoolsFull(String),
}

/// What is the matter with a port mapping.
#[derive(Debug, thiserror::Error)]
pub enum PortRefusal {
    /// Not one of tcp, udp, sctp.
    #[error("unknown protocol '{0}'")]
    Protocol(String),
    /// Not an address.
    #[error("host_ip '{0}' is not an address")]
    Address(String),
    /// Beyond 65535, or 0.
    #[error("the range leaves the ports 1 to 65535")]
    Range,
}
