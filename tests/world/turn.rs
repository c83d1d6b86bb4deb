//! Tests that measure run alone: two locks, shared by all tests on the machine.
//!
//! Whoever wants to be alone closes the door first, so that newcomers wait and those inside come to
//! an end. Source: flock(2).

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

/// Held while a test runs.
pub struct Turn {
    _room: Flock<File>,
}

impl Turn {
    /// Waits for it.
    pub fn take(alone: bool) -> Self {
        let (shared, exclusive) = (FlockArg::LockShared, FlockArg::LockExclusive);
        let how = if alone { exclusive } else { shared };
        let _door = lock("door", how);
        Self {
            _room: lock("room", how),
        }
    }
}

fn lock(name: &str, how: FlockArg) -> Flock<File> {
    let path = std::env::temp_dir().join(format!("mossnet-test-{name}.lock"));
    // Whoever comes first makes it, for root and users alike; then reading is enough.
    let file = File::open(&path).or_else(|_| {
        let made = File::create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok::<_, std::io::Error>(made)
    });
    let mut file = file.unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    loop {
        match Flock::lock(file, how) {
            Ok(locked) => return locked,
            Err((same, nix::errno::Errno::EINTR)) => file = same,
            Err((_, error)) => panic!("lock {}: {error}", path.display()),
        }
    }
}
