//! Everything measured: values, medians, ratios; as JSON from the world, to a file, and back.

use crate::contender::{ALL, Product};
use crate::goals::Verdict;
use crate::median::median;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Begins a line that carries the results from inside the world.
pub const MARK: &str = "RESULTS: ";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

/// One value of one round, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    Value(f64),
    Failed { failed: String },
}

/// A row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub unit: String,
    pub better: Better,
    /// By contender, one a round.
    pub values: BTreeMap<String, Vec<Outcome>>,
    /// Under what it was measured.
    #[serde(default)]
    pub conditions: serde_json::Value,
}

#[derive(Default, Debug, Serialize, Deserialize)]
pub struct Results {
    pub rows: Vec<Row>,
    #[serde(default)]
    pub kernel: String,
    #[serde(default)]
    pub cpus: usize,
}

impl Row {
    /// The median of the rounds that did not fail.
    pub fn median(&self, contender: &str) -> Option<f64> {
        let values = self.values.get(contender)?.iter();
        median(
            values
                .filter_map(|outcome| match outcome {
                    Outcome::Value(value) if value.is_finite() => Some(*value),
                    Outcome::Value(_) | Outcome::Failed { .. } => None,
                })
                .collect(),
        )
    }

    /// Ratio of medians; more than 1 is more, better or not.
    pub fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        let to = self.median(to)?;
        (to != 0.0).then_some(self.median(of)? / to)
    }

    /// The peer with the best median, at whatever MTU.
    pub fn best_peer(&self) -> Option<(&'static str, f64)> {
        let peers = ALL
            .iter()
            .filter(|kind| !matches!(kind.product, Product::Native | Product::Mossnet));
        let medians = peers.filter_map(|kind| Some((kind.name, self.median(kind.name)?)));
        medians.reduce(|best, other| {
            let better = match self.better {
                Better::Higher => other.1 > best.1,
                Better::Lower => other.1 < best.1,
            };
            if better { other } else { best }
        })
    }
}

/// JSON with one line for each row and each goal: small, and to be compared line by line.
fn lines(json: &serde_json::Value) -> String {
    let members = json.as_object().into_iter().flatten();
    let members = members.map(|(name, value)| match value.as_array() {
        Some(all) => {
            let all: Vec<_> = all.iter().map(serde_json::Value::to_string).collect();
            format!("\"{name}\": [\n{}\n]", all.join(",\n"))
        }
        None => format!("\"{name}\": {value}"),
    });
    format!("{{\n{}\n}}\n", members.collect::<Vec<_>>().join(",\n"))
}

impl Results {
    /// Notes one value.
    pub fn add(
        &mut self,
        row: &str,
        unit: &str,
        better: Better,
        contender: &str,
        value: Result<f64, String>,
    ) {
        let outcome = value.map_or_else(|failed| Outcome::Failed { failed }, Outcome::Value);
        let at = self.rows.iter().position(|known| known.name == row);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                name: row.to_owned(),
                unit: unit.to_owned(),
                better,
                values: BTreeMap::new(),
                conditions: serde_json::Value::Null,
            });
            self.rows.len() - 1
        });
        let values = &mut self.rows[at].values;
        values
            .entry(contender.to_owned())
            .or_default()
            .push(outcome);
    }

    /// The row of that name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// All of it in one line.
    pub fn line(&mut self, conditions: &serde_json::Value) -> String {
        for row in &mut self.rows {
            row.conditions = conditions.clone();
        }
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        self.kernel = kernel.unwrap_or_default().trim().to_owned();
        self.cpus = std::thread::available_parallelism().map_or(0, usize::from);
        serde_json::to_string(self).expect("results are JSON")
    }

    /// The last such line of what the world printed.
    pub fn from_output(text: &str) -> Self {
        let line = text.lines().rev().find_map(|line| line.strip_prefix(MARK));
        let line = line.expect("the world printed results");
        serde_json::from_str(line).expect("our own JSON")
    }

    /// Those of an earlier run.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{} is no result of this benchmark: {error}", path.display())
        })
    }

    /// These, with rows of `newer` instead of those of the same name.
    pub fn joined(mut self, newer: Self) -> Self {
        for row in newer.rows {
            match self.rows.iter_mut().find(|known| known.name == row.name) {
                Some(known) => *known = row,
                None => self.rows.push(row),
            }
        }
        if !newer.kernel.is_empty() {
            (self.kernel, self.cpus) = (newer.kernel, newer.cpus);
        }
        self
    }

    /// For a file: every value, with medians, ratios and verdicts.
    pub fn json(&self, goals: &[Verdict]) -> String {
        let mut json = serde_json::to_value(self).expect("results are JSON");
        for (row, value) in self
            .rows
            .iter()
            .zip(json["rows"].as_array_mut().into_iter().flatten())
        {
            let best = row.best_peer();
            let mut each = serde_json::Map::new();
            for kind in ALL.iter() {
                if let Some(median) = row.median(kind.name) {
                    let entry = serde_json::json!({
                        "median": median,
                        "to_native": row.ratio(kind.name, ALL[0].name),
                        "mossnet_to_it": row.ratio("mossnet", kind.name),
                    });
                    each.insert(kind.name.to_owned(), entry);
                }
            }
            value["contenders"] = each.into();
            value["best_peer"] = serde_json::json!(best.map(|(name, _)| name));
            let to_best = best.and_then(|(name, _)| row.ratio("mossnet", name));
            value["mossnet_to_best_peer"] = serde_json::json!(to_best);
        }
        json["goals"] = serde_json::to_value(goals).expect("verdicts are JSON");
        lines(&json)
    }
}
