//! Files that only root can have written, opened step by step without following a symbolic link.
//!
//! Invariant: every directory on the way and the file itself belong to root, and neither group nor
//! others may write to them. Paths are constants of this program.
//!
//! Sources: openat(2), path_resolution(7).

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Longest file that is read, bytes.
const MAX_LENGTH: u64 = 1 << 20;
/// Group and others may write.
const WRITABLE: u32 = 0o022;

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It cannot be opened or read. ELOOP, ENOTDIR: a symbolic link is on the way.
    #[error("{path}: {}", errno.desc())]
    Open {
        /// Path, or the part of it that is at fault.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// It belongs to somebody else.
    #[error("{path}: owned by uid {uid}, not by root")]
    Owner {
        /// Path.
        path: String,
        /// Whose.
        uid: u32,
    },
    /// Others may write to it.
    #[error("{path}: writable by group or others (mode {mode:04o})")]
    Writable {
        /// Path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A device, a pipe, a socket.
    #[error("{path}: not a regular file")]
    Kind {
        /// Path.
        path: String,
    },
    /// More than a configuration.
    #[error("{path}: longer than {MAX_LENGTH} bytes")]
    TooLong {
        /// Path.
        path: String,
    },
    /// Not UTF-8.
    #[error("{path}: not UTF-8")]
    Text {
        /// Path.
        path: String,
    },
}

impl Untrusted {
    /// It is not there at all.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Open { errno, .. } if *errno == Errno::ENOENT)
    }
}

type Result<T> = std::result::Result<T, Untrusted>;

/// A directory that only root can change.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: String,
}

impl Directory {
    /// An absolute path, constant.
    pub fn open(path: &'static str) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = open("/", flags, Mode::empty()).map_err(|errno| failed("/", errno))?;
        let mut directory = Self {
            fd,
            path: String::new(),
        };
        directory.check("/")?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            directory = directory.enter(name)?;
        }
        Ok(directory)
    }

    fn enter(&self, name: &str) -> Result<Self> {
        let path = format!("{}/{name}", self.path);
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let opened = openat(&self.fd, name, flags, Mode::empty());
        let fd = opened.map_err(|errno| failed(&path, errno))?;
        let directory = Self { fd, path };
        directory.check(&directory.path)?;
        Ok(directory)
    }

    fn check(&self, path: &str) -> Result<()> {
        let stat = fstat(&self.fd).map_err(|errno| failed(path, errno))?;
        check_owner(path, &stat)
    }

    /// The text of a file in it.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = format!("{}/{name}", self.path);
        let open_failed = |errno| failed(&path, errno);
        let flags = OFlag::O_RDONLY
            | OFlag::O_CLOEXEC
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY;
        let fd = openat(&self.fd, name, flags, Mode::empty()).map_err(open_failed)?;
        let stat = fstat(&fd).map_err(open_failed)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(Untrusted::Kind { path });
        }
        check_owner(&path, &stat)?;
        let mut bytes = Vec::new();
        let length = File::from(fd).take(MAX_LENGTH + 1).read_to_end(&mut bytes);
        match length {
            Ok(length) if length as u64 > MAX_LENGTH => Err(Untrusted::TooLong { path }),
            Ok(_) => String::from_utf8(bytes).map_err(|_| Untrusted::Text { path }),
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                Err(failed(&path, errno))
            }
        }
    }

    /// Names in the directory `name` in it that end so, in order; none where there is no such directory.
    pub fn list(&self, name: &str, end: &str) -> Result<(Option<Self>, Vec<String>)> {
        let inner = match self.enter(name) {
            Err(untrusted) if untrusted.is_absent() => return Ok((None, Vec::new())),
            other => other?,
        };
        let clone = inner
            .fd
            .try_clone()
            .map_err(|_| failed(&inner.path, Errno::EMFILE))?;
        let read = nix::dir::Dir::from_fd(clone).map_err(|errno| failed(&inner.path, errno))?;
        let mut names = Vec::new();
        for entry in read {
            let entry = entry.map_err(|errno| failed(&inner.path, errno))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(end) && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok((Some(inner), names))
    }
}

fn failed(path: &str, errno: Errno) -> Untrusted {
    let path = path.to_owned();
    Untrusted::Open { path, errno }
}

fn check_owner(path: &str, stat: &FileStat) -> Result<()> {
    let path = || path.to_owned();
    if stat.st_uid != 0 {
        let uid = stat.st_uid;
        return Err(Untrusted::Owner { path: path(), uid });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & WRITABLE != 0 {
        return Err(Untrusted::Writable { path: path(), mode });
    }
    Ok(())
}
