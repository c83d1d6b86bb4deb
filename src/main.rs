//! argv to ExitCode, nothing else.
//!
//! Hidden first words make this binary one of its own helpers: `mossnet helper …` is the
//! capability-scoped part, `mossnet remover` waits for it, `mossnet relay` is the data plane,
//! `mossnet terminal` the other end of a detached sandbox's terminal, `mossnet probe` what `doctor`
//! tries in namespaces of its own. All start before any thread exists. Started by another name
//! (`netavark`, `pasta`, `mossnet-cni`), or with one as its first word, it speaks that program's dialect.

use mossnet::api::doctor;
use mossnet::api::paths::Paths;
use mossnet::cli::{self, Command, PodmanCommand};
use mossnet::compat::{self, podman::Act};
use mossnet::daemon;
use mossnet_helper::remover;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    if let Some((main, args)) = compat::find(std::env::args_os()) {
        return main(args);
    }
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(OsStr::to_str) {
        Some("helper") => return mossnet_helper::serve::main(args),
        Some(remover::WORD) => return remover::main(),
        Some("relay") => return mossnet::relay::run(),
        Some(daemon::KEEPER) => return daemon::keep(),
        Some("probe") => return doctor::probe::main(),
        _ => {}
    }
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let root = cli.root();
    let paths = Paths::resolve(root.as_deref());
    match cli.command {
        Command::Doctor(args) => {
            let report = doctor::run(&paths);
            cli::show(&report, args.format, report.works)
        }
        Command::Daemon(args) => daemon::run(daemon::Options {
            paths,
            idle: Duration::from_secs(args.idle),
            background: args.background,
        }),
        Command::Podman { command } => podman(command, &paths),
        Command::Cni => compat::speak("cni", of_root(root)),
        Command::OciHook => compat::speak("oci-hook", of_root(root)),
        Command::Netavark(args) => compat::speak("netavark", args.words),
        Command::AardvarkDns(args) => compat::speak("aardvark-dns", args.words),
        Command::Rootlessport(args) => compat::speak("rootlessport", args.words),
        Command::Pasta(args) => compat::speak("pasta", args.words),
        command => cli::run(command, paths),
    }
}

/// As the dialects have it that know of a daemon.
fn of_root(root: Option<PathBuf>) -> Vec<OsString> {
    let words = root.map(|root| [OsString::from("--root"), root.into_os_string()]);
    words.into_iter().flatten().collect()
}

fn podman(command: PodmanCommand, paths: &Paths) -> ExitCode {
    let (format, act) = match command {
        PodmanCommand::Install(args) => (args.format, Act::Install),
        PodmanCommand::Uninstall(args) => (args.format, Act::Uninstall),
        PodmanCommand::Status(args) => (args.format, Act::Status),
    };
    match compat::podman::perform(act, paths) {
        Ok((status, well)) => cli::show(&status, format, well),
        Err(error) => {
            cli::report(&error, None);
            ExitCode::FAILURE
        }
    }
}
