//! The limit of open files: raised for us, given back to whom we start; and room for them in advance.
//! Sources: getrlimit(2), F_DUPFD_CLOEXEC in fcntl(2), `expand_fdtable` in the kernel.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// Soft limit before [`raise`].
static INHERITED: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard one.
pub fn raise() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let _ = INHERITED.set(soft);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Makes room for `count` open files, as far as the soft limit allows; to be called while the process has
/// one thread.
///
/// The kernel's table doubles whenever it is full, and never shrinks. In a process of several threads
/// each time waits for an RCU grace period, some 20 ms, and all that opens a file waits with it.
pub fn make_room(count: u64) -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let last = i32::try_from(count.min(soft)).unwrap_or(i32::MAX) - 1;
    let any = File::open("/dev/null")?;
    drop(rustix::io::fcntl_dupfd_cloexec(&any, last)?);
    Ok(())
}

/// Has `command` start with the limit that there was before [`raise`].
pub fn restore_in(command: &mut Command) {
    let Some(soft) = INHERITED.get().copied() else {
        return;
    };
    let restore = move || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
    };
    // SAFETY: the closure makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_have_the_limit_of_before() {
        let limit = |command: &mut Command| {
            let output = command.args(["-c", "ulimit -Sn"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let before = limit(&mut Command::new("sh"));
        raise().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
        let mut command = Command::new("sh");
        restore_in(&mut command);
        assert_eq!(limit(&mut command), before);
    }

    #[test]
    fn the_table_has_room_afterwards() {
        make_room(500).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        assert!(size.unwrap().trim().parse::<u64>().unwrap() >= 500);
    }
}
