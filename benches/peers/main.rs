//! mossnet beside native veth and the rootless peers, row by row, in one run.
//!
//! Job: `cargo bench --bench peers [-- FLAGS]`, as root or as any user; `-- --help` names the flags. It
//! builds a small internet of network namespaces; every contender is a container netns with a way to
//! the same server. Each row is measured of one contender after the other before the next row comes,
//! round by round, so that a noisy minute hits everybody. What fails is noted with its reason, and the
//! run goes on. Invariants: products run as an unprivileged user without a capability; everything is in
//! a pid namespace that ends with this process, however that ends.
//!
//! * `settings`: flags. `contender`: who they are. `measures`: the loads and the rows they give.
//!   `rounds`: the run. `usage`: processor time and memory of the helper processes.
//! * `startup`, `flows`, `memory`, `churn`: rows with contenders of their own.
//! * `results`: values, medians, JSON. `goals`: issue 5's. `table`, `plot`, `readme`: for people.

// A benchmark that panics is a benchmark that failed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/world/mod.rs"]
mod world;

#[allow(dead_code, unused_imports)] // Not every benchmark wants everything.
#[path = "../load/mod.rs"]
mod load;

#[path = "../report/median.rs"]
mod median;

mod churn;
mod contender;
mod flows;
mod goals;
mod measures;
mod memory;
mod plot;
mod readme;
mod results;
mod rounds;
mod settings;
mod startup;
mod table;
mod usage;

use results::Results;
use settings::Settings;
use std::fs;
use std::process::ExitCode;
use world::{World, enter};

/// Where the load generator is sent, and the host's name server.
const TARGET: &str = "198.18.0.2";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("load") => return load::client(&args[2..]),
        Some("serve") => load::serve(),
        // The settings are in the environment.
        Some("--exact") => {}
        _ => {
            if let Some(code) = settings::into_environment(&args[1..]) {
                return code;
            }
        }
    }
    // One within the world, which prints its results for the outermost.
    let stage = args.get(1).is_some_and(|arg| arg == "--exact");
    let settings = Settings::from_environment();
    let deadline = settings.deadline();
    if !stage {
        memory::raise_hard_limit();
    }
    let mut results = Results::default();
    if settings.rounds > 0 {
        let builder = World::builder()
            .tun()
            .resolv_conf(&format!("nameserver {TARGET}\n"))
            .deadline(deadline.as_secs());
        let text = enter::enter_live(deadline, "peers", enter::Powers::User, || {
            builder.run_here(|world| rounds::run(world, &settings));
        });
        if stage {
            return ExitCode::SUCCESS;
        }
        results = Results::from_output(&text);
    }
    tell(&settings, results);
    ExitCode::SUCCESS
}

/// Joins the results with those of earlier runs; prints and writes them.
fn tell(settings: &Settings, results: Results) {
    let results = match &settings.merge {
        Some(path) => Results::read(path).joined(results),
        None => results,
    };
    let goals = goals::judge(&results);
    print!("{}", table::markdown(&results));
    print!("{}", goals::text(&goals));
    print!("{}", table::failures(&results));
    let json = results.json(&goals);
    let mut files = vec![(&settings.json, json), (&settings.svg, plot::svg(&results))];
    if let Some(path) = &settings.readme {
        let before = fs::read_to_string(path).expect("read the document");
        files.push((path, readme::remade(&before, &results, &goals)));
    }
    for (path, text) in files {
        // Cargo makes its own directory once; it may be gone since.
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).expect("make the directory of the results");
        }
        fs::write(path, text).expect("write the results");
        println!("written to {}", path.display());
    }
}
