//! Rows about what the kernel lets an unprivileged user do. Without most of it mossnet cannot run.
//!
//! Sources: user_namespaces(7), namespaces(7) (limits), apparmor(7) on Ubuntu 23.10 and later,
//! Documentation/networking/tproxy.rst.

use super::machine::Machine;
use super::probe::{Probe, Try};
use super::{Row, Status};
use nix::errno::Errno;

/// Oldest kernel that has every call mossnet makes: clone3 with pidfds, 5.3.
const OLDEST: (u32, u32) = (5, 3);
/// Since then capabilities in nested user namespaces behave as mossnet is tested with.
const TESTED: (u32, u32) = (5, 12);
/// Since then looking up a connected UDP socket does not slow down with their number.
const UDP_HASH: (u32, u32) = (6, 13);

const CANNOT_RUN: &str = "mossnet cannot make a network of its own";

pub(super) fn rows(machine: &Machine, probe: &Probe) -> Vec<Row> {
    vec![
        version(machine),
        user_namespaces(machine, probe),
        net_namespaces(machine, probe),
        module(
            "bridge",
            &probe.bridge,
            "bridge",
            "networks need bridges; mossnet cannot run",
        ),
        module(
            "veth",
            &probe.veth,
            "veth",
            "sandboxes are joined by veth; mossnet cannot run",
        ),
        module(
            "nft tproxy",
            &probe.nft_tproxy,
            "-a nf_tables nft_tproxy",
            "traffic cannot be led into the relay; mossnet cannot run",
        ),
        module(
            "packet sockets",
            &probe.packet_socket,
            "af_packet",
            "the gate cannot see connection attempts; mossnet cannot run",
        ),
        bandwidth(probe),
    ]
}

fn version(machine: &Machine) -> Row {
    const CHECK: &str = "kernel";
    let Some((major, minor)) = machine.kernel_version() else {
        return Row::degraded(CHECK, "unknown version", "nothing is known of this kernel");
    };
    let found = format!("Linux {major}.{minor}");
    let version = (major, minor);
    let newer = machine.install([
        "-t $(lsb_release -sc)-backports linux-image-$(dpkg --print-architecture)",
        "kernel",
        "linux",
        "kernel-default",
        "linux-lts",
    ]);
    if version < OLDEST {
        Row::missing(CHECK, found, "mossnet needs Linux 5.3 or later").mend(newer)
    } else if version < TESTED {
        Row::degraded(CHECK, found, "mossnet is tested with Linux 5.12 and later").mend(newer)
    } else if version < UDP_HASH {
        let means = "before Linux 6.13 thousands of UDP flows at once slow each other down";
        Row::degraded(CHECK, found, means).mend(newer)
    } else {
        Row::ok(CHECK, found, "has everything mossnet uses")
    }
}

pub(super) fn user_namespaces(machine: &Machine, probe: &Probe) -> Row {
    const CHECK: &str = "user namespaces";
    let steps = [
        &probe.user_namespace,
        &probe.id_map,
        &probe.nested_user_namespace,
    ];
    let Some(failed) = steps.into_iter().find(|step| !step.works()) else {
        return Row::ok(CHECK, "made one inside another", "rootless networks work");
    };
    let found = |cause: &str| format!("{cause} ({failed})");
    let row = |cause: &str| Row::missing(CHECK, found(cause), CANNOT_RUN);
    let sysctl = |name: &str, value: u64| format!("sudo sysctl -w {name}={value}");
    if !machine.has("/proc/self/ns/user") {
        return row("the kernel is built without them").mend(kernel_install(machine));
    }
    if machine.number("user.max_user_namespaces") == Some(0) {
        let mend = sysctl("user.max_user_namespaces", 65_536);
        return row("user.max_user_namespaces = 0").mend(mend);
    }
    if machine.number("kernel.unprivileged_userns_clone") == Some(0) {
        let mend = sysctl("kernel.unprivileged_userns_clone", 1);
        return row("kernel.unprivileged_userns_clone = 0").mend(mend);
    }
    if failed.errno() == Some(Errno::ENOSPC) || failed.errno() == Some(Errno::EUSERS) {
        let limit = machine.number("user.max_user_namespaces").unwrap_or(0);
        let cause = format!("all {limit} are in use, or they are nested too deep");
        return row(&cause).mend(sysctl("user.max_user_namespaces", 65_536.max(limit * 2)));
    }
    if machine.number("kernel.apparmor_restrict_unprivileged_userns") == Some(1) {
        let name = "kernel.apparmor_restrict_unprivileged_userns";
        let mend = apparmor_profile(machine).unwrap_or_else(|| sysctl(name, 0));
        return row(&format!("{name} = 1: AppArmor forbids them")).mend(mend);
    }
    if machine.own_status("Seccomp").as_deref() == Some("2") {
        let mend = "podman run --security-opt seccomp=unconfined IMAGE";
        return row("a seccomp filter forbids them, as in a container").mend(mend);
    }
    if machine
        .text("/sys/fs/selinux/enforce")
        .as_deref()
        .map(str::trim)
        == Some("1")
    {
        return row("the kernel forbids them, perhaps SELinux")
            .mend("sudo ausearch -m AVC,USER_AVC -ts recent");
    }
    row("the kernel forbids them, perhaps in a chroot").mend("sudo dmesg | tail")
}

