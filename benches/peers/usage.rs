//! What processes use, read from /proc.
//!
//! Processor time is that of the scheduler (schedstat, nanoseconds): the tick of /proc/PID/stat is too
//! coarse for a measurement of a second. It counts what the kernel does in the name of a process,
//! softirqs included, and misses what it does for it in the name of others: a share that all have.

use crate::world::inspect;
use std::fs;

/// A process and all that descend from it.
pub fn descendants(pid: i32) -> Vec<i32> {
    let all = inspect::processes();
    let parents: Vec<(i32, i32)> = all
        .iter()
        .filter_map(|process| {
            Some((
                process.pid,
                inspect::status(process.pid, "PPid").parse().ok()?,
            ))
        })
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found
}

/// Seconds that the processes have run.
pub fn processor_time(pids: &[i32]) -> f64 {
    let nanoseconds = |pid: &i32| -> u64 {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let each = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        each.sum()
    };
    pids.iter().map(nanoseconds).sum::<u64>() as f64 / 1e9
}

/// Resident KiB of the processes.
pub fn resident(pids: &[i32]) -> f64 {
    let kib = |pid: &i32| -> f64 {
        let text = inspect::status(*pid, "VmRSS");
        let number = text.split(' ').next().and_then(|text| text.parse().ok());
        number.unwrap_or(0.0)
    };
    pids.iter().map(kib).sum()
}

/// Share of all processors that somebody uses while this process sleeps: how quiet the machine is.
pub fn noise() -> f64 {
    let read = || -> Option<(u64, u64)> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<u64> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .filter_map(|n| n.parse().ok())
            .collect();
        Some((fields.iter().take(8).sum(), fields.get(3)? + fields.get(4)?))
    };
    let before = read();
    std::thread::sleep(std::time::Duration::from_millis(300));
    match (before, read()) {
        (Some((all, idle)), Some((all_then, idle_then))) if all_then > all => {
            1.0 - (idle_then - idle) as f64 / (all_then - all) as f64
        }
        _ => f64::NAN,
    }
}
