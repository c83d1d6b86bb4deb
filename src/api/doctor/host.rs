//! Rows about the host around mossnet: what it lacks makes one named feature less.
//!
//! Sources: icmp(7) (ping_group_range), ip(7) (ip_unprivileged_port_start), newuidmap(1), subuid(5),
//! RFC 8200 §5 (IPv6 needs 1280 bytes), resolv.conf(5).

use super::Row;
use super::attempts::Attempts;
use super::grants;
use super::machine::Machine;
use super::probe::Try;
use crate::network::resolv::HostResolver;
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr};

/// Ports that people publish start with HTTP's.
const USUAL_LOWEST_PORT: u64 = 80;
/// Two descriptors a TCP flow; 8,000 of them at once are plenty for one user.
const PLENTY_OF_FDS: u64 = 16_384;
/// As many as a sandbox's users and groups need: every 16-bit id.
const ENOUGH_IDS: u64 = 65_536;
/// Where systemd-resolved listens.
const RESOLVED_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Smallest MTU that carries IPv6, bytes.
const IPV6_MTU: u64 = 1280;

pub(super) fn rows(machine: &Machine, attempts: &Attempts) -> Vec<Row> {
    vec![
        directories(attempts),
        resolvers(machine, attempts),
        ipv4(machine),
        ipv6(machine),
        mtu(machine),
        ping(machine, attempts),
        low_ports(machine, attempts),
        grants::row(attempts.granted.as_ref()),
        subordinate_ids(machine, attempts),
        descriptors(attempts),
        tun(machine, attempts),
        uplink(machine, attempts, "pasta", ["passt"; 5]),
        uplink(machine, attempts, "slirp4netns", ["slirp4netns"; 5]),
    ]
}

fn directories(attempts: &Attempts) -> Row {
    const CHECK: &str = "directories";
    match &attempts.directories {
        Ok(()) => Row::ok(
            CHECK,
            "ours alone, and writable",
            "state and sockets have a place",
        ),
        Err((found, hint)) => Row::missing(
            CHECK,
            found,
            "mossnet has no place for its sockets and state",
        )
        .mend(format!("mossnet --root ~/.mossnet doctor   # {hint}")),
    }
}

fn resolvers(machine: &Machine, attempts: &Attempts) -> Row {
    const CHECK: &str = "resolvers";
    let text = machine.text("/etc/resolv.conf");
    let host = HostResolver::parse(text.as_deref().unwrap_or_default());
    let show = |(server, answers): &(_, bool)| match answers {
        true => format!("{server} answers"),
        false => format!("{server} is silent"),
    };
    let mut found: Vec<_> = attempts.resolvers.iter().map(show).collect();
    found.extend(
        host.warnings
            .iter()
            .map(|warning| format!("/etc/resolv.conf {warning}")),
    );
    let found = found.join(", ");
    let heard = attempts
        .resolvers
        .iter()
        .filter(|(_, answers)| *answers)
        .count();
    let silent = attempts.resolvers.iter().filter(|(_, answers)| !answers);
    let stub = silent
        .map(|(server, _)| server)
        .any(|server| *server == RESOLVED_STUB);
    let mend = if stub {
        "sudo systemctl restart systemd-resolved"
    } else {
        "echo 'nameserver ADDRESS' | sudo tee -a /etc/resolv.conf"
    };
    if heard == 0 {
        let means = "sandboxes resolve no outside names; --dns ADDRESS names another resolver";
        return Row::degraded(CHECK, found, means).mend(mend);
    }
    if heard < attempts.resolvers.len() {
        return Row::degraded(CHECK, found, "some outside names resolve slowly").mend(mend);
    }
    Row::ok(CHECK, found, "sandboxes resolve outside names")
}

fn ipv4(machine: &Machine) -> Row {
    const CHECK: &str = "IPv4";
    match machine.ipv4_default() {
        Some(interface) => Row::ok(CHECK, format!("default route by {interface}"), "reachable"),
        None => Row::degraded(
            CHECK,
            "no default route",
            "IPv4 connections from sandboxes fail at once, beyond what the host itself reaches",
        )
        .mend("sudo ip route add default via GATEWAY"),
    }
}

