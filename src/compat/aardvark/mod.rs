//! aardvark-dns's place: the name server of podman's networks, started by netavark (ours or the real one)
//! in the network namespace that holds the bridges.
//!
//! Called by the name `aardvark-dns`, or as `mossnet aardvark-dns`. `run` starts `serve` and returns when
//! that listens. Map: `config` (what netavark has written) → `serve` (the process) → the relay's name
//! server (`crate::relay::dns`), with its cache, its limits, and its care for names that are nobody
//! else's business.

mod config;
mod serve;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Which of aardvark-dns's versions we stand in for.
const SPOKEN: &str = "1.17.0";
/// What the server says when it listens.
const READY: &str = "ready\n";

/// aardvark-dns's place in podman, taken by mossnet.
#[derive(Debug, Parser)]
#[command(name = "aardvark-dns", version = SPOKEN, max_term_width = 100)]
struct Args {
    /// Directory of the networks' files.
    #[arg(short, long, global = true, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Port to listen at.
    #[arg(
        short,
        long,
        global = true,
        value_name = "PORT",
        default_value_t = 5533
    )]
    port: u16,
    /// Kept for those who give it; the domain is dns.podman.
    #[arg(short, long, global = true, value_name = "DOMAIN")]
    filter_search_domain: Option<String>,
    /// What to do.
    #[command(subcommand)]
    command: Words,
}

#[derive(Debug, Subcommand)]
enum Words {
    /// Serve names in the background, until no network is left.
    Run,
    /// The server itself.
    #[command(hide = true)]
    Serve,
    /// Say what this is.
    Version,
}

/// Reads arguments, acts.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let argv = std::iter::once(OsString::from("aardvark-dns")).chain(words);
    let args = match Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match (&args.command, &args.config) {
        (Words::Run | Words::Serve, None) => failed("no directory: give --config"),
        (Words::Run, Some(directory)) => run(directory, args.port),
        (Words::Serve, Some(directory)) => serve::serve(directory, args.port, READY),
        (Words::Version, _) => {
            println!(
                "{{\"version\":\"{SPOKEN}\",\"commit\":\"mossnet {}\"}}",
                env!("CARGO_PKG_VERSION")
            );
            ExitCode::SUCCESS
        }
    }
}

/// Starts the server, and waits until it listens or has failed.
fn run(directory: &Path, port: u16) -> ExitCode {
    let child = Command::new("/proc/self/exe")
        .arg0("aardvark-dns")
        .arg("--config")
        .arg(directory)
        .args(["-p", &port.to_string(), "serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut said = String::new();
    let heard = child.and_then(|mut child| match child.stdout.take() {
        Some(mut stdout) => stdout.read_to_string(&mut said).map(drop),
        None => Ok(()),
    });
    match heard {
        Ok(()) if said == READY => ExitCode::SUCCESS,
        Ok(()) => failed(said.trim()),
        Err(error) => failed(&format!("start the server: {error}")),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("aardvark-dns (mossnet): {why}");
    ExitCode::FAILURE
}
