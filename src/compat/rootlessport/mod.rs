//! rootlessport's place: what rootless podman starts for each container with published ports, so that they
//! are open on the host. Unlike podman's own it keeps the client's address (podman#8193).
//!
//! Called by the name `rootlessport`, or as `mossnet rootlessport`, in podman's user namespace and in the
//! host's network namespace. Map: `input` (what podman wrote) → `place` (which namespaces; `plan`: who is led
//! where) → sockets that listen → the relay's published ports (`crate::relay::publish::alone`) → `serve`.
//!
//! Sockets towards the container bear the client's address. They are in the network namespace of podman's
//! bridges, as if the client's packets had been routed there; a container without bridges (slirp4netns)
//! has them inside its own, and so has one that podman has moved to other bridges' namespace. Rules lead its answers to them (`mossnet_helper::ports`), and go with the process.
//!
//! Invariants: before a client's first byte is read, the process has nothing left but its sockets: one thread
//! with CAP_NET_ADMIN (rules), one with CAP_NET_RAW (sockets), the one that reads without any. A refusal leaves
//! nothing behind; podman shows what is on standard output then.

pub mod input;
mod place;
mod plan;
pub mod refusal;
mod serve;

use crate::error::one_line;
use crate::kernel::listeners::{Bound, bind_again};
use crate::ports::{HostChoice, Published};
use crate::relay::publish::alone::{Places, Ports};
use crate::relay::{raise_descriptor_limit, sandbox, seccomp};
use crate::sys::inherited;
use input::Config;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use place::Site;
use refusal::{Refusal, process};
use serve::Updates;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Reads standard input, and serves until the container ends.
pub fn main(words: Vec<OsString>) -> ExitCode {
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[OsString]) -> Result<(), Refusal> {
    if !words.is_empty() {
        return Err(Refusal::Arguments);
    }
    let config = read(io::stdin().lock())?;
    let (exit, ready) = (
        take("ExitFD", config.exit_fd)?,
        take("ReadyFD", config.ready_fd)?,
    );
    // What podman may have had from whoever called it.
    let _ = inherited::close_from(config.exit_fd.max(config.ready_fd).saturating_add(1));
    let nofile = raise_descriptor_limit().map_err(process("raise the limit of open files"))?;
    let sockets = listen(&config)?;
    let (mut site, places) = Site::find(config)?;
    let mut updates = updates(site.config())?;
    let ports = lock_in(&mut site, places, sockets, updates.as_mut(), nofile)?;
    ports.begin();
    serve::say_ready(ready)?;
    serve::serve(&ports, &mut site, updates.as_ref(), &exit)
}

fn read(from: impl Read) -> Result<Config, Refusal> {
    let mut text = Vec::new();
    let most = u64::try_from(input::MOST).unwrap_or(u64::MAX);
    let mut limited = from.take(most.saturating_add(1));
    limited.read_to_end(&mut text).map_err(Refusal::Read)?;
    if text.len() > input::MOST {
        return Err(Refusal::TooLong(input::MOST));
    }
    Config::parse(&text)
}

fn take(what: &'static str, number: i32) -> Result<OwnedFd, Refusal> {
    inherited::take(number).map_err(|source| Refusal::Descriptor {
        what,
        number,
        source,
    })
}

/// A socket for every port, or none.
fn listen(config: &Config) -> Result<Vec<Bound>, Refusal> {
    let given = |publish: &_| Published {
        publish: *publish,
        choice: HostChoice::Given,
    };
    let all: Vec<Published> = config.publishes.iter().map(given).collect();
    bind_again(&all).map_err(|source| Refusal::Bind { source })
}

fn updates(config: &Config) -> Result<Option<Updates>, Refusal> {
    let listen = || Updates::listen(&config.tmp_dir, &config.container);
    config.on_networks.then(listen).transpose()
}

/// Starts everything, and gives up what is not needed for it any more.
fn lock_in(
    site: &mut Site,
    places: Places,
    bound: Vec<Bound>,
    updates: Option<&mut Updates>,
    nofile: u64,
) -> Result<Ports, Refusal> {
    let snapshot = site.settle(site.config().child)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(process("open /dev/null"))?;
    let more: &[_] = match updates {
        Some(_) => &[libc::SYS_unlinkat],
        None => &[],
    };
    // The process has one thread: what follows counts for all that come.
    match updates {
        Some(updates) => updates.become_root()?,
        None => sandbox::empty_root()?,
    }
    sandbox::no_new_privileges()?;
    let sockets = bound.into_iter().flat_map(|bound| bound.sockets).collect();
    let ports = Ports::start(places, sockets, nofile)?;
    sandbox::keep_net_admin_only()?;
    silence(&null).map_err(process("leave podman's streams"))?;
    seccomp::install_with(more)?;
    ports.lead(snapshot);
    Ok(ports)
}

/// Podman reads what is said until the ports listen; then a write to it would be an error.
fn silence(null: &File) -> io::Result<()> {
    dup2_stdin(null)?;
    dup2_stderr(null)?;
    dup2_stdout(null)?;
    Ok(())
}
