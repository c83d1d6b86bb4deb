//! `--pcap`: what the namespace sends and receives, written to a file as it comes.
//!
//! A process of its own, `pasta` with the word [`WORD`] in its environment, the router netns as standard input
//! and the file as standard output: it is `mossnet capture`, by the same code. The file's form is pcapng, which
//! whatever reads pcap reads. It ends with its maker, and with the interface.
//!
//! Sources: setns(2), PR_SET_PDEATHSIG in prctl(2).

use crate::api::capture::filter::Filter;
use crate::api::capture::{CaptureError, Interface, Job, MOST_BYTES, PacketFile, run_here};
use crate::error::one_line;
use mossnet_helper::request::Failure;
use mossnet_helper::router::Direct;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What the environment says to the process.
pub const WORD: &str = "recorder";
/// How long it may take to begin, and how often that is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(2);

/// Starts it, and waits until nothing is missed any more: the file has its head then.
pub fn start(
    netns: BorrowedFd<'_>,
    direct: &Direct,
    file: File,
    environment: &str,
) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::kernel("start the process that writes packets", e);
    let netns = netns.try_clone_to_owned().map_err(failed)?;
    let looked_at = file.try_clone().map_err(failed)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("pasta")
        .args([direct.router_ifname.as_str(), direct.ifname.as_str()])
        .env(environment, WORD)
        .stdin(netns)
        .stdout(file)
        .spawn()
        .map_err(failed)?;
    let end = Instant::now() + PATIENCE;
    while looked_at.metadata().map_err(failed)?.len() == 0 {
        let ended = child.try_wait().map_err(failed)?.is_some();
        if ended || Instant::now() > end {
            let _ = child.kill();
            return Err(Failure::kernel("write packets", Errno::EIO));
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// The process itself.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pasta (mossnet): write packets: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), CaptureError> {
    let entered = set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| setns(io::stdin().as_fd(), CloneFlags::CLONE_NEWNET));
    entered.map_err(|errno| CaptureError::Privileges(errno.into()))?;
    let mut names = std::env::args().skip(1);
    let mut name = || names.next().unwrap_or_default();
    let interface = Interface {
        router_name: name(),
        shown: name(),
        description: "pasta".to_owned(),
        endpoint: true,
    };
    let job = Job {
        interfaces: vec![interface],
        filter: Filter::default(),
        snaplen: MOST_BYTES,
        count: None,
        duration: None,
        file: Some(PacketFile::Stdout),
    };
    run_here(&job, || {}).map(drop)
}
