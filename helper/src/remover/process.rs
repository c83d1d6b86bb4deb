//! What a remover does: a few threads, each with a netlink socket, take one order after another. Its
//! stdin is the socket by which they come, its stdout the network namespace.
//!
//! Invariant: CAP_NET_ADMIN over the router's user namespace, for one system call, is all that it has;
//! it opens nothing once it is ready, and ends when its socket is closed.

use super::joined;
use crate::netlink::Netlink;
use crate::privilege::{self, Class};
use crate::request::Failure;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::ExitCode;
use std::thread;

/// Removals of which the kernel clears up at the same time; further ones wait for a turn.
const THREADS: usize = 4;
/// Bytes; they call no deeper than recv(2).
const STACK: usize = 64 << 10;

/// The process, started by the helper.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("remover: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let failed = |errno: Errno| Failure::kernel("start the remover of links", errno);
    let (orders, netns) = (io::stdin(), io::stdout());
    setns(&netns, CloneFlags::CLONE_NEWNET).map_err(failed)?;
    let mut sockets = Vec::new();
    for _ in 0..THREADS {
        sockets.push(Netlink::route().map_err(failed)?);
    }
    privilege::keep_for_good(Class::Network)?;
    prctl::set_no_new_privs().map_err(failed)?;
    thread::scope(|scope| {
        for socket in sockets {
            let serving = thread::Builder::new().stack_size(STACK);
            serving
                .spawn_scoped(scope, || serve(orders.as_fd(), socket))
                .map_err(|e| Failure::kernel("start a thread of the remover", e))?;
        }
        Ok(())
    })
}

/// Until the helper closes its end.
fn serve(orders: BorrowedFd<'_>, mut netlink: Netlink) {
    loop {
        let mut order = [0; 4];
        match recv(orders.as_raw_fd(), &mut order, MsgFlags::empty()) {
            Ok(4) => {}
            Err(Errno::EINTR) => continue,
            Ok(_) | Err(_) => return,
        }
        let index = u32::from_ne_bytes(order);
        let errno = match netlink.remove_link(index) {
            Ok(()) => 0,
            Err(refused) => refused.errno as i32,
        };
        // Who has gone meanwhile sends no further orders.
        let _ = send(
            orders.as_raw_fd(),
            &joined(index, errno),
            MsgFlags::MSG_NOSIGNAL,
        );
    }
}
