//! Every option that pasta knows: read, without effect here, or refused for a reason.
//!
//! Sources: pasta(1) of 2023 to 2025.

use super::getopt::Known;

/// Options that are read.
pub const READ: &[Known] = &[
    (Some('h'), "help", false),
    (None, "version", false),
    (Some('d'), "debug", false),
    (None, "trace", false),
    (Some('f'), "foreground", false),
    (Some('l'), "log-file", true),
    (Some('P'), "pid", true),
    (Some('m'), "mtu", true),
    (Some('a'), "address", true),
    (Some('n'), "netmask", true),
    (Some('g'), "gateway", true),
    (Some('i'), "interface", true),
    (Some('I'), "ns-ifname", true),
    (None, "ns-mac-addr", true),
    (Some('o'), "outbound", true),
    (None, "outbound-if4", true),
    (None, "outbound-if6", true),
    (Some('p'), "pcap", true),
    (None, "dns-forward", true),
    (None, "dns-host", true),
    (Some('D'), "dns", true),
    (None, "map-gw", false),
    (None, "no-map-gw", false),
    (None, "map-host-loopback", true),
    (None, "map-guest-addr", true),
    (None, "no-tcp", false),
    (None, "no-udp", false),
    (None, "no-icmp", false),
    (Some('4'), "ipv4-only", false),
    (Some('6'), "ipv6-only", false),
    (Some('t'), "tcp-ports", true),
    (Some('u'), "udp-ports", true),
    (Some('T'), "tcp-ns", true),
    (Some('U'), "udp-ns", true),
    (None, "userns", true),
    (None, "netns", true),
    (None, "netns-only", false),
    (None, "no-netns-quit", false),
    (None, "config-net", false),
];

/// Options that change nothing: there is no DHCP, NDP or ARP here to be set up or switched off, no MAC
/// address of a gateway, no short cut for local connections, no bound on the log but its rotation.
pub const WITHOUT_EFFECT: &[Known] = &[
    (Some('q'), "quiet", false),
    (Some('e'), "stderr", false),
    (None, "log-size", true),
    (None, "runas", true),
    (Some('M'), "mac-addr", true),
    (Some('S'), "search", true),
    (Some('H'), "hostname", true),
    (None, "fqdn", true),
    (None, "dhcp-dns", false),
    (None, "no-dhcp-dns", false),
    (None, "dhcp-search", false),
    (None, "no-dhcp-search", false),
    (None, "no-dhcp", false),
    (None, "no-ndp", false),
    (None, "no-dhcpv6", false),
    (None, "no-ra", false),
    (None, "no-splice", false),
    (None, "no-copy-routes", false),
    (None, "no-copy-addrs", false),
    (None, "stats", true),
];

/// Options of which nothing would come.
pub const REFUSED: &[(Known, &str)] = &[
    (
        (None, "host-lo-to-ns-lo", false),
        "a published port leads to the namespace's address, not to its loopback",
    ),
    (
        (None, "freebind", false),
        "ports are bound to addresses that the host has",
    ),
    ((Some('s'), "socket", true), PASST),
    ((None, "socket-path", true), PASST),
    ((Some('F'), "fd", true), PASST),
    ((Some('1'), "one-off", false), PASST),
    ((None, "vhost-user", false), PASST),
    ((None, "repair-path", true), PASST),
];

const PASST: &str = "it is for virtual machines (passt)";

/// One table for [`getopt`].
pub static ALL: std::sync::LazyLock<Vec<Known>> = std::sync::LazyLock::new(|| {
    let refused = REFUSED.iter().map(|(known, _)| *known);
    let kept = READ.iter().chain(WITHOUT_EFFECT).copied();
    kept.chain(refused).collect()
});
