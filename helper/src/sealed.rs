//! Sealed files: bytes that go from process to process by one descriptor, and are copied by nobody.
//!
//! A memfd with every seal. Invariant: what is [`Sealed`] never changes and never shrinks, so that a
//! reader needs no copy of its own and cannot be made to fault by the writer; of a file that somebody
//! else made, the kernel vouches for it.
//!
//! Sources: memfd_create(2), fcntl(2) on F_ADD_SEALS and F_GET_SEALS.

use crate::request::Failure;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A file that nobody can change any more; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sealed {
    file: Arc<OwnedFd>,
    length: u64,
}

fn every_seal() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL
}

impl Sealed {
    /// A new one with these bytes.
    pub fn of(bytes: &[u8]) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"snapshot", flags)?);
        file.write_all(bytes)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(every_seal()))?;
        Ok(Self {
            file: Arc::new(file.into()),
            length: bytes.len() as u64,
        })
    }

    /// One that came from another process; refused unless it is sealed.
    pub fn check(file: OwnedFd) -> Result<Self, Failure> {
        let sealed = fcntl(&file, FcntlArg::F_GET_SEALS)
            .is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(every_seal()));
        if !sealed {
            return Err(Failure::invalid("a snapshot must come in a sealed memfd"));
        }
        let status = fstat(&file).map_err(|e| Failure::kernel("look at a sealed file", e))?;
        Ok(Self {
            file: Arc::new(file),
            length: u64::try_from(status.st_size).unwrap_or_default(),
        })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// To be handed on.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let sealed = Sealed::of(b"some text").unwrap();
        let file = File::from(sealed.duplicate().unwrap());
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err() && file.set_len(100).is_err());
        let taken = Sealed::check(file.into()).unwrap();
        assert_eq!(taken.length(), 9);
        let mut text = [0; 9];
        let file = File::from(taken.duplicate().unwrap());
        file.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"some text");
    }

    #[test]
    fn what_its_writer_can_still_change_is_refused() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let open = memfd_create(c"open", flags).unwrap();
        let half = memfd_create(c"half", flags).unwrap();
        let some = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&half, FcntlArg::F_ADD_SEALS(some)).unwrap();
        let plain = File::open("/proc/self/exe").unwrap().into();
        let null = File::open("/dev/null").unwrap().into();
        for file in [open, half, plain, null] {
            let failure = Sealed::check(file).unwrap_err();
            assert!(failure.what.contains("sealed memfd"), "{failure}");
        }
    }
}
