//! The system calls of the running relay.
//!
//! Two filters. The first kills the process at calls that nothing in it makes by accident: running
//! programs, entering namespaces, tracing, loading code into the kernel. The second lets through
//! the calls listed below, each for the reason beside it, and fails any other with EPERM. Failing
//! rather than killing is deliberate: another libc or allocator may try a call of its own and do
//! without it, and the price of a kill is every connection of every container; to an attacker the
//! one is as useless as the other.
//!
//! Invariant: no file can be opened and no memory made executable. All sockets are IPv4 or IPv6,
//! stream or datagram: a raw or packet socket cannot be had even with the socket pool's capability. Nor can a rule,
//! route, address or interface be changed with the workers' CAP_NET_ADMIN: there is no netlink socket, no ioctl(2)
//! for it, and no socket option that leads to netfilter.
//!
//! Sources: seccomp(2), `linux/audit.h`; allow-lists are constant-time in the kernel since 5.11.

use super::sandbox::SandboxError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Calls without conditions on their arguments.
const ALLOWED: &[libc::c_long] = &[
    // Event loops: workers and the name server's runtime.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll, // std, tokio
    libc::SYS_ppoll,
    // Data of flows, in copies.
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg, // error queues, the control socket with its memfd
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg, // gate, UDP
    libc::SYS_sendmmsg,
    libc::SYS_read,  // eventfd of the runtime
    libc::SYS_write, // the same, and the log
    libc::SYS_readv,
    libc::SYS_writev,   // the log
    libc::SYS_pread64,  // snapshots, from their memfd
    libc::SYS_pwrite64, // counters, into a memfd of the helper's
    // Data of flows, not copied.
    libc::SYS_splice,
    libc::SYS_pipe2,
    // Sockets of flows; socket(2) and setsockopt(2) are below.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname, // where a tproxied connection was going
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_close,
    libc::SYS_fcntl, // pipe sizes, non-blocking, duplicates
    // Memory; mapping and protecting is below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Locks, clocks, random numbers (hash tables, DNS ids).
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // What a starting or ending thread does.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals: the return from a handler, and abort after a panic.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_tgkill,
    libc::SYS_gettid,
    libc::SYS_getpid,
];

/// Calls that nothing here makes by accident.
const KILLED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_pidfd_getfd,
];

/// Restricts all threads of the process, for good. Needs no_new_privs.
pub fn install() -> Result<(), SandboxError> {
    install_with(&[])
}

/// The same with more calls, for a process that is not quite the relay.
pub fn install_with(more: &[libc::c_long]) -> Result<(), SandboxError> {
    apply_filter_all_threads(&killing()?)?;
    apply_filter_all_threads(&allowing(more)?)?;
    Ok(())
}

fn killing() -> Result<BpfProgram, SandboxError> {
    let calls = KILLED.iter().map(|call| (number(*call), Vec::new()));
    compile(
        calls.collect(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )
}

fn allowing(more: &[libc::c_long]) -> Result<BpfProgram, SandboxError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(more)
        .map(|call| (number(*call), Vec::new()))
        .collect();
    calls.insert(number(libc::SYS_socket), sockets()?);
    calls.insert(number(libc::SYS_setsockopt), options()?);
    // No memory is made executable, in either way.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let bit = libc::PROT_EXEC as u64;
        let not_executable = condition(2, SeccompCmpOp::MaskedEq(bit), 0)?;
        calls.insert(number(call), vec![SeccompRule::new(vec![not_executable])?]);
    }
    // TIOCOUTQ: what a peer has not acknowledged. FIONREAD, FIONBIO: std and the runtime.
    calls.insert(
        number(libc::SYS_ioctl),
        one_of(1, &[libc::TIOCOUTQ, libc::FIONREAD, libc::FIONBIO])?,
    );
    // Names of threads, and of anonymous memory (malloc).
    calls.insert(
        number(libc::SYS_prctl),
        one_of(0, &[libc::PR_SET_NAME as u64, libc::PR_SET_VMA as u64])?,
    );
    compile(
        calls,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
    )
}

/// IPv4 or IPv6, stream or datagram.
fn sockets() -> Result<Vec<SeccompRule>, SandboxError> {
    // The rest of the type argument are SOCK_NONBLOCK and SOCK_CLOEXEC.
    const TYPE_MASK: u64 = 0xf;
    let mut rules = Vec::new();
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            rules.push(SeccompRule::new(vec![
                condition(0, SeccompCmpOp::Eq, domain as u64)?,
                condition(1, SeccompCmpOp::MaskedEq(TYPE_MASK), kind as u64)?,
            ])?);
        }
    }
    Ok(rules)
}

