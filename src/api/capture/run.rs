//! One capture, from the sockets to the last line.
//!
//! Invariant: frames that were in a ring when the end came are written still; who reads no more ends it.

use super::filter::Filter;
use super::output::Output;
use super::{CaptureError, Interface, pcapng, summary};
use crate::api::enter::enter_router;
use crate::api::paths::Paths;
use crate::api::types::Info;
use crate::sys::capture::{LATENCY_MS, Ring};
use caps::CapSet;
use mossnet_helper::router::main_bridge;
use nix::errno::Errno;
use nix::net::if_::{if_nameindex, if_nametoindex};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is to be captured, and where it goes.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where.
    pub interfaces: Vec<Interface>,
    /// What.
    pub filter: Filter,
    /// Most bytes of a packet that are kept.
    pub snaplen: u32,
    /// Ends after so many packets.
    pub count: Option<u64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
    /// Standard output takes lines, where there is none; a file's form is pcapng.
    pub file: Option<PacketFile>,
}

/// A file of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PacketFile {
    /// Made anew, for the user only.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets written.
    pub captured: u64,
    /// Packets that found no room, since we were too slow.
    pub dropped: u64,
}

/// Captures until it is told to end, by itself or by SIGINT, SIGTERM or SIGHUP; calls `begun` when nothing
/// is missed any more.
pub fn run(
    paths: &Paths,
    info: &Info,
    job: &Job,
    begun: impl FnOnce(),
) -> Result<Tally, CaptureError> {
    let _daemon_stays = enter_router(paths, info)?;
    run_here(job, begun)
}

/// The same from inside the netns of the interfaces.
pub fn run_here(job: &Job, begun: impl FnOnce()) -> Result<Tally, CaptureError> {
    let sources = open_all(job)?;
    give_up_capabilities().map_err(CaptureError::Privileges)?;
    let output = open_output(job.file.as_ref())?;
    let signals = block_signals().map_err(CaptureError::Wait)?;
    let mut capture = Capture {
        sources,
        output,
        signals,
        lines: job.file.is_none(),
        left: job.count,
    };
    let written = capture.begin(job.snaplen).and_then(|()| {
        begun();
        capture.follow(job.duration)
    });
    match written {
        // Whoever read it has seen enough.
        Err(CaptureError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        ended => ended?,
    }
    Ok(capture.tally())
}

/// Every bridge of a network, the endpoints of a sandbox.
fn open_all(job: &Job) -> Result<Vec<Source>, CaptureError> {
    let program = job.filter.program(job.snaplen);
    let mut sources = Vec::new();
    for interface in job.interfaces.iter().flat_map(with_extensions) {
        let failed = |source| CaptureError::Open {
            interface: interface.router_name.clone(),
            source,
        };
        let index = if_nametoindex(interface.router_name.as_str());
        let index = index.map_err(|errno| failed(errno.into()))?;
        // A bridge gives what it passes on from one endpoint to another only to who asks for all.
        let ring = Ring::open(index, &program, !interface.endpoint).map_err(failed)?;
        sources.push(Source {
            ring,
            captured: 0,
            dropped: 0,
            gone: false,
            interface,
        });
    }
    Ok(sources)
}

/// A network of many sandboxes has further bridges, which the daemon does not know of.
fn with_extensions(interface: &Interface) -> Vec<Interface> {
    let mut all = vec![interface.clone()];
    if interface.endpoint {
        return all;
    }
    let Ok(links) = if_nameindex() else {
        return all;
    };
    for link in &links {
        let Ok(name) = link.name().to_str() else {
            continue;
        };
        let main = main_bridge(name);
        let extends = main.is_some_and(|main| main.as_str() == interface.router_name);
        if extends && name != interface.router_name {
            all.push(Interface {
                router_name: name.to_owned(),
                ..interface.clone()
            });
        }
    }
    all
}

/// The sockets are all that is needed; who reads what others send should hold nothing else.
fn give_up_capabilities() -> io::Result<()> {
    let sets = [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ];
    for set in sets {
        caps::clear(None, set).map_err(|_| io::Error::last_os_error())?;
    }
    Ok(prctl::set_no_new_privs()?)
}

fn open_output(target: Option<&PacketFile>) -> Result<Output, CaptureError> {
    let file = match target {
        Some(PacketFile::Path(path)) => {
            let failed = |source| CaptureError::File {
                path: path.clone(),
                source,
            };
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(path).map_err(failed)?
        }
        Some(PacketFile::Stdout) | None => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            stdout.map_err(CaptureError::Write)?.into()
        }
    };
    Output::new(file).map_err(CaptureError::Write)
}

fn block_signals() -> io::Result<SignalFd> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&signals, flags)?)
}

/// One interface.
struct Source {
    interface: Interface,
    ring: Ring,
    captured: u64,
    dropped: u64,
    gone: bool,
}

