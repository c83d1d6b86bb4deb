//! The command of a sandbox process: checked in the helper, looked up and executed in the child.
//!
//! Sources: execve(2), the lookup rules of `docker run` (127 not found, 126 not executable).

use crate::request::{Failure, FailureKind, ProcessSpec};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, chdir, execve};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Searched where the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A [`ProcessSpec`] in the form that execve(2) takes.
#[derive(Debug, Clone)]
pub struct Command {
    argv: Vec<CString>,
    env: Vec<CString>,
    candidates: Vec<CString>,
    shown: String,
    looked_up: bool,
    workdir: PathBuf,
    /// The three descriptors are one terminal.
    pub tty: bool,
}

impl Command {
    /// Check a spec; `default_dir` is the working directory where it names none.
    pub fn check(spec: &ProcessSpec, default_dir: &Path) -> Result<Self, Failure> {
        let name = spec.argv.first().map_or("", String::as_str);
        if name.is_empty() {
            return Err(Failure::invalid("the command is empty"));
        }
        let workdir = spec.workdir.as_deref().unwrap_or(default_dir);
        absolute("working directory", workdir)?;
        let argv = spec
            .argv
            .iter()
            .map(|word| c_string("an argument", word.as_bytes()));
        let env = spec.env.iter().map(|(name, value)| {
            if name.is_empty() || name.contains('=') {
                return Err(Failure::invalid(format!(
                    "environment variable name {name:?} must be non-empty, without '='"
                )));
            }
            c_string(
                "an environment variable",
                format!("{name}={value}").as_bytes(),
            )
        });
        let looked_up = !name.contains('/');
        let candidates = if looked_up {
            search(name, path_of(&spec.env))?
        } else {
            vec![c_string("the command", name.as_bytes())?]
        };
        Ok(Self {
            argv: argv.collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            candidates,
            shown: format!("{name:?}"),
            looked_up,
            workdir: workdir.to_owned(),
            tty: spec.tty,
        })
    }

    /// Where it runs.
    pub fn workdir(&self) -> &Path {
        &self.workdir
    }

    /// Become the command; returns only where that failed.
    pub fn execute(&self) -> Failure {
        if let Err(e) = chdir(&self.workdir) {
            return refused(
                format!("change to the working directory {}", self.workdir.display()),
                e,
            );
        }
        let mut denied = false;
        for candidate in &self.candidates {
            let Err(error) = execve(candidate, &self.argv, &self.env);
            match error {
                Errno::ENOENT if access(candidate.as_c_str(), AccessFlags::F_OK).is_ok() => {
                    let what = format!("exec {}: its interpreter is missing", self.shown);
                    return refused(what, error);
                }
                Errno::EACCES => denied = true,
                Errno::ENOENT | Errno::ENOTDIR if self.looked_up => {}
                _ => return refused(format!("exec {}", self.shown), error),
            }
        }
        if denied {
            return refused(format!("exec {}", self.shown), Errno::EACCES);
        }
        let what = format!("exec {}: executable file not found in PATH", self.shown);
        refused(what, Errno::ENOENT)
    }
}

/// The command could not be executed.
fn refused(what: String, error: Errno) -> Failure {
    Failure::kernel(what, error).of_kind(FailureKind::Exec)
}

/// The last `PATH` of an environment: execve passes on all, and shells take the last.
fn path_of(env: &[(String, String)]) -> &str {
    env.iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value)
}

/// Every place where a name without slash may be; an empty element is the working directory.
fn search(name: &str, path: &str) -> Result<Vec<CString>, Failure> {
    path.split(':')
        .map(|dir| {
            let dir = if dir.is_empty() { "." } else { dir };
            c_string("PATH", format!("{dir}/{name}").as_bytes())
        })
        .collect()
}

/// Text for the kernel.
fn c_string(what: &str, bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::invalid(format!("{what} contains a NUL byte")))
}

/// Refuse a path that is relative, or that the kernel cannot take.
pub fn absolute(what: &str, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Failure::invalid(format!(
            "{what} {shown} must be an absolute path"
        )));
    }
    c_string(what, path.as_os_str().as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(argv: &[&str], env: &[(&str, &str)]) -> ProcessSpec {
        ProcessSpec {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: env
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            workdir: None,
            tty: false,
        }
    }

    fn candidates(spec: &ProcessSpec) -> Vec<String> {
        Command::check(spec, Path::new("/"))
            .unwrap()
            .candidates
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn commands_are_searched_in_the_path_of_their_own_environment() {
        assert_eq!(
            candidates(&spec(&["ls"], &[("PATH", "/a::/b")])),
            ["/a/ls", "./ls", "/b/ls"]
        );
        assert_eq!(candidates(&spec(&["./ls"], &[("PATH", "/a")])), ["./ls"]);
        assert_eq!(
            candidates(&spec(&["ls"], &[])).last().map(String::as_str),
            Some("/bin/ls")
        );
    }

    #[test]
    fn malformed_specs_are_refused() {
        for (argv, env) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["a\0b"], &[]),
            (&["a"], &[("", "x")]),
            (&["a"], &[("A=B", "x")]),
            (&["a"], &[("A", "x\0")]),
        ] {
            let failure = Command::check(&spec(argv, env), Path::new("/")).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
        }
        let mut relative = spec(&["a"], &[]);
        relative.workdir = Some("x".into());
        assert!(Command::check(&relative, Path::new("/")).is_err());
    }
}
