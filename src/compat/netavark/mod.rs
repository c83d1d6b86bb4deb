//! netavark's place: podman starts this for every container that it connects or disconnects.
//!
//! Called by the name `netavark`, or as `mossnet netavark`. Map, in the order of a call: `args` (flags
//! and environment) → `input` (JSON) → `plan` or `departure`, `options`, `ports` (pure) → `session` (what is done,
//! undone, remembered: `state`) → crate `mossnet_helper::foreign` and `ruleset` (kernel objects), `names`
//! (the name server's files) → `output` (JSON). Why it failed: `refusal`. A new network's configuration: `create`.
//!
//! Invariants: one JSON document on standard output, nothing else; a call that fails has changed nothing.
//! No process of mossnet's takes part: podman runs this inside its own namespaces, which nobody else could
//! reach, and what is made there ends with them.

mod args;
mod create;
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
use create::{Draft, Surroundings};
use input::MOST;
use mossnet_helper::IfName;
use mossnet_helper::foreign::Place;
use nix::sys::signal::{SigSet, Signal};
use output::{ErrorReport, Version};
use refusal::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which of netavark's versions we stand in for: the first with all of the commands.
const SPOKEN: &str = "2.0.0";

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
        Command::Create => {
            let _ = print(&create_network(args)?);
            Ok(())
        }
        Command::DhcpProxy { .. } => Err(Refusal::Unsupported(
            "mossnet has no DHCP proxy: give the network subnets, or use the ipam driver none and a DHCP \
             client in the container",
        )),
    }
}

fn create_network(args: &Args) -> Result<Draft, Refusal> {
    let request = read(args.file.as_deref())?;
    let mut place = Place::here()?;
    let mut is_there = |name: &IfName| Ok(place.link(name)?.is_some());
    // Without root the links are in podman's own namespace, and this is not run there.
    let rootless = args.rootless.unwrap_or(false);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    let around = Surroundings {
        links: (!rootless).then_some(&mut is_there),
        now: u64::try_from(now).unwrap_or(u64::MAX),
    };
    create::create(request, around)
}

fn read<T: DeserializeOwned>(file: Option<&Path>) -> Result<T, Refusal> {
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

/// What `setup`, `teardown` and `create` make of their input, without doing it: an error's words, or
/// nothing. For fuzzing.
pub fn rehearse(text: &[u8]) -> Result<(), String> {
    let words = |refusal: Refusal| refusal.to_string();
    if let Ok(request) = serde_json::from_slice(text) {
        let around = Surroundings {
            links: None,
            now: 0,
        };
        return create::create(request, around).map(drop).map_err(words);
    }
    let request = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let _ = departure::departures(&request);
    let ports = request.port_mappings.as_deref().unwrap_or_default();
    ports::ports(ports).map_err(words)?;
    plan::plan(&request).map(drop).map_err(words)
}

/// Whoever ends podman's processes together ends the teardown last: SIGTERM and SIGINT wait.
fn hold_out() {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let _ = signals.thread_block();
}

#[cfg(test)]
mod tests;
