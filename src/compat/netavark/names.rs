//! The name server's files, and the name server itself: started when it is needed, told when the files
//! change. It may be ours or netavark's.
//!
//! One file for each network, `NAME` or `NAME%int`: the first line is where to listen and whom to ask,
//! each other line a container (`ID v4 v6 names servers`). Invariant: a file is replaced as a whole;
//! called under the lock of the record. Source: aardvark-dns's documentation.

use super::plan::NamesPlan;
use super::refusal::Refusal;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Where it leaves its process id, decimal, without a newline.
pub const PID_FILE: &str = "aardvark.pid";
/// What an internal network's file ends with.
pub const INTERNAL: &str = "%int";
/// Name of the program, to be found in a process's arguments.
const PROGRAM: &str = "aardvark-dns";
/// How the arguments of our own server end.
const OURS: &[u8] = b"\0serve\0";
/// How long it is waited for, and how often it is looked for.
const PATIENCE: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_micros(300);
/// Where new files are made, beside the directory that the server reads.
const NEW: &str = "aardvark.new";

/// The files and the server of one configuration directory.
#[derive(Debug)]
pub struct NameServer {
    parent: PathBuf,
    directory: PathBuf,
    program: Option<PathBuf>,
    port: u16,
}

impl NameServer {
    /// Of podman's configuration directory. `program`: the server, ours where it is not there.
    pub fn new(parent: &Path, program: Option<PathBuf>, port: u16) -> Self {
        Self {
            parent: parent.to_owned(),
            directory: parent.join(PROGRAM),
            program: program.filter(|program| program.exists()),
            port,
        }
    }

    /// Adds a container to a network's file.
    pub fn add(&self, network: &str, id: &str, names: &NamesPlan) -> Result<(), Refusal> {
        let failed = |what: String| move |source| Refusal::Dns { what, source };
        fs::create_dir_all(&self.directory)
            .map_err(failed(format!("make {}", self.directory.display())))?;
        let path = self.file(network, names.internal);
        let old = read(&path).map_err(failed(format!("read {}", path.display())))?;
        let mut lines: Vec<String> = old.unwrap_or_default().lines().map(str::to_owned).collect();
        if lines.is_empty() {
            lines.push(first_line(&names.gateways, &names.network_servers));
        }
        lines.retain(|line| !is_of(line, id));
        lines.push(entry(id, names));
        self.write(&path, &lines)
    }

    /// Takes a container out of a network's file; whether it was there. The last one takes the file along.
    pub fn remove(&self, network: &str, id: &str) -> Result<bool, Refusal> {
        let mut was = false;
        for internal in [false, true] {
            let path = self.file(network, internal);
            let old = read(&path).map_err(|source| Refusal::Dns {
                what: format!("read {}", path.display()),
                source,
            })?;
            let Some(old) = old.filter(|old| old.lines().any(|line| is_of(line, id))) else {
                continue;
            };
            was = true;
            let lines = old.lines().filter(|line| !is_of(line, id));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            if lines.len() > 1 {
                self.write(&path, &lines)?;
            } else {
                fs::remove_file(&path).map_err(|source| Refusal::Dns {
                    what: format!("remove {}", path.display()),
                    source,
                })?;
            }
        }
        Ok(was)
    }

    /// Gives a network other resolvers.
    pub fn set_servers(&self, network: &str, servers: &[IpAddr]) -> Result<(), Refusal> {
        let mut known = false;
        for internal in [false, true] {
            let path = self.file(network, internal);
            let old = read(&path).map_err(|source| Refusal::Dns {
                what: format!("read {}", path.display()),
                source,
            })?;
            let Some(old) = old else { continue };
            let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
            if let Some(first) = lines.first_mut() {
                let listen = first.split_whitespace().next().unwrap_or_default();
                *first = with_servers(listen, servers);
                known = true;
            }
            self.write(&path, &lines)?;
        }
        match known {
            true => Ok(()),
            false => Err(Refusal::NoSuchZone(network.to_owned())),
        }
    }