struct Capture {
    sources: Vec<Source>,
    output: Output,
    /// Never read: what has come stays, for all who look.
    signals: SignalFd,
    /// As lines, not as a file.
    lines: bool,
    /// Packets to go.
    left: Option<u64>,
}

/// What there was to wait for.
#[derive(PartialEq, Eq)]
enum Event {
    Packets,
    End,
}

impl Capture {
    fn begin(&mut self, snaplen: u32) -> Result<(), CaptureError> {
        if !self.lines {
            pcapng::section(&mut self.output.buffer);
            for source in &self.sources {
                let interface = &source.interface;
                let about = &interface.description;
                pcapng::interface(&mut self.output.buffer, &interface.shown, about, snaplen);
            }
        }
        self.flush()
    }

    fn follow(&mut self, duration: Option<Duration>) -> Result<(), CaptureError> {
        let end = duration.map(|duration| Instant::now() + duration);
        while self.left != Some(0) && self.wait(end)? == Event::Packets {
            self.drain()?;
            self.flush()?;
        }
        self.finish()
    }

    /// What had come before the end, which the kernel hands over within a moment.
    fn finish(&mut self) -> Result<(), CaptureError> {
        for source in &self.sources {
            source.ring.stop().map_err(CaptureError::Wait)?;
        }
        let end = Instant::now() + Duration::from_millis(LATENCY_MS.into());
        while self.left != Some(0) && Instant::now() < end {
            let rest = end.saturating_duration_since(Instant::now());
            let rings = self.sources.iter().map(|source| source.ring.as_fd());
            let mut fds: Vec<_> = rings.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            waited(poll(&mut fds, timeout(Some(rest))))?;
            self.drain()?;
        }
        self.drain()?;
        self.count_dropped();
        if !self.lines {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default();
            // Until 2106.
            let now = (now.as_secs() as u32, now.subsec_nanos());
            for (number, source) in (0..).zip(&self.sources) {
                let counts = (source.captured, source.dropped);
                pcapng::statistics(&mut self.output.buffer, number, now, counts);
            }
        }
        self.flush()
    }

    /// Waits for packets, or for a reason to end.
    fn wait(&mut self, end: Option<Instant>) -> Result<Event, CaptureError> {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(Event::End);
        }
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let rings = self.sources.iter().map(|source| source.ring.as_fd());
        fds.extend(rings.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Nothing is asked of the reader; that it is gone is always told.
        let reader = self.output.reader();
        fds.extend(reader.map(|fd| PollFd::new(fd, PollFlags::empty())));
        waited(poll(&mut fds, timeout(left)))?;
        let told = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        let told: Vec<PollFlags> = fds.iter().map(told).collect();
        let (signal, told) = told.split_at(1);
        if signal.iter().any(|signal| !signal.is_empty()) {
            return Ok(Event::End);
        }
        for (source, told) in self.sources.iter_mut().zip(told) {
            source.gone |= told.contains(PollFlags::POLLERR) && source.ring.error().is_some();
        }
        let reader = told.get(self.sources.len());
        if reader.is_some_and(|reader| reader.contains(PollFlags::POLLERR)) {
            return Err(CaptureError::Write(io::ErrorKind::BrokenPipe.into()));
        }
        if self.sources.iter().all(|source| source.gone) {
            return Ok(Event::End);
        }
        Ok(Event::Packets)
    }

    /// Writes what is in the rings.
    fn drain(&mut self) -> Result<(), CaptureError> {
        let output = &mut self.output;
        for (number, source) in (0..).zip(&mut self.sources) {
            let interface = &source.interface;
            while let Some(block) = source.ring.next_block() {
                for frame in block.frames() {
                    if self.left == Some(0) {
                        return Ok(());
                    }
                    // What the router's end of a pair sends, the endpoint receives.
                    let inward = frame.outgoing == interface.endpoint;
                    if self.lines {
                        summary::line(&mut output.buffer, &interface.shown, &frame, inward);
                    } else {
                        pcapng::packet(&mut output.buffer, number, &frame, inward);
                    }
                    source.captured += 1;
                    self.left = self.left.map(|left| left - 1);
                    output.settle(&self.signals).map_err(CaptureError::Write)?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CaptureError> {
        let flushed = self.output.flush(&self.signals);
        flushed.map_err(CaptureError::Write)
    }

    /// The kernel begins anew each time that it is asked.
    fn count_dropped(&mut self) {
        for source in &mut self.sources {
            source.dropped += source.ring.dropped().unwrap_or(0);
        }
    }

    fn tally(&mut self) -> Tally {
        self.count_dropped();
        Tally {
            captured: self.sources.iter().map(|source| source.captured).sum(),
            dropped: self.sources.iter().map(|source| source.dropped).sum(),
        }
    }
}

/// Whole milliseconds, and one more, so that what is waited for is there then.
fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else {
        return PollTimeout::NONE;
    };
    let milliseconds = left.as_millis() + 1;
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

fn waited(polled: nix::Result<i32>) -> Result<(), CaptureError> {
    match polled {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(CaptureError::Wait(errno.into())),
    }
}
