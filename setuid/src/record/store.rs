//! Where the record is: `/run/mossnet`, a directory that callers cannot enter.
//!
//! Installed setuid root, the program makes it itself (0700). Installed with file capabilities, it runs
//! as its caller, so that the directory is root's and belongs to a group without members, which the
//! program's file gives it (setgid; contrib/ has the tmpfiles.d(5) line). What is in the directory may
//! belong to any caller as a file; nobody but this program can reach it.
//!
//! The record is replaced by rename(2), so it is always whole. The lock is flock(2)'s: the kernel ends
//! it with the process, however that ends.

use super::{Damaged, Record};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, getegid, geteuid, getgid, getgroups, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const DIRECTORY: &str = "/run/mossnet";
const NEW: &str = "record.new";
const LOCK: &str = "lock";
/// How long to wait for other requests. Each takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);
/// A record is shorter, bytes: 1,000 users with 1,000 links and 4,000 ports each are too many anyway.
const MAX_LENGTH: u64 = 64 << 20;

/// Why there is no record to work with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel refused.
    #[error("{what}: {}", errno.desc())]
    Kernel {
        /// To do what.
        what: &'static str,
        /// How.
        errno: Errno,
    },
    /// The directory is not as it must be.
    #[error("{DIRECTORY} must belong to root, be closed to others, and to the caller's groups")]
    Directory,
    /// Another request has held the lock for too long.
    #[error("the record has been locked for {PATIENCE:?}, by process {}", holder.trim())]
    Locked {
        /// Who says to hold it.
        holder: String,
    },
    /// Its content.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

type Result<T> = std::result::Result<T, StoreError>;

/// The record, locked for as long as this lives.
#[derive(Debug)]
pub struct Store {
    directory: OwnedFd,
    name: String,
    _lock: Flock<File>,
    /// What it says. [`Store::save`] makes changes last.
    pub record: Record,
}

impl Store {
    /// Lock and read the record of the host namespace with this cookie.
    pub fn open(cookie: u64) -> Result<Self> {
        let directory = directory()?;
        let lock = lock(&directory)?;
        let name = format!("record-{cookie}");
        let record = read(&directory, &name)?;
        Ok(Self {
            directory,
            name,
            _lock: lock,
            record,
        })
    }

    /// Write the record, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let failed = |errno| StoreError::Kernel {
            what: "write the record",
            errno,
        };
        match unlinkat(&self.directory, NEW, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let fd = openat(&self.directory, NEW, flags, private()).map_err(failed)?;
        let written = File::from(fd).write_all(self.record.to_string().as_bytes());
        written.map_err(|error| failed(errno_of(&error)))?;
        renameat(&self.directory, NEW, &self.directory, self.name.as_str()).map_err(failed)
    }
}

/// For this program as any caller.
fn private() -> Mode {
    Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn directory() -> Result<OwnedFd> {
    let failed = |errno| StoreError::Kernel {
        what: "open /run/mossnet",
        errno,
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let run = open("/run", flags, Mode::empty()).map_err(failed)?;
    if geteuid().is_root() {
        match mkdirat(&run, "mossnet", Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let directory = openat(&run, "mossnet", flags, Mode::empty()).map_err(failed)?;
    let (parent, own) = (
        fstat(&run).map_err(failed)?,
        fstat(&directory).map_err(failed)?,
    );
    let given = own.st_mode & 0o070 == 0 || is_given_group(own.st_gid).map_err(failed)?;
    let roots = parent.st_uid == 0 && own.st_uid == 0;
    // /run itself is 0755 everywhere.
    if !roots || parent.st_mode & 0o022 != 0 || own.st_mode & 0o007 != 0 || !given {
        return Err(StoreError::Directory);
    }
    Ok(directory)
}

/// The group comes from the program's file; the caller is not in it.
fn is_given_group(gid: u32) -> nix::Result<bool> {
    let others = getgroups()?;
    let callers = gid == getgid().as_raw() || others.iter().any(|other| other.as_raw() == gid);
    // Root may change the directory anyway.
    Ok(geteuid().is_root() || (gid == getegid().as_raw() && !callers))
}

fn lock(directory: &OwnedFd) -> Result<Flock<File>> {
    let failed = |errno| StoreError::Kernel {
        what: "lock the record",
        errno,
    };
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = openat(directory, LOCK, flags, private()).map_err(failed)?;
    let mut file = File::from(fd);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut locked) => {
                // For whoever waits in vain; without it nothing is worse.
                let _ = locked.set_len(0);
                let _ = write!(&mut *locked, "{}", std::process::id());
                return Ok(locked);
            }
            Err((mut unlocked, Errno::EAGAIN)) if Instant::now() >= deadline => {
                let mut holder = String::new();
                let _ = unlocked.read_to_string(&mut holder);
                return Err(StoreError::Locked { holder });
            }
            Err((unlocked, Errno::EAGAIN | Errno::EINTR)) => {
                file = unlocked;
                std::thread::sleep(PAUSE);
            }
            Err((_, errno)) => return Err(failed(errno)),
        }
    }
}

fn read(directory: &OwnedFd, name: &str) -> Result<Record> {
    let failed = |errno| StoreError::Kernel {
        what: "read the record",
        errno,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = match openat(directory, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(Record::default()),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = fstat(&fd).map_err(failed)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(failed(Errno::EINVAL));
    }
    let mut text = String::new();
    let length = File::from(fd).take(MAX_LENGTH).read_to_string(&mut text);
    length.map_err(|error| failed(errno_of(&error)))?;
    Ok(text.parse()?)
}