/// Lets this program make them, and no other: `contrib/apparmor/mossnet` for wherever it is installed.
fn apparmor_profile(machine: &Machine) -> Option<String> {
    let program = std::fs::read_link(machine.path("/proc/self/exe")).ok()?;
    let program = program.to_str().filter(|path| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
        path.bytes().all(plain)
    })?;
    let file = "/etc/apparmor.d/mossnet";
    Some(format!(
        "echo 'abi <abi/4.0>, profile mossnet {program} flags=(unconfined) {{ userns, }}' | sudo tee {file} && sudo apparmor_parser -r {file}"
    ))
}

fn kernel_install(machine: &Machine) -> String {
    machine.install([
        "linux-image-$(dpkg --print-architecture)",
        "kernel",
        "linux",
        "kernel-default",
        "linux-lts",
    ])
}

fn net_namespaces(machine: &Machine, probe: &Probe) -> Row {
    const CHECK: &str = "net namespaces";
    const LIMIT: &str = "user.max_net_namespaces";
    match &probe.net_namespace {
        Try::Works => Row::ok(CHECK, "made one", "sandboxes get networks of their own"),
        Try::NotTried => untried(CHECK),
        Try::Fails { .. } if machine.number(LIMIT) == Some(0) => {
            Row::missing(CHECK, format!("{LIMIT} = 0"), CANNOT_RUN)
                .mend(format!("sudo sysctl -w {LIMIT}=65536"))
        }
        failed @ Try::Fails { .. } => {
            let row = Row::missing(CHECK, failed.to_string(), CANNOT_RUN);
            if failed.errno() == Some(Errno::ENOSPC) {
                return row.mend(format!("sudo sysctl -w {LIMIT}=131072"));
            }
            row.mend(kernel_install(machine))
        }
    }
}

fn bandwidth(probe: &Probe) -> Row {
    const CHECK: &str = "bandwidth";
    match &probe.bandwidth {
        Try::Works => Row::ok(CHECK, "can be limited", "--rate-in and --rate-out work"),
        Try::NotTried => untried(CHECK),
        failed @ Try::Fails { .. } => {
            let means = "--rate-in, --rate-out and CNI's capability bandwidth do not work";
            Row::degraded(CHECK, failed.to_string(), means)
                .mend("sudo modprobe -a sch_tbf ifb sch_ingress cls_u32 act_mirred")
        }
    }
}

/// Something that a kernel module brings, and that loads by itself where the module is installed.
fn module(check: &str, attempt: &Try, modules: &str, means: &str) -> Row {
    match attempt {
        Try::Works => Row::ok(
            check,
            "works in a namespace of our own",
            "as mossnet needs it",
        ),
        Try::NotTried => untried(check),
        failed @ Try::Fails { .. } => Row::new(check, Status::Missing, failed.to_string(), means)
            .mend(format!("sudo modprobe {modules}")),
    }
}

/// Not a finding of its own: the row that says why stands above.
fn untried(check: &str) -> Row {
    Row::degraded(
        check,
        "not tried",
        "cannot be tried without namespaces; see above",
    )
}
