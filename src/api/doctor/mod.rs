//! `mossnet doctor`: what this machine lets mossnet do, and the one command that mends what it
//! does not.
//!
//! Place: called by the CLI without a daemon, since it must work where no daemon can start. Map:
//! `attempts` tries things for real, `probe` those that need namespaces of their own (in a child
//! process that throws them away), `machine` reads /proc, /etc and /sys below a root that tests
//! point elsewhere; `kernel`, `host` and `grants` turn both into rows, purely. Invariant: nothing on the
//! machine is changed, but for mossnet's own directories.
//!
//! Status: *missing* means that mossnet cannot run at all; *degraded* that the named feature is
//! less, and everything else works.

mod attempts;
mod grants;
mod host;
mod kernel;
mod machine;
pub mod probe;

use crate::api::paths::Paths;
use attempts::Attempts;
use machine::Machine;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The binary that runs, whatever has become of its path.
const OURSELVES: &str = "/proc/self/exe";

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The feature named in `means` is less than it could be.
    Degraded,
    /// mossnet cannot run.
    Missing,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What: `user namespaces`.
    pub check: String,
    /// How it stands.
    pub status: Status,
    /// What was seen: `user.max_user_namespaces = 0`.
    pub found: String,
    /// What follows for the user.
    pub means: String,
    /// The one command that mends it; absent where it is well, or no command can.
    pub mend: Option<String>,
}

impl Row {
    fn new(check: &str, status: Status, found: impl Into<String>, means: &str) -> Self {
        Self {
            check: check.to_owned(),
            status,
            found: found.into(),
            means: means.to_owned(),
            mend: None,
        }
    }

    fn ok(check: &str, found: impl Into<String>, means: &str) -> Self {
        Self::new(check, Status::Ok, found, means)
    }

    fn degraded(check: &str, found: impl Into<String>, means: &str) -> Self {
        Self::new(check, Status::Degraded, found, means)
    }

    fn missing(check: &str, found: impl Into<String>, means: &str) -> Self {
        Self::new(check, Status::Missing, found, means)
    }

    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend = Some(command.into());
        self
    }

    /// All of it on one line, as it follows `mossnet: ` on stderr.
    pub fn one_line(&self) -> String {
        let mend = self
            .mend
            .iter()
            .map(|command| format!("; mend it with: {command}"));
        format!(
            "{}: {}: {}{}",
            self.check,
            self.found,
            self.means,
            mend.collect::<String>()
        )
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether mossnet can run: no row is `missing`.
    pub works: bool,
    /// The rows, what is essential first.
    pub checks: Vec<Row>,
}

impl Report {
    fn new(checks: Vec<Row>) -> Self {
        let works = checks.iter().all(|row| row.status != Status::Missing);
        Self { works, checks }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .checks
            .iter()
            .map(|row| row.check.len())
            .max()
            .unwrap_or(0);
        for row in &self.checks {
            writeln!(
                f,
                "{:<8}  {:<width$}  {}",
                row.status.word(),
                row.check,
                row.found
            )?;
            if row.status != Status::Ok {
                writeln!(f, "{:<8}    {}", "", row.means)?;
                if let Some(command) = &row.mend {
                    writeln!(f, "{:<8}    mend: {command}", "")?;
                }
            }
        }
        let degraded = self
            .checks
            .iter()
            .filter(|row| row.status == Status::Degraded)
            .count();
        match (self.works, degraded) {
            (false, _) => writeln!(f, "mossnet cannot run here."),
            (true, 0) => writeln!(f, "mossnet runs here, with everything."),
            (true, 1) => writeln!(f, "mossnet runs here; one feature is degraded."),
            (true, several) => writeln!(f, "mossnet runs here; {several} features are degraded."),
        }
    }
}

/// Looks at everything. Takes a second or so where resolvers are silent.
pub fn run(paths: &Paths) -> Report {
    let machine = Machine::here();
    let attempts = Attempts::make(paths, &machine, Path::new(OURSELVES));
    Report::new(rows(&machine, &attempts))
}

/// Why user namespaces do not work here, on one line, with what to do; `None` where they do. For
/// `run`, when the helper could not be started.
pub fn user_namespace_line() -> Option<String> {
    let row = kernel::user_namespaces(&Machine::here(), &probe::spawn(Path::new(OURSELVES)));
    (row.status != Status::Ok).then(|| row.one_line())
}

fn rows(machine: &Machine, attempts: &Attempts) -> Vec<Row> {
    let mut rows = kernel::rows(machine, &attempts.probe);
    rows.extend(host::rows(machine, attempts));
    rows
}

#[cfg(test)]
mod tests;
