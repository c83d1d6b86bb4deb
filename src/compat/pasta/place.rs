//! The namespaces that are served: found, entered, and known again.
//!
//! Invariant: what is found is a descriptor, and all that follows is done to that; a path or a process id
//! is looked at again only to see that it is gone.
//!
//! Sources: setns(2), user_namespaces(7), pidfd_open(2).

use super::options::{Options, Target};
use mossnet_helper::alone::{self, Alone};
use mossnet_helper::namespace::{self, in_netns};
use mossnet_helper::request::Failure;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why nobody can be served.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The namespace's file.
    #[error("open {}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No such process.
    #[error("find process {pid}: {source}")]
    Process {
        /// Which.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Not ours to join.
    #[error("join user namespace {}: {source}", path.display())]
    Join {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Power over it is lacking.
    #[error("{}: {failure} (it belongs to a user namespace that this one has no power over: give --userns, or run where you have)", path.display())]
    Power {
        /// Which.
        path: PathBuf,
        /// Why.
        failure: Failure,
    },
    /// A word with a zero byte.
    #[error("the command has a word that cannot be one")]
    Word,
    /// Anything else.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// How long somebody is served.
#[derive(Debug)]
pub enum Until {
    /// As long as the path leads to the same namespace.
    Path(PathBuf),
    /// As long as the process lives.
    Process(OwnedFd),
    /// Until the command ends.
    Command(Pid),
    /// For ever.
    Never,
}

/// Whom to serve.
#[derive(Debug)]
pub struct Place {
    /// The network namespace.
    pub netns: OwnedFd,
    /// How long.
    pub until: Until,
    /// A command that waits to be let go.
    pub command: Option<Alone>,
}

/// Found and not entered.
#[derive(Debug)]
pub enum Found {
    /// A namespace that is there.
    There {
        /// It.
        netns: OwnedFd,
        /// By what it was found.
        path: PathBuf,
        /// The user namespace to join.
        userns: Option<(PathBuf, OwnedFd)>,
        /// How long.
        until: Until,
    },
    /// One to be made, for this command.
    Command(Vec<CString>),
}

/// Finds it; nothing is changed.
pub fn find(options: &Options) -> Result<Found, PlaceError> {
    let (path, userns, until) = match &options.target {
        Target::Command(words) => return command(words),
        Target::Process(pid) => {
            let no = |errno: rustix::io::Errno| PlaceError::Process {
                pid: *pid,
                source: errno.into(),
            };
            let known = rustix::process::Pid::from_raw(*pid);
            let known = known.ok_or(rustix::io::Errno::SRCH).map_err(no)?;
            let pidfd = pidfd_open(known, PidfdFlags::empty()).map_err(no)?;
            let of = |kind: &str| PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
            let joined = options.userns.clone().unwrap_or_else(|| of("user"));
            let userns = (!options.netns_only).then_some(joined);
            (of("net"), userns, Until::Process(pidfd))
        }
        Target::Path(path) => {
            let until = match options.quit_with_netns {
                true => Until::Path(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
                false => Until::Never,
            };
            (path.clone(), options.userns.clone(), until)
        }
    };
    let userns = match userns {
        Some(path) => Some((path.clone(), open(&path)?)),
        None => None,
    };
    Ok(Found::There {
        netns: open(&path)?,
        path,
        userns,
        until,
    })
}

fn open(path: &Path) -> Result<OwnedFd, PlaceError> {
    let file = File::open(path).map_err(|source| PlaceError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok(file.into())
}

fn command(words: &[OsString]) -> Result<Found, PlaceError> {
    let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let words = match words {
        [] => vec![shell()],
        words => words.to_vec(),
    };
    let words = words.into_iter().map(|word| CString::new(word.into_vec()));
    let words = words
        .collect::<Result<_, _>>()
        .map_err(|_| PlaceError::Word)?;
    Ok(Found::Command(words))
}

/// Enters the user namespace in which it can be served, or makes it. The process has one thread.
pub fn enter(found: Found) -> Result<Place, PlaceError> {
    match found {
        Found::Command(words) => {
            let mapping = namespace::enter()?;
            let command = alone::make(&words, &mapping)?;
            let netns = command.netns.try_clone();
            let netns = netns.map_err(|e| Failure::kernel("keep the network namespace", e))?;
            Ok(Place {
                netns,
                until: Until::Command(command.pid),
                command: Some(command),
            })
        }
        Found::There {
            netns,
            path,
            userns,
            until,
        } => {
            if let Some((path, userns)) = userns {
                join(path, &userns)?;
            }
            // A descriptor that was opened by the path would keep it from being unmounted.
            let again = in_netns(netns.as_fd(), || {
                File::open("/proc/thread-self/ns/net")
                    .map_err(|e| Failure::kernel("open the network namespace again", e))
            });
            let netns = again
                .map_err(|failure| PlaceError::Power { path, failure })?
                .into();
            Ok(Place {
                netns,
                until,
                command: None,
            })
        }
    }
}

/// Our own cannot be joined again, and need not be.
fn join(path: PathBuf, userns: &OwnedFd) -> Result<(), PlaceError> {
    let own = open(Path::new("/proc/self/ns/user"))?;
    if is_same(&own, userns) {
        return Ok(());
    }
    setns(userns, CloneFlags::CLONE_NEWUSER).map_err(|errno| PlaceError::Join {
        path,
        source: errno.into(),
    })
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |fd: &OwnedFd| fstat(fd).ok().map(|s| (s.st_dev, s.st_ino));
    identity(one).is_some() && identity(one) == identity(other)
}

impl Place {
    /// Whether nobody is there to be served any more, as far as can be seen by looking.
    pub fn is_gone(&self) -> bool {
        match &self.until {
            Until::Path(path) => match (fs::metadata(path), fstat(&self.netns)) {
                (Ok(found), Ok(own)) => (found.dev(), found.ino()) != (own.st_dev, own.st_ino),
                (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
                (Ok(_), Err(_)) => false,
            },
            Until::Process(pidfd) => {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            }
            Until::Command(_) | Until::Never => false,
        }
    }

    /// The file whose end is ours.
    pub fn path(&self) -> Option<&Path> {
        match &self.until {
            Until::Path(path) => Some(path),
            Until::Process(_) | Until::Command(_) | Until::Never => None,
        }
    }
}