    /// Has the server read the files again; starts it where it does not run.
    pub fn tell(&self, start: bool) -> Result<(), Refusal> {
        if let Some(pid) = self.pid() {
            // Podman may have made itself another network namespace, and left the server in the old one.
            let signal = match is_here(pid) {
                true => Signal::SIGHUP,
                false => Signal::SIGTERM,
            };
            let before = SystemTime::now();
            match kill(pid, signal) {
                Ok(()) if signal == Signal::SIGHUP => {
                    self.wait(pid, before);
                    return Ok(());
                }
                Ok(()) => {}
                Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(Refusal::Dns {
                        what: format!("signal process {pid}"),
                        source: errno.into(),
                    });
                }
            }
        }
        match start {
            true => self.start(),
            false => Ok(()),
        }
    }

    /// Until it has read the files, if it is one of ours: those set the time of the process id's file to that
    /// of their last look. Nothing fails where it takes longer.
    fn wait(&self, pid: Pid, since: SystemTime) {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !arguments.ends_with(OURS) {
            return;
        }
        let deadline = since + PATIENCE;
        let file = self.directory.join(PID_FILE);
        let looked = || fs::metadata(&file).and_then(|metadata| metadata.modified());
        while looked().is_ok_and(|at| at < since) && SystemTime::now() < deadline {
            std::thread::sleep(INTERVAL);
        }
    }

    /// The server's process, if it is one.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.directory.join(PID_FILE)).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        // A number may have been given to another process meanwhile.
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is = arguments
            .windows(PROGRAM.len())
            .any(|part| part == PROGRAM.as_bytes());
        (pid > 1 && is).then(|| Pid::from_raw(pid))
    }

    /// It goes into the background once it listens; until then its parent lives.
    fn start(&self) -> Result<(), Refusal> {
        let failed = |source| Refusal::Dns {
            what: "start it".to_owned(),
            source,
        };
        let ourselves = Path::new("/proc/self/exe");
        let program = self.program.as_deref().unwrap_or(ourselves);
        let own = fs::canonicalize(program).ok() == fs::canonicalize(ourselves).ok();
        let output = Command::new(program)
            .arg0(PROGRAM)
            .arg("--config")
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "run"])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ours lets go of it; another one may not, and would be waited for as long as it lives.
            .stderr(if own { Stdio::piped() } else { Stdio::null() })
            .output()
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let words = if words.is_empty() {
            format!("{} failed: {}", program.display(), output.status)
        } else {
            words
        };
        Err(failed(io::Error::other(words)))
    }

    fn file(&self, network: &str, internal: bool) -> PathBuf {
        let suffix = if internal { INTERNAL } else { "" };
        self.directory.join(format!("{network}{suffix}"))
    }

    fn write(&self, path: &Path, lines: &[String]) -> Result<(), Refusal> {
        let new = self.parent.join(NEW);
        let text = lines.join("\n") + "\n";
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
        written.map_err(|source| Refusal::Dns {
            what: format!("write {}", path.display()),
            source,
        })
    }
}

/// A process in this network namespace, or one of which that is not known.
fn is_here(pid: Pid) -> bool {
    let netns = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    match (netns(&pid.to_string()), netns("self")) {
        (Some(its), Some(ours)) => its == ours,
        _ => true,
    }
}

/// What is in a file, if there is one.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_of(line: &str, id: &str) -> bool {
    line.split(' ').next() == Some(id)
}

fn joined<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    addresses.join(",")
}

fn first_line(gateways: &[IpAddr], servers: &[IpAddr]) -> String {
    with_servers(&joined(gateways.iter()), servers)
}

fn with_servers(listen: &str, servers: &[IpAddr]) -> String {
    match servers {
        [] => listen.to_owned(),
        servers => format!("{listen} {}", joined(servers.iter())),
    }
}

fn entry(id: &str, names: &NamesPlan) -> String {
    let of_family = |v4: bool| joined(names.addresses.iter().filter(move |a| a.is_ipv4() == v4));
    let words = names.names.join(",");
    let line = format!("{id} {} {} {words}", of_family(true), of_family(false));
    match names.servers.as_slice() {
        [] => line,
        servers => format!("{line} {}", joined(servers.iter())),
    }
}

#[cfg(test)]
mod tests;
