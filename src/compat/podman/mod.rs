//! `mossnet podman install|uninstall|status`: podman finds our netavark, aardvark-dns, pasta and rootlessport first.
//!
//! A drop-in of containers.conf(5) puts a directory with links to this program first. Invariants:
//! nothing that somebody else wrote is changed; `uninstall` takes away exactly what `install` made; `status`
//! says what podman would call, by the files that podman reads, and what podman itself says.

mod conf;

use crate::api::paths::Paths;
use conf::{Places, drop_in_directory, places};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names that podman looks for.
const NAMES: [&str; 4] = ["netavark", "aardvark-dns", "pasta", "rootlessport"];
/// The drop-in's name: read after those that distributions bring.
const DROP_IN: &str = "50-mossnet.conf";
/// How the drop-in begins, by which it is known again.
const MARK: &str =
    "# Written by 'mossnet podman install'; 'mossnet podman uninstall' removes it.\n";
/// Below mossnet's data directory, or root's.
const LINKS: &str = "podman";
const ROOTS_LINKS: &str = "/usr/local/lib/mossnet/podman";
const ROOTS_CONF: &str = "/etc/containers/containers.conf";

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PodmanError {
    /// A file of that name is somebody else's.
    #[error("{} exists and is not mossnet's; move it away first", .0.display())]
    Foreign(PathBuf),
    /// A file.
    #[error("{what} {}", path.display())]
    File {
        /// What failed.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No HOME, no XDG_CONFIG_HOME.
    #[error("there is no configuration directory: set HOME or XDG_CONFIG_HOME")]
    NoHome,
}

/// What podman would call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// Our drop-in is there.
    pub installed: bool,
    /// The drop-in.
    pub drop_in: PathBuf,
    /// Each program that podman looks for.
    pub programs: Vec<Program>,
    /// Podman's version, in its own words; absent: it cannot be asked.
    pub podman: Option<String>,
    /// Its network backend, in its own words.
    pub backend: Option<String>,
    /// What may be otherwise than wished.
    pub warnings: Vec<String>,
}

/// One program that podman looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The first one of that name.
    pub path: Option<PathBuf>,
    /// It is this program.
    pub ours: bool,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Our programs first.
    Install,
    /// As it was before.
    Uninstall,
    /// Only to know.
    Status,
}

/// Acts, and says how things stand then; true: as the act wants it.
pub fn perform(act: Act, paths: &Paths) -> Result<(Status, bool), PodmanError> {
    let place = Installation::find(paths)?;
    match act {
        Act::Install => place.install()?,
        Act::Uninstall => place.uninstall()?,
        Act::Status => {}
    }
    let status = place.status();
    let well = match act {
        Act::Uninstall => !status.installed,
        Act::Install | Act::Status => status.is_ours(),
    };
    Ok((status, well))
}

/// Where things are for one user.
#[derive(Debug, Clone)]
struct Installation {
    /// The user's own containers.conf; absent: root's, which is the machine's.
    user_conf: Option<PathBuf>,
    drop_in: PathBuf,
    links: PathBuf,
}

