//! Memory of idle flows: connections that were used once and are kept.

use crate::contender::{Contender, Kind, Product, guarded, one_line};
use crate::results::{Better, Results};
use crate::rounds::add;
use crate::usage;
use crate::world::World;
use nix::sys::resource::{Resource, getrlimit};
use std::time::Duration;

/// Both ends, one descriptor a flow, are our own.
const OWN: usize = 100;

/// Each size of each contender, always with one that has just started.
pub fn measure(world: &World, kinds: &[Kind], sizes: &[usize], results: &mut Results) {
    let takes_part = |kind: &&Kind| !kind.streams_only && kind.product != Product::Native;
    for size in sizes {
        for kind in kinds.iter().filter(takes_part) {
            let (each, all) = match guarded(|| once(world, *kind, *size)) {
                Ok((base, held)) => (Ok((held - base) * 1024.0 / *size as f64), Ok(held)),
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
            if kind.product == Product::Mossnet {
                let _ = world.mossnet(["shutdown", "--all"]).run();
            }
        }
    }
}

fn thousands(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        more => format!("{more},{:03}", number % 1000),
    }
}

/// Resident KiB of those who hold the flows: before, and with `size` flows.
fn once(world: &World, kind: Kind, size: usize) -> Result<(f64, f64), String> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    if (size + OWN) as u64 > limit {
        return Err(format!(
            "not possible: the load generator may have {limit} descriptors"
        ));
    }
    let contender = Contender::start(world, kind)?;
    // What the first flow brings in is not a flow's.
    contender.load("requests", 8, Duration::from_millis(200))?;
    std::thread::sleep(Duration::from_millis(300));
    let holders = contender.holders();
    let base = usage::resident(&holders);
    let mut load = contender
        .generator("idle", size, Duration::from_secs(60))
        .start();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !load.stdout().contains("held") {
        if !load.is_alive() {
            return Err(one_line(&load.wait().stderr));
        }
        if std::time::Instant::now() > deadline {
            return Err("not all flows within a minute".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    Ok((base, usage::resident(&holders)))
}
