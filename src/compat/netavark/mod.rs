//! netavark's place: podman starts this for every container that it connects or disconnects.
//!
//! Called by the name `netavark`, or as `mossnet netavark`. Map, in the order of a call: `args` (flags
//! and environment) → `input` (JSON) → `plan` or `departure`, `options`, `ports` (pure) → `session` (what is done,
//! undone, remembered: `state`) → crate `mossnet_helper::foreign` and `ruleset` (kernel objects), `names`
//! (the name server's files) → `output` (JSON). Why it failed: `refusal`.
//!
//! Invariants: one JSON document on standard output, nothing else; a call that fails has changed nothing.
//! No process of mossnet's takes part: podman runs this inside its own namespaces, which nobody else could
//! reach, and what is made there ends with them.

mod args;
mod departure;
mod input;
mod names;
mod options;
mod output;
mod plan;
mod ports;
mod refusal;
mod session;
mod state;

pub use names::{INTERNAL, PID_FILE};
pub use state::LOCK_FILE;

use args::{Args, Command};
use clap::Parser;
use input::{MOST, Request};
use nix::sys::signal::{SigSet, Signal};
use output::{ErrorReport, Version};
use refusal::Refusal;
use serde::Serialize;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// Which of netavark's versions we stand in for: the first with all of the commands.
const SPOKEN: &str = "1.17.0";

/// Reads arguments and standard input, acts, answers.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let argv = std::iter::once(OsString::from("netavark")).chain(words);
    let args = match Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            // Help or version.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&Refusal::Usage(args::in_one_line(&error))),
    };
    match perform(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => fail(&refusal),
    }
}

fn fail(refusal: &Refusal) -> ExitCode {
    let error = refusal.to_string().replace('\n', " ");
    let _ = print(&ErrorReport { error });
    ExitCode::FAILURE
}

fn print(answer: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    io::stdout().lock().write_all(&text)
}

fn perform(args: &Args) -> Result<(), Refusal> {
    match &args.command {
        Command::Setup { netns } => {
            let settings = args.settings()?;
            let status = session::set_up(&settings, &read(args.file.as_deref())?, netns)?;
            // Who does not read it has its own reasons.
            let _ = print(&status);
            Ok(())
        }
        Command::Teardown { netns } => {
            hold_out();
            let settings = args.settings()?;
            session::tear_down(&settings, &read(args.file.as_deref())?, netns)
        }
        Command::Update {
            network,
            network_dns_servers,
        } => {
            let servers = args::servers(network_dns_servers)?;
            session::update(&args.settings()?, network, &servers)
        }
        Command::FirewallReload => session::reload(&args.settings()?),
        Command::Version => {
            let _ = print(&Version {
                version: SPOKEN,
                commit: format!("mossnet {}", env!("CARGO_PKG_VERSION")),
                build_time: "",
                target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
                default_fw_driver: "nftables",
            });
            Ok(())
        }
        Command::Create => Err(Refusal::Unsupported(
            "mossnet does not make network configurations for podman 6 yet: use podman up to 5, or \
             netavark itself, for 'podman network create'",
        )),
        Command::DhcpProxy { .. } => Err(Refusal::Unsupported(
            "mossnet has no DHCP proxy: give the network subnets, or use the ipam driver none and a DHCP \
             client in the container",
        )),
    }
}

fn read(file: Option<&Path>) -> Result<Request, Refusal> {
    let from = file.map_or("standard input".to_owned(), |file| {
        file.display().to_string()
    });
    let failed = |source| Refusal::Read {
        from: from.clone(),
        source,
    };
    let mut text = Vec::new();
    let most = MOST as u64 + 1;
    match file {
        Some(file) => File::open(file).and_then(|file| file.take(most).read_to_end(&mut text)),
        None => io::stdin().lock().take(most).read_to_end(&mut text),
    }
    .map_err(failed)?;
    if text.len() > MOST {
        return Err(Refusal::TooLong { most: MOST });
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Whoever ends podman's processes together ends the teardown last: SIGTERM and SIGINT wait.
fn hold_out() {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let _ = signals.thread_block();
}

#[cfg(test)]
mod tests;
