//! What runs and what is held in a world, read from /proc and from the router netns.

use super::command::Cmd;
use super::{ROOT, World, eventually, seconds};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line, arguments joined by spaces; of a zombie its name in brackets.
    pub line: String,
}

/// Every process of the world.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()));
    pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.is_empty() {
            line = format!("[{}]", status(pid, "Name"));
        }
        let line = line.trim_end().to_owned();
        Some(Process { pid, line })
    })
    .collect()
}

/// Processes of mossnet whose command line has the word `role`: `daemon`, `helper`, `relay`.
pub fn mossnet_processes(role: &str) -> Vec<i32> {
    processes_of("/run/world/bin/mossnet", role)
}

/// The same of whatever build `program` is.
pub fn processes_of(program: &str, role: &str) -> Vec<i32> {
    // By the file itself: helper and relay have left the file system in which it has a name.
    let identity = |path: &str| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let product = identity(program);
    let ours = |process: &Process| {
        let mut words = process.line.split(' ').skip(1);
        words.any(|word| word == role) && identity(&format!("/proc/{}/exe", process.pid)) == product
    };
    processes()
        .into_iter()
        .filter(ours)
        .map(|p| p.pid)
        .collect()
}

/// The one process of mossnet that has this role. Of two daemons that start at once, one ends by
/// itself.
#[track_caller]
pub fn the(role: &str) -> i32 {
    let deadline = Instant::now() + seconds(20);
    loop {
        let all = mossnet_processes(role);
        if let [one] = all[..] {
            return one;
        }
        assert!(
            Instant::now() < deadline,
            "expected one {role}, found {all:?} in {:#?}",
            processes()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills these processes, and waits until they are gone.
pub fn kill_hard(pids: &[i32]) {
    use nix::sys::signal::{Signal, kill};
    for pid in pids {
        let _ = kill(nix::unistd::Pid::from_raw(*pid), Signal::SIGKILL);
    }
    eventually(seconds(5), "killed processes are gone", || {
        pids.iter()
            .all(|pid| matches!(status(*pid, "State").chars().next(), None | Some('Z' | 'X')))
    });
}

/// Kills daemon, helper and relay, as a power cut would.
pub fn kill_everything() {
    let roles = ["daemon", "helper", "relay"];
    kill_hard(
        &roles
            .iter()
            .flat_map(|role| mossnet_processes(role))
            .collect::<Vec<_>>(),
    );
}

/// A field of /proc/PID/status, or nothing.
pub fn status(pid: i32, field: &str) -> String {
    status_at(&format!("/proc/{pid}/status"), field)
}

/// A field of a status file, or nothing.
pub fn status_at(path: &str, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(name, _)| *name == field);
    values
        .next()
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// Processor time that a process has used. Source: proc_pid_stat(5); a clock tick is 10 ms.
pub fn processor_time(pid: i32) -> Duration {
    processor_time_at(&format!("/proc/{pid}/stat"))
}

/// The same of each thread, by its name.
pub fn thread_times(pid: i32) -> Vec<(String, Duration)> {
    let thread = |tid| {
        let task = format!("/proc/{pid}/task/{tid}");
        let name = fs::read_to_string(format!("{task}/comm")).ok()?;
        let time = processor_time_at(&format!("{task}/stat"));
        Some((name.trim().to_owned(), time))
    };
    threads(pid).into_iter().filter_map(thread).collect()
}

fn processor_time_at(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The relay, when its rings have come, for which it has threads and sockets until then.
pub fn complete_relay() -> i32 {
    let relay = the("relay");
    eventually(seconds(10), "the rings of the relay", || {
        thread_times(relay)
            .iter()
            .all(|(name, _)| !name.starts_with("ring"))
    });
    relay
}

/// Thread ids of a process.
pub fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let names = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// What the descriptors of a process refer to.
pub fn descriptors(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

/// A path that opens the router netns, while helper and relay run.
pub fn router_netns() -> Option<PathBuf> {
    let host = fs::read_link("/proc/self/ns/net").ok()?;
    let mut candidates = Vec::new();
    for role in ["relay", "helper"] {
        for pid in mossnet_processes(role) {
            for (directory, suffix) in [("task", "ns/net"), ("fd", "")] {
                let entries = fs::read_dir(format!("/proc/{pid}/{directory}")).into_iter();
                candidates.extend(entries.flatten().flatten().map(|e| e.path().join(suffix)));
            }
        }
    }
    candidates.into_iter().find(|path| {
        fs::read_link(path)
            .is_ok_and(|link| link != host && link.to_string_lossy().starts_with("net:["))
    })
}

/// A program run in the router netns.
#[track_caller]
pub fn in_router<const N: usize>(argv: [&str; N]) -> Cmd {
    let path = router_netns().expect("a router netns");
    // Without the slash that an empty suffix left: nsenter opens the link itself.
    let path = path.to_string_lossy().trim_end_matches('/').to_owned();
    Cmd::new([
        "nsenter".to_owned(),
        format!("--net={path}"),
        "--".to_owned(),
    ])
    .then(argv)
}

/// Names of the interfaces in the router netns that start with `prefix`.
pub fn router_interfaces(prefix: &str) -> BTreeSet<String> {
    if router_netns().is_none() {
        return BTreeSet::new();
    }
    let links = in_router(["ip", "-o", "link", "show"]).ok();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    let names = names.map(|name| name.split('@').next().unwrap_or(name).to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Prints processes and logs, for the reader of a failed test.
pub fn print_state() {
    println!("--- processes of the world");
    for process in processes() {
        println!("{} {}", process.pid, process.line);
    }
    let mut logs: Vec<PathBuf> = Vec::new();
    let roots = fs::read_dir("/run/world").into_iter().flatten().flatten();
    for root in roots {
        let files = fs::read_dir(root.path().join("run")).into_iter().flatten();
        logs.extend(files.flatten().map(|file| file.path()));
    }
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    for log in logs {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(6000)..]).into_owned();
        println!("--- {}\n{text}", log.display());
    }
}

impl World {
    /// Endpoints without a sandbox, sandboxes without a record, files of neither.
    fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let listed = self.mossnet(["ps", "-a", "-q", "--no-trunc"]).ok();
        let listed: BTreeSet<&str> = listed.lines().collect();
        let recorded = self.recorded_interfaces();
        for veth in router_interfaces("ve-").difference(&recorded) {
            found.push(format!("interface of no endpoint: {veth}"));
        }
        let directories = fs::read_dir(Path::new(ROOT).join("run/sandboxes"));
        for directory in directories.into_iter().flatten().flatten() {
            let name = directory.file_name().to_string_lossy().into_owned();
            if !listed.contains(name.as_str()) {
                found.push(format!("directory of an unknown sandbox: {name}"));
            }
        }
        for role in ["daemon", "helper", "relay"] {
            let pids = mossnet_processes(role);
            if pids.len() > 1 {
                found.push(format!("several processes of {role}: {pids:?}"));
            }
        }
        found
    }

    /// Fails the test if what is gone for the user still holds something.
    #[track_caller]
    pub fn check_leftovers(&self) {
        if mossnet_processes("daemon").is_empty() || !Path::new(ROOT).exists() {
            return;
        }
        let mut last = Vec::new();
        let deadline = Instant::now() + seconds(20);
        while Instant::now() < deadline {
            last = self.leftovers();
            if last.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("left behind: {last:#?}");
    }

    /// Descriptors of the relay that are sockets or pipes, once their number no longer changes.
    pub fn relay_descriptors(&self) -> usize {
        let count = || {
            let all = descriptors(the("relay"));
            let moving = |link: &&String| link.starts_with("socket:") || link.starts_with("pipe:");
            all.iter().filter(moving).count()
        };
        let mut last = count();
        eventually(
            seconds(10),
            "a steady number of descriptors in the relay",
            || {
                // Longer than the second after which sockets made ahead are dropped that nobody needed.
                std::thread::sleep(Duration::from_millis(1100));
                let before = std::mem::replace(&mut last, count());
                before == last
            },
        );
        last
    }
}
