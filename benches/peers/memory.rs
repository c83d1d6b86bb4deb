//! Memory of idle flows: connections that were used once and are kept.

use crate::contender::{Contender, Kind, Product, guarded, one_line};
use crate::results::{Better, Results};
use crate::rounds::add;
use crate::usage;
use crate::world::World;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Both ends, one descriptor a flow, are our own.
const OWN: usize = 100;

/// Lets everything that is started from here have as many descriptors as the machine allows one
/// process, where we are root: 50,000 flows want more than a login usually gets.
pub fn raise_hard_limit() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open");
    let most = most.ok().and_then(|text| text.trim().parse().ok());
    if let (Some(most), Ok((soft, hard))) = (most, getrlimit(Resource::RLIMIT_NOFILE))
        && most > hard
    {
        // Refused to whoever is not root: then the rows say what was not possible.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, most);
    }
}

/// Each size of each contender, always with one that has just started.
pub fn measure(world: &World, kinds: &[Kind], sizes: &[usize], results: &mut Results) {
    let takes_part = |kind: &&Kind| !kind.streams_only && kind.product != Product::Native;
    // Bytes of a flow, as the size before has shown.
    let mut known = BTreeMap::new();
    for size in sizes {
        for kind in kinds.iter().filter(takes_part) {
            let fits = fits(known.get(kind.name).copied(), *size);
            let (each, all) = match fits.and_then(|()| guarded(|| once(world, *kind, *size))) {
                Ok((base, held)) => {
                    let each = (held - base) * 1024.0 / *size as f64;
                    known.insert(kind.name, each);
                    (Ok(each), Ok(held))
                }
                Err(reason) => (Err(reason.clone()), Err(reason)),
            };
            let name = thousands(*size);
            add(
                results,
                &format!("memory of an idle flow, {name} flows"),
                "bytes",
                *kind,
                each,
            );
            let all = all.map(|kib| kib / 1024.0);
            results.add(
                &format!("memory in all, {name} flows"),
                "MiB",
                Better::Lower,
                kind.name,
                all,
            );
            kind.shut_down(world);
        }
    }
}

fn thousands(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        more => format!("{more},{:03}", number % 1000),
    }
}

/// A contender may take half of the memory that is there.
fn fits(each: Option<f64>, size: usize) -> Result<(), String> {
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<f64> = line.and_then(|line| {
        line.trim()
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
    });
    match (each, kib) {
        (Some(each), Some(kib)) if each * size as f64 > kib * 512.0 => Err(format!(
            "not tried: {:.1} GiB at {each:.0} bytes a flow, where {:.1} GiB are available",
            gib(each * size as f64),
            gib(kib * 1024.0)
        )),
        _ => Ok(()),
    }
}

/// Resident KiB of those who hold the flows: before, and with `size` flows.
fn once(world: &World, kind: Kind, size: usize) -> Result<(f64, f64), String> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    if (size + OWN) as u64 > limit {
        return Err(format!(
            "not possible: the load generator may have {limit} descriptors (CAP_SYS_RESOURCE raises it)"
        ));
    }
    let contender = Contender::start(world, kind)?;
    // What the first flow brings in is not a flow's.
    contender.load("requests", 8, Duration::from_millis(200))?;
    std::thread::sleep(Duration::from_millis(300));
    let holders = contender.holders();
    let base = usage::resident(&holders);
    let patience = Duration::from_secs(60);
    let mut load = contender.generator("idle", size, patience).start();
    let deadline = Instant::now() + patience;
    while !load.stdout().contains("held") {
        if !load.is_alive() {
            return Err(one_line(&load.wait().stderr));
        }
        if Instant::now() > deadline {
            return Err("not all flows within a minute".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    Ok((base, usage::resident(&holders)))
}
