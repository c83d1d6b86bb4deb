//! The program: words of its command line, one request on standard input, one answer.

mod check;

use crate::act::{self, Refusal};
use crate::audit::{self, Decision};
use crate::caller::Caller;
use crate::request::{Reply, Request};
use crate::{channel, startup};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// How long the caller may take to send its request, milliseconds.
const PATIENCE: u16 = 10_000;
/// More words than any use of this program has, and how long each may be, bytes.
const MAX_WORDS: usize = 3;
const MAX_WORD: usize = 64;

const HELP: &str = "\
mossnet-helper: what the admin grants to rootless container networks

  mossnet-helper check [USER]   what USER (a name or a number; you) may do, and why
  mossnet-helper gc             remove what dead owners left behind
  mossnet-helper serve          one request on standard input (mossnet does this)

Grants are in /etc/mossnet/grants.toml and /etc/mossnet/grants.d/; decisions in the system's log.
";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Words {
    Serve,
    Gc,
    Check(Option<String>),
    Help,
    Version,
}

/// One run of the program. `args` without the program's own name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let words = parse(args);
    let caller = match startup::enter() {
        Ok(caller) => caller,
        Err(error) => {
            let uid = nix::unistd::getuid().as_raw();
            audit::write(uid, Decision::Denied, "start", &error);
            if words == Some(Words::Serve) {
                // Where nobody listens, standard error says the same.
                let _ = channel::send(std::io::stdin().as_fd(), &Reply::Denied.encode(), &[]);
            }
            return deny();
        }
    };
    match words {
        Some(Words::Serve) => serve(&caller),
        Some(Words::Gc) => finish(&caller, Ok((Request::Gc, Vec::new())), None),
        Some(Words::Check(user)) => check::run(&caller, user.as_deref()),
        Some(Words::Help) => print(HELP),
        Some(Words::Version) => print(concat!("mossnet-helper ", env!("CARGO_PKG_VERSION"), "\n")),
        None => {
            audit::write(caller.uid, Decision::Denied, "start", &"unknown words");
            deny()
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Option<Words> {
    let short = |word: OsString| {
        word.into_string()
            .ok()
            .filter(|word| word.len() <= MAX_WORD)
    };
    let words: Option<Vec<String>> = args.take(MAX_WORDS).map(short).collect();
    let words = words?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve"] => Some(Words::Serve),
        ["gc"] => Some(Words::Gc),
        ["check"] => Some(Words::Check(None)),
        ["check", user] => Some(Words::Check(Some((*user).to_owned()))),
        ["help" | "--help" | "-h"] | [] => Some(Words::Help),
        ["--version" | "-V"] => Some(Words::Version),
        _ => None,
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The one thing that whoever is refused sees.
fn deny() -> ExitCode {
    audit::tell("denied");
    ExitCode::FAILURE
}

fn serve(caller: &Caller) -> ExitCode {
    let stdin = std::io::stdin();
    let socket = stdin.as_fd();
    finish(caller, receive(socket), Some(socket))
}

/// One datagram from a socket that keeps their bounds.
fn receive(socket: BorrowedFd<'_>) -> Result<(Request, Vec<OwnedFd>), Refusal> {
    let kind = getsockopt(&socket, sockopt::SockType).map_err(Refusal::System)?;
    if kind != SockType::SeqPacket {
        return Err(Refusal::System(nix::errno::Errno::EPROTOTYPE));
    }
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(PATIENCE)).map_err(Refusal::System)? {
        0 => Err(Refusal::System(nix::errno::Errno::ETIMEDOUT)),
        _ => {
            let datagram = channel::receive(socket).map_err(Refusal::System)?;
            let request = Request::decode(&datagram.bytes)?;
            Ok((request, datagram.fds))
        }
    }
}

/// Perform a request, write the decision down, and answer.
fn finish(
    caller: &Caller,
    received: Result<(Request, Vec<OwnedFd>), Refusal>,
    socket: Option<BorrowedFd<'_>>,
) -> ExitCode {
    let verb = received
        .as_ref()
        .map_or("none", |(request, _)| word(request));
    let performed = received.and_then(|(request, fds)| {
        let answer = act::perform(caller, &request, &fds)?;
        Ok((request, answer))
    });
    let (reply, fd) = match performed {
        Ok((request, (reply, fd))) => {
            let detail = Detail(&request, &reply).to_string();
            audit::write(caller.uid, Decision::Granted, verb, &detail);
            (reply, fd)
        }
        Err(refusal) => {
            let reply = refusal.reply();
            let decision = match reply {
                Reply::Unavailable(_) => Decision::Failed,
                _ => Decision::Denied,
            };
            audit::write(caller.uid, decision, verb, &refusal);
            (reply, None)
        }
    };
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
    let told = socket.is_none_or(|socket| channel::send(socket, &reply.encode(), &fds).is_ok());
    match reply {
        Reply::Denied => deny(),
        Reply::Unavailable(reason) => {
            audit::tell(&reason.to_string());
            ExitCode::FAILURE
        }
        _ if told => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn word(request: &Request) -> &'static str {
    match request {
        Request::Query => "query",
        Request::Veth(_) => "veth",
        Request::Bridge(_) => "bridge",
        Request::Uplink(_) => "uplink",
        Request::Publish(_) => "publish",
        Request::Bind(_) => "bind",
        Request::Release(_) => "release",
        Request::Gc => "gc",
    }
}

/// What was granted, for the log.
struct Detail<'a>(&'a Request, &'a Reply);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(made) = self.1.made() {
            write!(f, "link={} index={} ", made.name, made.index)?;
        }
        match self.0 {
            Request::Veth(veth) => write!(f, "names={},{}", veth.first, veth.second),
            Request::Bridge(bridge) => {
                write!(
                    f,
                    "bridge={} addresses={:?}",
                    bridge.bridge, bridge.addresses
                )
            }
            Request::Uplink(uplink) => write!(f, "subnets={:?}", uplink.subnets),
            Request::Publish(publish) => {
                write!(
                    f,
                    "link={} targets={:?}",
                    publish.uplink.name, publish.targets
                )
            }
            Request::Bind(bind) => write!(f, "port={:?} {}", bind.protocol, bind.address),
            Request::Release(made) => write!(f, "link={} index={}", made.name, made.index),
            Request::Query | Request::Gc => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn words(list: &[&str]) -> Option<Words> {
        parse(list.iter().map(OsString::from))
    }

    #[test]
    fn there_are_few_words() {
        assert_eq!(words(&["serve"]), Some(Words::Serve));
        assert_eq!(words(&["gc"]), Some(Words::Gc));
        assert_eq!(words(&["check"]), Some(Words::Check(None)));
        let user = Some("alice".to_owned());
        assert_eq!(words(&["check", "alice"]), Some(Words::Check(user)));
        assert_eq!(words(&[]), Some(Words::Help));
        assert_eq!(words(&["-V"]), Some(Words::Version));
        for bad in [
            &["serve", "x"][..],
            &["check", "a", "b"],
            &["--policy", "x"],
            &[""],
        ] {
            assert_eq!(words(bad), None, "{bad:?}");
        }
        assert_eq!(words(&["check", &"x".repeat(MAX_WORD + 1)]), None);
        assert_eq!(parse([OsString::from_vec(vec![0xff])].into_iter()), None);
    }
}
