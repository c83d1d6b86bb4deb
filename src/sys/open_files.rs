//! The limit of open files: raised for us, given back to whom we start. Source: getrlimit(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
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
}
