//! One command in user, network, mount, process, IPC and UTS namespaces of its own, for a program that
//! serves it without being the helper (the pasta drop-in).
//!
//! Its user namespace is nested in the caller's, so that it has every capability over its own network
//! namespace and none over the caller's. Invariant: it ends with its maker; it runs nothing before it is
//! let go.
//!
//! Sources: clone(2), user_namespaces(7), PR_SET_PDEATHSIG in prctl(2), pid_namespaces(7).

use crate::namespace::IdMapping;
use crate::request::Failure;
use crate::sys::{inheritance, process};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, execvp};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

/// Exit codes of a command that could not be executed, as a shell's.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTED: i32 = 126;

/// A command that waits.
#[derive(Debug)]
pub struct Alone {
    /// It, a child of the caller.
    pub pid: Pid,
    /// Its network namespace.
    pub netns: OwnedFd,
    go: PipeWriter,
}

/// Make it. The caller has one thread; `mapping` is that of its user namespace.
pub fn make(argv: &[CString], mapping: &IdMapping) -> Result<Alone, Failure> {
    let failed = |what: &'static str| move |e: io::Error| Failure::kernel(what, e);
    let (wait, go) = io::pipe().map_err(failed("make a pipe"))?;
    let closed_in_child = go.try_clone().map_err(failed("make a pipe"))?;
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let live = |_: &process::SingleThreaded| {
        drop(closed_in_child);
        live(wait, argv)
    };
    let (pid, _) = process::spawn(flags, live).map_err(|errno| {
        crate::namespace::refused("make namespaces for the command", errno.into())
    })?;
    let count = mapping.count();
    let write = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        let written = fs::write(&path, format!("0 0 {count}"));
        written.map_err(|e| Failure::kernel(format!("write {path}"), e))
    };
    write("uid_map")?;
    write("gid_map")?;
    let netns = File::open(format!("/proc/{pid}/ns/net"));
    Ok(Alone {
        pid,
        netns: netns
            .map_err(failed("open the command's network namespace"))?
            .into(),
        go,
    })
}

impl Alone {
    /// Let it run.
    pub fn go(mut self) -> Result<(), Failure> {
        let told = self.go.write_all(b"g");
        told.map_err(|e| Failure::kernel("start the command", e))
    }
}

/// The child's whole life.
fn live(mut wait: PipeReader, argv: &[CString]) -> i32 {
    let mut told = [0];
    if set_pdeathsig(Signal::SIGKILL).is_err() || wait.read_exact(&mut told).is_err() {
        return NOT_EXECUTED;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let none = None::<&str>;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Inside a container that masks /proc it cannot be had; processes are then those of outside.
    let _ = mount(none, "/", none, private, none)
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), quiet, none));
    process::default_signals();
    let _ = SigSet::empty().thread_set_mask();
    inheritance::close_others_on_exec();
    crate::limits::restore();
    let Some(program) = argv.first() else {
        return NOT_EXECUTED;
    };
    let errno = execvp(program, argv).err().unwrap_or(Errno::UnknownErrno);
    let name = program.to_string_lossy();
    let _ = writeln!(
        io::stderr(),
        "pasta (mossnet): execute {name}: {}",
        errno.desc()
    );
    match errno {
        Errno::ENOENT => NOT_FOUND,
        _ => NOT_EXECUTED,
    }
}
