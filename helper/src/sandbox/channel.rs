//! The conversation between the helper and a sandbox process that it is making: a socket pair that
//! exec closes.
//!
//! Child → helper: [`Report`]s, each a little-endian `u32` length and JSON. Helper → child: single
//! bytes, each permission to go one step further. Invariant: end of file means that the other side
//! is gone; for the helper after the last step, that exec succeeded.

use crate::request::{Failure, FailureKind};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a child may take for one step. Only a file system that hangs takes that long.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest report accepted, in bytes.
const MAX_REPORT: u32 = 1 << 20;

/// What a child tells the helper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// By the go-between: the process was made, under this id in the helper's pid namespace.
    Made(i32),
    /// Set up, ready to execute its command; with lines about what is degraded.
    Ready(Vec<String>),
    /// It gives up.
    Failed(Failure),
}

/// The helper's end.
#[derive(Debug)]
pub struct HelperEnd(UnixStream);

/// The child's end.
#[derive(Debug)]
pub struct ChildEnd(UnixStream);

/// A new pair.
pub fn pair() -> Result<(HelperEnd, ChildEnd), Failure> {
    let failed = |e: io::Error| Failure::kernel("make a socket pair", e);
    let (helper, child) = UnixStream::pair().map_err(failed)?;
    helper
        .set_read_timeout(Some(STEP_TIMEOUT))
        .map_err(failed)?;
    Ok((HelperEnd(helper), ChildEnd(child)))
}

impl HelperEnd {
    /// Let the child take the next step. It fails where the child is gone.
    pub fn permit(&mut self) -> Result<(), Failure> {
        self.0
            .write_all(&[1])
            .map_err(|e| setup("let the sandbox process go on", e))
    }

    /// The child's next report; `None` once its end is closed.
    pub fn report(&mut self) -> Result<Option<Report>, Failure> {
        let failed = |e| setup("wait for the sandbox process", e);
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Ok(()) => {}
            // A child that dies with our last byte unread resets the connection.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(failed(e)),
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_REPORT {
            return Err(failed(io::Error::from(io::ErrorKind::InvalidData)));
        }
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).map_err(failed)?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|e| failed(e.into()))
    }
}

impl ChildEnd {
    /// Tell the helper. Where it is gone, the next [`ChildEnd::wait`] finds out.
    pub fn tell(&mut self, report: &Report) {
        let Ok(body) = serde_json::to_vec(report) else {
            return;
        };
        let Ok(length) = u32::try_from(body.len()) else {
            return;
        };
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend(body);
        // Without a listener there is nobody to tell.
        let _ = self.0.write_all(&frame);
    }

    /// For a go-between, whose child needs the end as well.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The one report of a go-between; the answer is its exit code.
    pub fn tell_made(&mut self, made: Result<Pid, Failure>) -> i32 {
        let (report, code) = match made {
            Ok(pid) => (Report::Made(pid.as_raw()), 0),
            Err(failure) => (Report::Failed(failure), super::child::GAVE_UP),
        };
        self.tell(&report);
        code
    }

    /// Wait for the permission to take the next step; `false`: the helper is gone.
    pub fn wait(&mut self) -> bool {
        self.0.read_exact(&mut [0]).is_ok()
    }
}

impl From<ChildEnd> for OwnedFd {
    fn from(end: ChildEnd) -> Self {
        end.0.into()
    }
}

impl From<OwnedFd> for ChildEnd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

/// A step of the set-up failed.
pub fn setup(what: impl Into<String>, error: impl Into<io::Error>) -> Failure {
    Failure::kernel(what, error).of_kind(FailureKind::Setup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_permissions_cross_and_an_end_shows() {
        let (mut helper, mut child) = pair().unwrap();
        child.tell(&Report::Made(7));
        child.tell(&Report::Ready(vec!["x".to_owned()]));
        assert!(matches!(helper.report(), Ok(Some(Report::Made(7)))));
        assert!(matches!(helper.report(), Ok(Some(Report::Ready(lines))) if lines == ["x"]));
        helper.permit().unwrap();
        assert!(child.wait());
        drop(child);
        assert!(matches!(helper.report(), Ok(None)));
        assert!(helper.permit().is_err());

        let (helper, mut child) = pair().unwrap();
        drop(helper);
        assert!(!child.wait());
    }
}