fn ipv6(machine: &Machine) -> Row {
    const CHECK: &str = "IPv6";
    const SWITCH: &str = "net.ipv6.conf.all.disable_ipv6";
    let means = "IPv6 connections from sandboxes fail at once, and programs turn to IPv4";
    if !machine.has("/proc/sys/net/ipv6") {
        return Row::degraded(CHECK, "not in this kernel", means).mend("sudo modprobe ipv6");
    }
    if machine.number(SWITCH) == Some(1) {
        let mend = format!("sudo sysctl -w {SWITCH}=0");
        return Row::degraded(CHECK, format!("{SWITCH} = 1"), means).mend(mend);
    }
    match machine.ipv6_default() {
        Some(interface) => Row::ok(CHECK, format!("default route by {interface}"), "reachable"),
        // Nothing on this machine gives it one: the network around it does.
        None => Row::degraded(CHECK, "no default route", means),
    }
}

fn mtu(machine: &Machine) -> Row {
    const CHECK: &str = "MTU";
    let Some(interface) = machine.ipv4_default().or_else(|| machine.ipv6_default()) else {
        return Row::ok(
            CHECK,
            "no default route",
            "sandboxes use the usual 1500 bytes",
        );
    };
    let path = format!("/sys/class/net/{interface}/mtu");
    let bytes = machine
        .text(&path)
        .and_then(|text| text.trim().parse::<u64>().ok());
    match bytes {
        Some(bytes) if bytes < IPV6_MTU => {
            let means = "IPv6 does not pass, and large UDP datagrams are cut into many";
            Row::degraded(CHECK, format!("{interface}: {bytes} bytes"), means)
                .mend(format!("sudo ip link set {interface} mtu 1500"))
        }
        Some(bytes) => {
            let means = "TCP is independent of it; larger UDP datagrams are fragmented";
            Row::ok(CHECK, format!("{interface}: {bytes} bytes"), means)
        }
        None => Row::ok(
            CHECK,
            format!("{interface}: unknown"),
            "the host's own affair",
        ),
    }
}

fn ping(machine: &Machine, attempts: &Attempts) -> Row {
    const CHECK: &str = "ping sockets";
    const RANGE: &str = "net.ipv4.ping_group_range";
    let range = machine
        .sysctl(RANGE)
        .and_then(|range| <[u64; 2]>::try_from(range).ok());
    let found = match range {
        Some([low, high]) if low > high => format!("{RANGE} = {low} {high}: nobody"),
        Some([low, high]) => format!("{RANGE} = {low} {high}"),
        None => format!("{RANGE} is absent"),
    };
    if attempts.ping.works() {
        return Row::ok(CHECK, found, "ping works in sandboxes");
    }
    let ours = range.is_some_and(|[low, high]| {
        attempts
            .gids
            .iter()
            .any(|gid| (low..=high).contains(&u64::from(*gid)))
    });
    let means = "ping from sandboxes to the world gets no answer";
    if ours {
        // The range is right; something else says no.
        let found = format!("{found}, but {}", attempts.ping);
        return Row::degraded(CHECK, found, means).mend("sudo dmesg | tail");
    }
    Row::degraded(CHECK, found, means).mend(format!("sudo sysctl -w {RANGE}='0 2147483647'"))
}

fn low_ports(machine: &Machine, attempts: &Attempts) -> Row {
    const CHECK: &str = "low ports";
    const START: &str = "net.ipv4.ip_unprivileged_port_start";
    const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
    let start = machine.number(START).unwrap_or(1024);
    let effective = machine.own_status("CapEff");
    let effective = effective
        .and_then(|mask| u64::from_str_radix(&mask, 16).ok())
        .unwrap_or(0);
    if effective & CAP_NET_BIND_SERVICE != 0 {
        return Row::ok(
            CHECK,
            "CAP_NET_BIND_SERVICE",
            "every host port can be published",
        );
    }
    let found = format!("{START} = {start}");
    if start <= USUAL_LOWEST_PORT {
        return Row::ok(CHECK, found, "host ports from there on can be published");
    }
    if let Some(ports) = grants::ports(attempts.granted.as_ref()) {
        let found = format!("{found}; mossnet-helper grants {ports}");
        return Row::ok(CHECK, found, "granted host ports can be published");
    }
    let means = "host ports below that cannot be published; those in sandboxes are free";
    Row::degraded(CHECK, found, means).mend(format!("sudo sysctl -w {START}={USUAL_LOWEST_PORT}"))
}