/// Options of sockets, TCP and UDP, and those of IP that are its own.
///
/// By numbers from 64 on, options of IP belong to others, all under CAP_NET_ADMIN: iptables
/// (IPT_SO_SET_REPLACE is 64, IPT_SO_SET_ADD_COUNTERS 65), arptables (96), ebtables (128), multicast
/// routing (200), IPVS (1152). Of IPv6, 64 and 65 are those of ip6tables, and IPv6 itself goes on above
/// (IPV6_RECVTCLASS is 66, IPV6_TRANSPARENT 75, IPV6_RECVFRAGSIZE 77). Below 64 it is the IPsec policies of a socket that
/// take the capability.
fn options() -> Result<Vec<SeccompRule>, SandboxError> {
    // linux/in.h: IP_IPSEC_POLICY, IP_XFRM_POLICY; linux/in6.h the same.
    const POLICIES_V4: [u64; 2] = [16, 17];
    const POLICIES_V6: [u64; 2] = [34, 35];
    let mut rules = one_of(
        1,
        &[libc::SOL_SOCKET, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(|level| level as u64),
    )?;
    for (level, range, without) in [
        (libc::IPPROTO_IP, 0..64, POLICIES_V4),
        (libc::IPPROTO_IPV6, 0..64, POLICIES_V6),
        (libc::IPPROTO_IPV6, 66..128, POLICIES_V6),
    ] {
        let mut conditions = vec![
            condition(1, SeccompCmpOp::Eq, level as u64)?,
            condition(2, SeccompCmpOp::Ge, range.start)?,
            condition(2, SeccompCmpOp::Lt, range.end)?,
        ];
        for policy in without {
            conditions.push(condition(2, SeccompCmpOp::Ne, policy)?);
        }
        rules.push(SeccompRule::new(conditions)?);
    }
    Ok(rules)
}

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, SandboxError> {
    values
        .iter()
        .map(|value| {
            let equal = condition(argument, SeccompCmpOp::Eq, *value)?;
            Ok(SeccompRule::new(vec![equal])?)
        })
        .collect()
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, SandboxError> {
    Ok(SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

fn compile(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(calls, otherwise, matching, architecture)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// c_long is i64 on the 64-bit architectures that the filters know.
fn number(call: libc::c_long) -> i64 {
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::own_netns::in_own_netns;
    use crate::sys::tcp_repair::set_at;
    use std::os::fd::AsFd;

    #[test]
    fn filters_compile_and_fit() {
        for filter in [killing().unwrap(), allowing(&[libc::SYS_unlinkat]).unwrap()] {
            // BPF_MAXINSNS.
            assert!((1..4096).contains(&filter.len()));
        }
    }

    /// In a process of its own, which may do all of it but for the filter.
    #[test]
    fn options_of_sockets_are_let_through_and_netfilters_are_not() {
        use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_PACKET, SOL_SOCKET};
        const NAME: &str = "options_of_sockets_are_let_through_and_netfilters_are_not";
        in_own_netns(module_path!(), NAME, || {
            let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
            // EPERM is not what the kernel says to root of the network namespace.
            let refused = |(level, option)| {
                let error = set_at(socket.as_fd(), level, option, &[-1]).err();
                error.and_then(|error| error.raw_os_error()) == Some(libc::EPERM)
            };
            let fine = [
                (SOL_SOCKET, libc::SO_REUSEADDR),
                (SOL_SOCKET, 1000),
                (IPPROTO_TCP, 19),
                (IPPROTO_UDP, libc::UDP_SEGMENT),
                (IPPROTO_IP, libc::IP_TRANSPARENT),
                (IPPROTO_IP, 63),
                (IPPROTO_IPV6, libc::IPV6_V6ONLY),
                (IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
                (IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
                (IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE),
            ];
            let others = [
                (IPPROTO_IP, 64),
                (IPPROTO_IP, 65),
                (IPPROTO_IP, 96),
                (IPPROTO_IP, 128),
                (IPPROTO_IP, 1152),
                (IPPROTO_IP, 16),
                (IPPROTO_IP, 17),
                (IPPROTO_IP, -1),
                (IPPROTO_IPV6, 64),
                (IPPROTO_IPV6, 65),
                (IPPROTO_IPV6, 128),
                (IPPROTO_IPV6, 200),
                (IPPROTO_IPV6, 34),
                (IPPROTO_IPV6, 35),
                (SOL_PACKET, 1),
                (libc::SOL_NETLINK, 1),
                (libc::SOL_RAW, 1),
            ];
            for option in fine.into_iter().chain(others) {
                assert!(!refused(option), "without a filter: {option:?}");
            }
            crate::relay::sandbox::no_new_privileges().unwrap();
            install().unwrap();
            for option in fine {
                assert!(!refused(option), "{option:?}");
            }
            for option in others {
                assert!(refused(option), "{option:?}");
            }
        });
    }

    #[test]
    fn nothing_is_both_allowed_and_killed() {
        assert!(KILLED.iter().all(|call| !ALLOWED.contains(call)));
    }
}
