//! What `attach`, `publish` and `uplink` do with their numbers: medians, ratios to the first contender, a table for
//! people and JSON for programs.
//!
//! A ratio is the median of the rounds' ratios, not the ratio of medians: a machine that others slow down for half
//! a minute slows all contenders of a round, and a ratio of medians may compare one round with another.

mod median;

use median::median;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Begins the line that carries the JSON from inside the world.
pub const MARK: &str = "JSON: ";

/// Everything measured.
#[derive(Default)]
pub struct Results {
    contenders: Vec<&'static str>,
    metrics: Vec<(&'static str, &'static str)>,
    values: BTreeMap<(&'static str, &'static str), Vec<Option<f64>>>,
}

impl Results {
    /// Notes one value; nothing where the measurement failed.
    pub fn add(
        &mut self,
        metric: &'static str,
        unit: &'static str,
        contender: &'static str,
        value: Option<f64>,
    ) {
        if !self.contenders.contains(&contender) {
            self.contenders.push(contender);
        }
        if !self.metrics.contains(&(metric, unit)) {
            self.metrics.push((metric, unit));
        }
        self.values
            .entry((metric, contender))
            .or_default()
            .push(value);
    }

    /// The median of what was noted.
    pub fn median(&self, metric: &'static str, contender: &'static str) -> Option<f64> {
        let values = self.values.get(&(metric, contender))?;
        median(values.iter().copied().flatten().collect())
    }

    /// Markdown: medians, and in brackets [ratios](Self::ratio) to the first contender (of per cents, none).
    pub fn table(&self) -> String {
        let mut text = format!("\n| | {} |\n|---|", self.contenders.join(" | "));
        text.push_str(&"---|".repeat(self.contenders.len()));
        for (metric, unit) in &self.metrics {
            let _ = write!(text, "\n| {metric}, {unit} |");
            for contender in &self.contenders {
                let first = self.contenders.first();
                let ratio = first.and_then(|first| self.ratio(metric, contender, first));
                let cell = match (self.median(metric, contender), ratio) {
                    (Some(value), Some(ratio)) if *unit != "%" => {
                        format!("{} ({ratio:.2})", shown(value))
                    }
                    (Some(value), _) => shown(value),
                    (None, _) => "failed".to_owned(),
                };
                let _ = write!(text, " {cell} |");
            }
        }
        text.push_str("\n\n");
        text
    }

    /// Ratio of two contenders: the median of what it was in those rounds in which neither failed.
    pub fn ratio(&self, metric: &'static str, of: &'static str, to: &'static str) -> Option<f64> {
        let [of, to] = [of, to].map(|contender| self.values.get(&(metric, contender)));
        let rounds = of?.iter().zip(to?);
        median(
            rounds
                .filter_map(|(of, to)| Some((*of)? / (*to)?))
                .filter(|ratio| ratio.is_finite())
                .collect(),
        )
    }

    /// Every single value, the medians, their ratios, what the machine was, and `conditions`.
    pub fn json(&self, conditions: &serde_json::Value) -> serde_json::Value {
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let mut metrics = serde_json::Map::new();
        for (metric, unit) in &self.metrics {
            let mut by_contender = serde_json::Map::new();
            for contender in &self.contenders {
                let values = self.values.get(&(*metric, *contender));
                let first = self.contenders.first();
                let entry = serde_json::json!({
                    "median": self.median(metric, contender),
                    "ratio": first.and_then(|first| self.ratio(metric, contender, first)),
                    "values": values,
                });
                by_contender.insert((*contender).to_owned(), entry);
            }
            let entry = serde_json::json!({ "unit": unit, "contenders": by_contender });
            metrics.insert((*metric).to_owned(), entry);
        }
        serde_json::json!({
            "kernel": read("/proc/sys/kernel/osrelease"),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "conditions": conditions,
            "metrics": metrics,
        })
    }
}

/// A positive number out of the environment.
pub fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let read = |text: String| text.parse().ok().expect("a number");
    std::env::var(name).map_or(default, read)
}

fn shown(value: f64) -> String {
    if value < 1000.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// Writes the JSON line of what the world printed to the file that was asked for, or to one with
/// the benchmark's name.
pub fn keep(text: &str, benchmark: &str) {
    let path = std::env::var_os("MOSSNET_BENCH_JSON").map_or_else(
        || std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{benchmark}.json")),
        Into::into,
    );
    let Some(json) = text.lines().find_map(|line| line.strip_prefix(MARK)) else {
        return;
    };
    // Cargo makes its own directory once; it may be gone since.
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).expect("make the directory of the JSON");
    }
    std::fs::write(&path, json).expect("write the JSON");
    println!("written to {}", path.display());
}