fn subordinate_ids(machine: &Machine, attempts: &Attempts) -> Row {
    const CHECK: &str = "newuidmap";
    let means = "sandboxes have one user, root; programs that change users (apt, su) fail there";
    let absent = |name: &str| machine.program(name, &attempts.search_path).is_none();
    if let Some(program) = ["newuidmap", "newgidmap"]
        .into_iter()
        .find(|name| absent(name))
    {
        let install = machine.install([
            "uidmap",
            "shadow-utils",
            "shadow",
            "shadow",
            "shadow-uidmap",
        ]);
        return Row::degraded(CHECK, format!("{program} is not installed"), means).mend(install);
    }
    let ids = |file| machine.subordinate_ids(file, &attempts.user, attempts.uid);
    let (uids, gids) = (ids("/etc/subuid"), ids("/etc/subgid"));
    let found = format!("{uids} user and {gids} group ids for {}", attempts.user);
    if uids.min(gids) == 0 {
        let range = "100000-165535";
        let mend = format!(
            "sudo usermod --add-subuids {range} --add-subgids {range} {}",
            attempts.user
        );
        return Row::degraded(CHECK, found, means).mend(mend);
    }
    if uids.min(gids) < ENOUGH_IDS {
        return Row::ok(
            CHECK,
            found,
            "sandboxes have several users, though not every id",
        );
    }
    Row::ok(CHECK, found, "sandboxes have users of their own")
}

fn descriptors(attempts: &Attempts) -> Row {
    const CHECK: &str = "descriptors";
    let limit = attempts.fd_limit;
    let found = format!("at most {limit} a process");
    if limit >= PLENTY_OF_FDS {
        return Row::ok(CHECK, found, "thousands of connections at once");
    }
    let means = format!(
        "some {} connections at once, all sandboxes together",
        limit / 2
    );
    let line = format!("{} hard nofile 524288", attempts.user);
    Row::degraded(CHECK, found, &means).mend(format!(
        "echo '{line}' | sudo tee /etc/security/limits.d/mossnet.conf"
    ))
}

fn tun(machine: &Machine, attempts: &Attempts) -> Row {
    const CHECK: &str = "/dev/net/tun";
    let means = "only --uplink pasta and --uplink slirp need it, and will not work";
    match &attempts.tun {
        Try::Works | Try::NotTried => {
            Row::ok(CHECK, "opens", "--uplink pasta and slirp can use it")
        }
        failed @ Try::Fails { .. } => {
            let denied = matches!(failed.errno(), Some(Errno::EACCES | Errno::EPERM));
            let exists = machine.has("/dev/net/tun");
            let mend = match (exists, denied) {
                (true, true) => "sudo chmod 0666 /dev/net/tun",
                (true, false) | (false, _) => "sudo modprobe tun",
            };
            Row::degraded(CHECK, failed.to_string(), means).mend(mend)
        }
    }
}

/// A user-mode network stack that can stand in for the relay.
fn uplink(machine: &Machine, attempts: &Attempts, name: &str, packages: [&str; 5]) -> Row {
    match machine.program(name, &attempts.search_path) {
        Some(program) => Row::ok(
            name,
            program.display().to_string(),
            "can be used as an uplink",
        ),
        None => {
            let word = if name == "pasta" { "pasta" } else { "slirp" };
            let means = format!("only --uplink {word} needs it, and will not work");
            Row::degraded(name, "not installed", &means).mend(machine.install(packages))
        }
    }
}
