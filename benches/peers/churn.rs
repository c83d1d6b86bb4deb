//! Churn: connections and UDP flows come and go at a steady rate while memory is sampled.

use crate::contender::{Contender, Kind, Product, guarded, one_line};
use crate::load;
use crate::results::{Better, Results};
use crate::rounds::add;
use crate::usage;
use crate::world::World;
use std::time::{Duration, Instant};

/// Connections per second; one UDP flow to ten of them.
const RATE: usize = 500;
/// Samples of a test.
const SAMPLES: u32 = 60;

/// One test of each contender, one after the other.
pub fn measure(world: &World, kinds: &[Kind], seconds: u64, results: &mut Results) {
    let takes_part = |kind: &&Kind| !kind.streams_only && kind.product != Product::Native;
    for kind in kinds.iter().filter(takes_part) {
        let (grown, end) = match guarded(|| once(world, *kind, Duration::from_secs(seconds))) {
            Ok(samples) => {
                let shown: Vec<_> = samples.iter().map(|kib| format!("{kib:.0}")).collect();
                println!("{}, churn, resident KiB: {}", kind.name, shown.join(" "));
                (
                    Ok(growth(&samples, seconds)),
                    Ok(samples[samples.len() - 1] / 1024.0),
                )
            }
            Err(reason) => (Err(reason.clone()), Err(reason)),
        };
        let row = format!("churn of {seconds} s, growth in its second half");
        add(results, &row, "KiB/min", *kind, grown);
        results.add(
            &format!("churn of {seconds} s, memory at its end"),
            "MiB",
            Better::Lower,
            kind.name,
            end,
        );
        kind.shut_down(world);
    }
}

/// KiB per minute by which the second half grew: a line by least squares.
fn growth(samples: &[f64], seconds: u64) -> f64 {
    let half = &samples[samples.len() / 2..];
    let mean = half.iter().sum::<f64>() / half.len() as f64;
    let middle = (half.len() - 1) as f64 / 2.0;
    let (mut above, mut below) = (0.0, 0.0);
    for (at, sample) in half.iter().enumerate() {
        let distance = at as f64 - middle;
        above += distance * (sample - mean);
        below += distance * distance;
    }
    let per_sample = if below > 0.0 { above / below } else { 0.0 };
    per_sample * f64::from(SAMPLES) * 60.0 / seconds as f64
}

/// Resident KiB over the time of the test.
fn once(world: &World, kind: Kind, duration: Duration) -> Result<Vec<f64>, String> {
    let contender = Contender::start(world, kind)?;
    let holders = contender.holders();
    let mut load = contender.generator("churn", RATE, duration).start();
    let begin = Instant::now();
    let mut samples = Vec::new();
    for sample in 1..=SAMPLES {
        std::thread::sleep((duration * sample / SAMPLES).saturating_sub(begin.elapsed()));
        samples.push(usage::resident(&holders));
        if !load.is_alive() {
            break;
        }
    }
    let output = load.wait();
    if output.code != 0 {
        return Err(one_line(&output.stderr));
    }
    println!("{}, churn: {:?}", kind.name, load::parse(&output.stdout));
    Ok(samples)
}