impl Installation {
    /// For whoever calls.
    fn find(paths: &Paths) -> Result<Self, PodmanError> {
        if nix::unistd::geteuid().is_root()
            && std::env::var_os("_CONTAINERS_ROOTLESS_UID").is_none()
        {
            return Ok(Self {
                user_conf: None,
                drop_in: drop_in_directory(Path::new(ROOTS_CONF)).join(DROP_IN),
                links: ROOTS_LINKS.into(),
            });
        }
        let directory = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let config = directory("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let config = config.or_else(|| Some(directory("HOME")?.join(".config")));
        let conf = config
            .ok_or(PodmanError::NoHome)?
            .join("containers/containers.conf");
        Ok(Self {
            drop_in: drop_in_directory(&conf).join(DROP_IN),
            user_conf: Some(conf),
            links: paths.data.join(LINKS),
        })
    }

    /// Puts our programs first. Again is the same.
    fn install(&self) -> Result<(), PodmanError> {
        self.check_drop_in()?;
        let program = std::env::current_exe().map_err(failed("find", Path::new("ourselves")))?;
        fs::create_dir_all(&self.links).map_err(failed("make directory", &self.links))?;
        for name in NAMES {
            link(&program, &self.links.join(name))?;
        }
        let directory = self.drop_in.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(failed("make directory", directory))?;
        let new = self.drop_in.with_extension("conf.new");
        let written = fs::write(&new, self.text()).and_then(|()| fs::rename(&new, &self.drop_in));
        written.map_err(failed("write", &self.drop_in))
    }

    /// Takes them away; already gone is success.
    fn uninstall(&self) -> Result<(), PodmanError> {
        self.check_drop_in()?;
        remove(&self.drop_in)?;
        for name in NAMES {
            let path = self.links.join(name);
            if path.is_symlink() {
                remove(&path)?;
            }
        }
        // Directories that are empty now; others are somebody's.
        let _ = fs::remove_dir(&self.links);
        let _ = self.drop_in.parent().map(fs::remove_dir);
        Ok(())
    }

    /// What podman would call.
    fn status(&self) -> Status {
        let places = places(Path::new("/"), self.user_conf.as_deref(), Path::new(""));
        let own = fs::canonicalize("/proc/self/exe").ok();
        let programs = NAMES.map(|name| {
            let mut candidates = places.iter().map(|place| place.join(name));
            let path = candidates.find(|path| path.exists());
            let real = path.as_ref().and_then(|path| fs::canonicalize(path).ok());
            Program {
                name,
                ours: real.is_some() && real == own,
                path,
            }
        });
        let installed = self.is_ours().unwrap_or(false);
        let (podman, backend) = ask_podman();
        let mut status = Status {
            installed,
            drop_in: self.drop_in.clone(),
            programs: programs.into(),
            podman,
            backend,
            warnings: Vec::new(),
        };
        status.warnings = status.odd();
        status
    }

    fn text(&self) -> String {
        let mut all: Places = vec![self.links.clone()];
        let known = places(Path::new("/"), self.user_conf.as_deref(), &self.drop_in);
        all.extend(known.into_iter().filter(|place| *place != self.links));
        let all: Vec<String> = all
            .iter()
            .map(|place| quoted(&place.to_string_lossy()))
            .collect();
        format!(
            "{MARK}[engine]\nhelper_binaries_dir = [\n  {}\n]\n",
            all.join(",\n  ")
        )
    }

    /// Whether the drop-in is there and ours.
    fn is_ours(&self) -> Result<bool, PodmanError> {
        match fs::read_to_string(&self.drop_in) {
            Ok(text) if text.starts_with(MARK) => Ok(true),
            Ok(_) => Err(PodmanError::Foreign(self.drop_in.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("read", &self.drop_in)(error)),
        }
    }

    fn check_drop_in(&self) -> Result<(), PodmanError> {
        self.is_ours().map(drop)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PodmanError {
    let path = path.to_owned();
    move |source| PodmanError::File { what, path, source }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

fn link(program: &Path, path: &Path) -> Result<(), PodmanError> {
    if path.symlink_metadata().is_ok() {
        if !path.is_symlink() {
            return Err(PodmanError::Foreign(path.to_owned()));
        }
        remove(path)?;
    }
    std::os::unix::fs::symlink(program, path).map_err(failed("make link", path))
}

fn remove(path: &Path) -> Result<(), PodmanError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Podman's version and network backend, as it says itself.
fn ask_podman() -> (Option<String>, Option<String>) {
    let said = |words: &[&str]| {
        let output = Command::new("podman").args(words).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let Some(version) = said(&["--version"]) else {
        return (None, None);
    };
    let backend = said(&["info", "--format", "{{.Host.NetworkBackend}}"]);
    (Some(version), backend)
}

impl Status {
    /// Podman calls our programs.
    pub fn is_ours(&self) -> bool {
        let backend = self.backend.as_deref();
        self.programs.iter().all(|program| program.ours) && backend.is_none_or(|b| b == "netavark")
    }

    fn odd(&self) -> Vec<String> {
        let mut odd = Vec::new();
        for name in ["CONTAINERS_CONF", "CONTAINERS_HELPER_BINARY_DIR"] {
            if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
                let value = value.to_string_lossy();
                odd.push(format!(
                    "{name}={value} in the environment decides, not the files"
                ));
            }
        }
        if self.podman.is_none() {
            odd.push("podman does not run, so that it could not be asked".to_owned());
        }
        if let Some(backend) = self
            .backend
            .as_ref()
            .filter(|backend| *backend != "netavark")
        {
            odd.push(format!(
                "podman's network backend is {backend}: set network_backend = \"netavark\" in section \
                 [network] of containers.conf, then 'podman system reset' (it removes all containers)"
            ));
        }
        if self.installed && self.programs.iter().any(|program| !program.ours) {
            odd.push(
                "a later file sets helper_binaries_dir, too, and podman takes that".to_owned(),
            );
        }
        odd
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for program in &self.programs {
            let path = program.path.as_ref();
            let path = path.map_or("not found".to_owned(), |path| path.display().to_string());
            let whose = if program.ours { " (mossnet)" } else { "" };
            writeln!(f, "{:<14}{path}{whose}", program.name)?;
        }
        let there = if self.installed {
            ""
        } else {
            " (not installed)"
        };
        writeln!(f, "{:<14}{}{there}", "drop-in", self.drop_in.display())?;
        let unknown = "unknown".to_owned();
        let podman = self.podman.as_ref().unwrap_or(&unknown);
        let backend = self.backend.as_ref().unwrap_or(&unknown);
        writeln!(f, "{:<14}{podman}, network backend {backend}", "podman")?;
        for warning in &self.warnings {
            writeln!(f, "{:<14}{warning}", "warning")?;
        }
        Ok(())
    }
}
