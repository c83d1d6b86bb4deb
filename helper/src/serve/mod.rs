//! The helper as a process: start-up, the socket, and the event loop.
//!
//! Start-up is single-threaded: user namespace, execution again from a read-only mount (so that no
//! sandbox can rewrite the program), fewer capabilities, router netns, `ready` on stdout. What fails
//! is printed there instead, as the JSON of a [`Failure`].

mod connection;
mod event_loop;

use crate::act::Helper;
use crate::namespace::{self, IdMapping};
use crate::request::Failure;
use crate::sandbox::seal;
use crate::sys::inheritance::close_others_on_exec;
use crate::{limits, privilege};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Says that the process is in its namespaces already, after it has executed itself again.
const ENTERED: &str = "--entered";

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    socket: PathBuf,
    relay: PathBuf,
    entered: bool,
}

/// Run the helper. `args`: what follows the word `helper`: `--socket PATH`, and `--relay PROGRAM`
/// where that is not this program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match start(args) {
        Ok((mut event_loop, socket)) => {
            let result = say("ready").and_then(|()| event_loop.run());
            let _ = fs::remove_file(&socket.path);
            // The lock before the connection: at its end of file, the daemon may start another.
            drop(socket);
            drop(event_loop);
            match result {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => {
                    eprintln!("helper: {failure}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(failure) => {
            let json = serde_json::to_string(&failure).unwrap_or_else(|_| failure.to_string());
            let _ = say(&json);
            ExitCode::FAILURE
        }
    }
}

fn start(
    args: impl IntoIterator<Item = OsString>,
) -> Result<(event_loop::EventLoop, Socket), Failure> {
    let options = parse(args)?;
    close_others_on_exec();
    // Else it would be called after the descriptor that it was executed from.
    let _ = nix::sys::prctl::set_name(c"mossnet-helper");
    // EPERM: it leads a session already.
    let _ = nix::unistd::setsid();
    nix::unistd::chdir("/").map_err(|e| Failure::kernel("change to /", e))?;
    let mapping = if options.entered {
        IdMapping::current()?
    } else {
        enter()?
    };
    let (socket, listener) = Socket::bind(&options.socket)?;
    privilege::shrink()?;
    limits::raise();
    let signals = event_loop::block_signals()?;
    let helper = Helper::new(mapping, options.relay).inspect_err(|_| {
        let _ = fs::remove_file(&socket.path);
    })?;
    Ok((
        event_loop::EventLoop::new(helper, listener, signals),
        socket,
    ))
}

/// Into our namespaces, and on from a read-only mount of this program.
fn enter() -> Result<IdMapping, Failure> {
    let mapping = namespace::enter()?;
    let cstring = |word: OsString| CString::new(word.into_vec()).ok();
    let words = std::env::args_os().chain([OsString::from(ENTERED)]);
    let argv: Vec<CString> = words.filter_map(cstring).collect();
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let env: Vec<CString> = variables.filter_map(cstring).collect();
    match seal::execute_sealed(&argv, &env) {
        Ok(never) => match never {},
        // Weaker, not broken: a sandbox could rewrite a program of the same user.
        Err(failure) => eprintln!("helper: {failure}"),
    }
    Ok(mapping)
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, Failure> {
    let mut socket = None;
    let mut relay = PathBuf::from("/proc/self/exe");
    let mut entered = false;
    let mut args = args.into_iter();
    while let Some(word) = args.next() {
        let mut value = || {
            let missing = || Failure::invalid(format!("{} needs a value", word.display()));
            args.next().map(PathBuf::from).ok_or_else(missing)
        };
        match word.to_str() {
            Some("--socket") => socket = Some(value()?),
            Some("--relay") => relay = value()?,
            Some(ENTERED) => entered = true,
            _ => {
                return Err(Failure::invalid(format!(
                    "unknown argument '{}'",
                    word.display()
                )));
            }
        }
    }
    let socket = socket.filter(|path| path.is_absolute());
    let socket = socket.ok_or_else(|| Failure::invalid("--socket needs an absolute path"))?;
    Ok(Options {
        socket,
        relay,
        entered,
    })
}

/// One line on stdout, which the daemon waits for; then nothing ever again.
fn say(line: &str) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::kernel("answer on stdout", e);
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(failed)?;
    let null = OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .map_err(failed)?;
    nix::unistd::dup2_stdout(&null).map_err(|e| failed(e.into()))
}

/// The socket, and the lock that says whose it is.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Socket {
    /// Take a stale one's place; a live helper's is left alone.
    fn bind(path: &Path) -> Result<(Self, UnixListener), Failure> {
        let failed =
            |what: &str, e: io::Error| Failure::kernel(format!("{what} {}", path.display()), e);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))
            .map_err(|e| failed("lock", e))?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => {
                        Failure::exists(format!("another helper serves {}", path.display()))
                    }
                    _ => failed("lock", errno.into()),
                },
            )?;
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", e)),
            _ => {}
        }
        let previous = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(previous);
        let listener = listener.map_err(|e| failed("listen on", e))?;
        listener
            .set_nonblocking(true)
            .map_err(|e| failed("listen on", e))?;
        let socket = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        Ok((socket, listener))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Options, Failure> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_checked() {
        let options = words("--socket /run/x --relay /bin/relay").unwrap();
        assert_eq!(options.socket, Path::new("/run/x"));
        assert_eq!(options.relay, Path::new("/bin/relay"));
        for bad in ["", "--socket", "--socket x", "--socket /x --what"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
