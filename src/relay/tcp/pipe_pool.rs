//! Pipes for splice(2), lent to a direction of a flow only while bytes are in them.
//!
//! Invariant: a pipe that is given back is empty; the number of pipes has a bound, since all pipes
//! of a user share one quota of pages (`fs.pipe-user-pages-soft`, pipe(7)), beyond which everybody
//! gets small ones.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::os::fd::OwnedFd;

/// Requested pipe size, bytes. One page of it is a slot, and a slot holds a whole fragment (up to
/// 32 KiB) of a received packet, so that the pipe carries several times this.
pub const PIPE_SIZE: libc::c_int = 256 * 1024;

/// A pipe of less than this, bytes, is slower than copying: others of the same user have its
/// quota then.
const PIPE_LEAST: libc::c_int = 64 * 1024;

/// How often to do without a pipe before another one is tried.
const PAUSE: u32 = 1024;

/// Most pipes of one worker: with four workers half of the default quota of 16,384 pages.
const MAX_PIPES: usize = 32;

/// A pipe, both ends.
#[derive(Debug)]
pub struct Pipe {
    /// Where bytes come out.
    pub read: OwnedFd,
    /// Where they go in.
    pub write: OwnedFd,
}

/// One worker's pipes.
#[derive(Debug, Default)]
pub struct PipePool {
    idle: Vec<Pipe>,
    lent: usize,
    /// Requests to be turned down before a pipe is made again.
    pause: u32,
}

impl PipePool {
    /// An empty pipe. `None` where all are lent, or none can be made: then the bytes are copied.
    pub fn take(&mut self) -> Option<Pipe> {
        if self.lent >= MAX_PIPES {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None if self.pause > 0 => {
                self.pause -= 1;
                return None;
            }
            None => match make() {
                Some(pipe) => pipe,
                None => {
                    self.pause = PAUSE;
                    return None;
                }
            },
        };
        self.lent += 1;
        Some(pipe)
    }

    /// Gives back an empty pipe.
    pub fn give_back(&mut self, pipe: Pipe) {
        self.lent -= 1;
        self.idle.push(pipe);
    }

    /// Closes a lent pipe that still holds bytes of a flow that broke.
    pub fn discard(&mut self, pipe: Pipe) {
        self.lent -= 1;
        drop(pipe);
    }

    /// Another worker's pool gets back `count` lent pipes.
    pub fn go(&mut self, count: usize) {
        self.lent -= count;
    }

    /// `count` pipes that another worker's pool has lent will be given back here.
    pub fn come(&mut self, count: usize) {
        self.lent += count;
    }

    /// Pipes that are lent.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Closes the idle ones.
    pub fn shrink(&mut self) {
        self.idle = Vec::new();
    }
}

fn make() -> Option<Pipe> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .inspect_err(|error| tracing::debug!(%error, "no pipe, copying"))
        .ok()?;
    // Beyond the quota (EPERM) a pipe has two slots, or one.
    let size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE))
        .or_else(|_| fcntl(&write, FcntlArg::F_GETPIPE_SZ));
    if size.is_ok_and(|size| size < PIPE_LEAST) {
        tracing::debug!("only a small pipe to be had, copying");
        return None;
    }
    Some(Pipe { read, write })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_used_again_and_bounded() {
        let mut pool = PipePool::default();
        let first = pool.take().unwrap();
        pool.give_back(first);
        assert_eq!(pool.idle.len(), 1);
        let mut lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(lent.len(), MAX_PIPES);
        assert!(pool.idle.is_empty());
        pool.discard(lent.pop().unwrap());
        assert!(pool.take().is_some());
        for pipe in lent {
            pool.give_back(pipe);
        }
        pool.shrink();
        assert!(pool.idle.is_empty());
    }
}
