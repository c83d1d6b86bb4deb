//! The run: every measure of every contender, one contender after the other, round by round.

use crate::contender::{self, Contender, Kind, Product, guarded};
use crate::load::Measured;
use crate::measures::{self, Measure, Source};
use crate::results::{Better, MARK, Results};
use crate::settings::Settings;
use crate::usage;
use crate::world::{Running, World, enter, seconds};
use crate::{churn, flows, memory, startup};
use std::fmt::Write as _;
use std::time::Duration;

/// Runs everything that is wanted; the results are the last line that it prints.
pub fn run(world: &World, settings: &Settings) {
    contender::prepare(settings.outside.as_deref());
    let _servers = servers(world);
    let mut results = Results::default();
    let mut contenders = invited(world, settings);
    let kinds: Vec<Kind> = contenders.iter().map(|contender| contender.kind).collect();
    let control = outside();
    let mut quiet = Vec::new();
    for round in 1..=settings.rounds {
        quiet.push(usage::noise());
        for measure in measures::ALL
            .iter()
            .filter(|measure| settings.wants(measure.group))
        {
            let mut line = format!("round {round} of {}, {}:", settings.rounds, measure.title);
            for contender in &mut contenders {
                if contender.kind.streams_only && !measure.streams {
                    continue;
                }
                let first = one(world, contender, measure, settings, &control, &mut results);
                let _ = write!(line, " {first}");
            }
            println!("{line}");
        }
        // Who comes first measures lower in some rows.
        contenders.rotate_left(1);
        if settings.wants("startup") {
            startup::measure(world, &kinds, &mut results);
        }
        println!(
            "{MARK}{}",
            results.line(&conditions(settings, &control, &quiet))
        );
    }
    // The others need contenders without a past.
    drop(contenders);
    for kind in &kinds {
        kind.shut_down(world);
    }
    if settings.wants("flows") {
        flows::measure(world, &kinds, settings.rounds, &mut results);
    }
    if settings.wants("memory") {
        memory::measure(world, &kinds, &settings.flows, &mut results);
    }
    if settings.wants("churn") {
        churn::measure(world, &kinds, settings.churn, &mut results);
    }
    println!(
        "{MARK}{}",
        results.line(&conditions(settings, &control, &quiet))
    );
}

fn servers(world: &World) -> Running {
    let servers = world.server(["/run/world/bin/itself", "serve"]);
    let mut servers = servers.timeout(seconds(86_400)).start();
    servers.expect("serves");
    servers
}

/// Those that can be had here.
fn invited(world: &World, settings: &Settings) -> Vec<Contender> {
    let mut found = Vec::new();
    for kind in contender::ALL.iter().copied() {
        let streams = settings.wants("tcp") || !kind.streams_only;
        if !settings.invites(kind.name) || !streams {
            continue;
        }
        match Contender::start(world, kind) {
            Ok(contender) => found.push(contender),
            Err(reason) => enter::skip(&format!("{}: {reason}", kind.name)),
        }
    }
    found
}

fn outside() -> String {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    text.unwrap_or_default().trim().to_owned()
}

fn conditions(settings: &Settings, control: &str, quiet: &[f64]) -> serde_json::Value {
    serde_json::json!({
        "congestion_control_outside": control,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "cpu_used_by_others_before_each_round": quiet,
        "descriptor_limit": nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_or(0, |(_, hard)| hard),
    })
}

/// One measure of one contender; its first value, for the line of progress.
fn one(
    world: &World,
    contender: &mut Contender,
    measure: &Measure,
    settings: &Settings,
    control: &str,
    results: &mut Results,
) -> String {
    let duration = Duration::from_secs_f64(settings.seconds);
    let carriers = contender.carriers();
    let before = usage::processor_time(&carriers);
    let measured = guarded(|| {
        if measure.hosts_control {
            contender.congestion_control(control);
        }
        let beside = measure.loaded.then(|| stream_beside(contender, duration));
        let measured = contender.load(measure.load.0, measure.load.1, duration);
        drop(beside);
        measured
    });
    if measure.hosts_control {
        let _ = guarded(|| {
            contender.congestion_control("reno");
            Ok(())
        });
    }
    let used = usage::processor_time(&carriers) - before;
    note(contender.kind, measure, &measured, used, results);
    match measured {
        Ok(values) => values
            .get(if measure.loaded { "p50" } else { "rate" })
            .map_or("-".to_owned(), |value| crate::table::shown(*value)),
        Err(reason) => {
            println!("{}, {}: {reason}", contender.kind.name, measure.title);
            renew(world, contender);
            "failed".to_owned()
        }
    }
}

/// A bulk stream that has got going; it ends with what is returned.
fn stream_beside(contender: &Contender, duration: Duration) -> Running {
    let stream = contender.generator("stream-out", 1, duration + seconds(3));
    let stream = stream.start();
    std::thread::sleep(Duration::from_millis(300));
    stream
}

fn note(kind: Kind, measure: &Measure, measured: &Measured, used: f64, results: &mut Results) {
    for row in measure.rows {
        let name = format!("{}{}", measure.title, row.suffix);
        let value = match (measured, &row.source) {
            (Err(reason), _) => Err(reason.clone()),
            // Nobody carries for a native container.
            (_, Source::Processor(..)) if kind.product == Product::Native => continue,
            (Ok(values), Source::Value(name)) => {
                values.get(*name).copied().ok_or("not told".to_owned())
            }
            (Ok(values), Source::Processor(name, amount)) => {
                let done = values.get(*name).copied().unwrap_or(0.0);
                Ok(used * amount / done)
            }
        };
        results.add(&name, row.unit, row.better, kind.name, value);
    }
}

/// A peer that has failed starts anew, so that one stall costs one value; mossnet has to live with
/// what it has done.
fn renew(world: &World, contender: &mut Contender) {
    let kind = contender.kind;
    if matches!(kind.product, Product::Native | Product::Mossnet) && contender.is_alive() {
        return;
    }
    match Contender::start(world, kind) {
        Ok(fresh) => *contender = fresh,
        Err(reason) => println!("{}: not started again: {reason}", kind.name),
    }
}

/// Adds a row of a single value.
pub fn add(results: &mut Results, row: &str, unit: &str, kind: Kind, value: Result<f64, String>) {
    if let Err(reason) = &value {
        println!("{}, {row}: {reason}", kind.name);
    }
    results.add(row, unit, Better::Lower, kind.name, value);
}
