//! Flags, each also a variable of the environment, by which the stages of a world hear of them.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Flag, variable, meaning.
const FLAGS: [(&str, &str, &str); 12] = [
    (
        "--rounds",
        "MOSSNET_BENCH_ROUNDS",
        "interleaved rounds (5); 0 only shows what --merge names",
    ),
    (
        "--seconds",
        "MOSSNET_BENCH_SECONDS",
        "length of each measurement (1)",
    ),
    (
        "--rows",
        "MOSSNET_BENCH_ROWS",
        "groups of rows, with commas (all)",
    ),
    (
        "--only",
        "MOSSNET_BENCH_ONLY",
        "contenders, by the beginning of their names, with commas (all)",
    ),
    (
        "--other-builds",
        crate::contender::OTHER_BUILDS,
        "other builds of mossnet beside this one: NAME=PROGRAM, with commas (none)",
    ),
    (
        "--flows",
        "MOSSNET_BENCH_FLOWS",
        "idle flows of the memory rows (1000,10000,50000)",
    ),
    (
        "--churn",
        "MOSSNET_BENCH_CHURN",
        "seconds of the churn test of each contender (20)",
    ),
    (
        "--outside",
        "MOSSNET_BENCH_OUTSIDE",
        "congestion control of host and server (the machine's)",
    ),
    (
        "--merge",
        "MOSSNET_BENCH_MERGE",
        "JSON of an earlier run, whose other rows are kept",
    ),
    (
        "--json",
        "MOSSNET_BENCH_JSON",
        "where the JSON goes (target/tmp/peers.json)",
    ),
    (
        "--svg",
        "MOSSNET_BENCH_SVG",
        "where the plot goes (docs/peers.svg; of a run of some rows target/tmp/peers.svg)",
    ),
    (
        "--readme",
        "MOSSNET_BENCH_README",
        "a document whose tables are to show the results (none)",
    ),
];

/// Groups of rows.
const GROUPS: [&str; 11] = [
    "tcp",
    "requests",
    "connections",
    "latency",
    "udp",
    "quic",
    "dns",
    "startup",
    "flows",
    "memory",
    "churn",
];

/// What to measure, and how.
pub struct Settings {
    pub rounds: u64,
    pub seconds: f64,
    rows: Vec<String>,
    only: Vec<String>,
    pub flows: Vec<usize>,
    pub churn: u64,
    pub outside: Option<String>,
    pub merge: Option<PathBuf>,
    pub json: PathBuf,
    pub svg: PathBuf,
    pub readme: Option<PathBuf>,
}

/// Starts this program anew with its flags as variables, where there are any; an exit code if that
/// cannot be.
pub fn into_environment(args: &[String]) -> Option<ExitCode> {
    let mut args = args.iter().filter(|arg| *arg != "--bench");
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    let mut any = false;
    while let Some(flag) = args.next() {
        let (flag, given) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (flag.as_str(), None),
        };
        let known = FLAGS.iter().find(|(name, ..)| *name == flag);
        let value = known.and_then(|_| given.or_else(|| args.next().cloned()));
        let (Some((_, variable, _)), Some(value)) = (known, value) else {
            for (flag, variable, meaning) in FLAGS {
                eprintln!("{flag} VALUE  {meaning}; {variable}");
            }
            eprintln!("groups of rows: {}", GROUPS.join(", "));
            return Some(if flag == "--help" {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        };
        command.env(variable, value);
        any = true;
    }
    any.then(|| {
        let error = command.exec();
        eprintln!("start again with the flags as variables: {error}");
        ExitCode::FAILURE
    })
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number<N: std::str::FromStr>(name: &str, default: N) -> N {
    text(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: not a number: {text}"))
    })
}

fn list(name: &str) -> Vec<String> {
    let text = text(name).unwrap_or_default();
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.trim().to_owned()).collect()
}

impl Settings {
    /// The variables, or their defaults.
    pub fn from_environment() -> Self {
        let rows = list("MOSSNET_BENCH_ROWS");
        for row in &rows {
            let known = GROUPS.contains(&row.as_str());
            assert!(known, "--rows: no '{row}' among {}", GROUPS.join(", "));
        }
        let flows = list("MOSSNET_BENCH_FLOWS");
        let flows: Vec<usize> = flows
            .iter()
            .map(|text| text.parse().expect("a number of flows"))
            .collect();
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = |name, default: PathBuf| text(name).map_or(default, PathBuf::from);
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/peers.svg");
        let plot = if rows.is_empty() {
            docs
        } else {
            scratch.join("peers.svg")
        };
        Self {
            rounds: number("MOSSNET_BENCH_ROUNDS", 5),
            seconds: number("MOSSNET_BENCH_SECONDS", 1.0),
            only: list("MOSSNET_BENCH_ONLY"),
            flows: if flows.is_empty() {
                vec![1_000, 10_000, 50_000]
            } else {
                flows
            },
            churn: number("MOSSNET_BENCH_CHURN", 20),
            outside: text("MOSSNET_BENCH_OUTSIDE"),
            merge: text("MOSSNET_BENCH_MERGE").map(PathBuf::from),
            json: path("MOSSNET_BENCH_JSON", scratch.join("peers.json")),
            svg: path("MOSSNET_BENCH_SVG", plot),
            readme: text("MOSSNET_BENCH_README").map(PathBuf::from),
            rows,
        }
    }

    /// Whether a group of rows is to be measured.
    pub fn wants(&self, group: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| row == group)
    }

    /// Whether a contender takes part.
    pub fn invites(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.starts_with(part.as_str()))
    }

    /// No run may take longer, whatever stalls in it.
    pub fn deadline(&self) -> Duration {
        // Some 40 measures of 8 contenders, a few of which wait for a stalled peer.
        let rounds = Duration::from_secs_f64((self.seconds + 3.0) * 320.0 * self.rounds as f64);
        rounds + Duration::from_secs(self.churn * 8 + 1800)
    }
}
