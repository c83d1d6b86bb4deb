//! The network namespaces of one container: its own, and the one of its bridges, where podman has made it.
//!
//! Podman says the path of the container's own only. That of the bridges has a name that podman chooses,
//! beside it (podman 4) or below the runtime directory (podman 5); the right one is known by its having the
//! other end of the container's interface.
//!
//! Invariant: after [`Site::find`] no file is opened and no namespace entered any more.

use super::input::Config;
use super::plan::{self, Place};
use super::refusal::Refusal;
use crate::network::snapshot::Snapshot;
use crate::relay::publish::alone::Places;
use mossnet_helper::ports::{Changes, Container, Side, View};
use nix::sys::statfs::{self, FsType};
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

/// NSFS_MAGIC, linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);
/// How podman calls the namespace of its bridges, or begins to.
const ROOTLESS: &str = "rootless-netns";
/// Where podman 5 has it, below the runtime directory.
const BELOW: &str = "containers/networks/rootless-netns";

/// What is known of a container's network, and can be asked again.
pub struct Site {
    config: Config,
    container: View,
    /// Tells that podman has changed something, which it does not say of `network reload`.
    changes: Changes,
    /// Of the bridges that it was behind at first.
    bridges: Option<View>,
    /// What was last found of the container, and under which address podman knew it.
    known: (Container, Option<IpAddr>),
    /// What rules there are for.
    led: Option<Led>,
}

/// What rules are for.
#[derive(Debug, PartialEq, Eq)]
enum Led {
    /// Answers from these addresses, by the bridge.
    From(Vec<IpAddr>),
    /// Answers inside.
    Inside,
}

impl Site {
    /// Looks for it. Also where sockets towards the container may be.
    pub fn find(config: Config) -> Result<(Self, Places), Refusal> {
        let inside = open(&config.netns)?;
        let mut container = View::of(inside.as_fd())?;
        let (bridges, netns) = router(&config, &mut container)?.unzip();
        if bridges.is_none() {
            container = View::of_conversations(inside.as_fd())?;
        }
        let site = Self {
            known: (Container::default(), config.child),
            config,
            container,
            changes: Changes::of(inside.as_fd())?,
            bridges,
            led: None,
        };
        let places = Places {
            bridges: netns.map(OwnedFd::from),
            inside: inside.into(),
        };
        Ok((site, places))
    }

    /// Has the container's answers come back, and says what the ports are told: of one that podman knows by
    /// this address now.
    ///
    /// Inside the container's own netns, where it is not behind the bridges that are known: podman 4.3 makes a
    /// new namespace for bridges while the old one is in use, when a lone container leaves a network or its
    /// network is set up anew.
    pub fn settle(&mut self, child: Option<IpAddr>) -> Result<Snapshot, Refusal> {
        let container = self.container.container()?;
        let place = match self.by_bridges(&container, child)? {
            Some(place) => place,
            None => self.inside(),
        };
        self.known = (container.clone(), child);
        let (name, publishes) = (&self.config.container, &self.config.publishes);
        Ok(plan::snapshot(name, publishes, &container, child, &place))
    }

    /// Readable when something has changed.
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// What the ports are told after a change, if it is anything else.
    pub fn follow(&mut self) -> Result<Option<Snapshot>, Refusal> {
        self.changes.forget();
        let (known, child) = &self.known;
        let child = *child;
        if self.container.container()? == *known {
            return Ok(None);
        }
        self.settle(child).map(Some)
    }

    fn by_bridges(
        &mut self,
        container: &Container,
        child: Option<IpAddr>,
    ) -> Result<Option<Place>, Refusal> {
        let Some(view) = &mut self.bridges else {
            return Ok(None);
        };
        let bridges = view.bridges()?;
        if !plan::behind(&bridges, container, child) {
            return Ok(None);
        }
        let targets = plan::targets(container, child);
        if matches!(&self.led, Some(Led::From(led)) if *led == targets) {
            return Ok(Some(Place::Bridges(bridges)));
        }
        match view.lead_answers(Side::Bridge(&targets)) {
            Ok(()) => {
                self.led = Some(Led::From(targets));
                Ok(Some(Place::Bridges(bridges)))
            }
            Err(error) => {
                eprintln!("sockets are in the container's own network namespace: {error}");
                Ok(None)
            }
        }
    }

    /// Without rules the container's services work all the same.
    fn inside(&mut self) -> Place {
        if self.led != Some(Led::Inside) {
            match self.container.lead_answers(Side::Inside) {
                Ok(()) => self.led = Some(Led::Inside),
                Err(error) => {
                    eprintln!("clients are shown as the container's own address: {error}");
                    return Place::Inside { led: false };
                }
            }
        }
        Place::Inside { led: true }
    }

    /// What is published.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// A network namespace that is not the one in which this process listens.
fn open(path: &Path) -> Result<File, Refusal> {
    let failed = |source| Refusal::Netns {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let kind = statfs::fstatfs(&file).map_err(|errno| failed(errno.into()))?;
    let same = |own: fs::Metadata| -> io::Result<bool> {
        let other = file.metadata()?;
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    };
    let own = fs::metadata("/proc/self/ns/net").and_then(same);
    match kind.filesystem_type() == NSFS && !own.map_err(failed)? {
        true => Ok(file),
        false => Err(Refusal::NotNetns(path.to_owned())),
    }
}

/// The netns of the container's bridges, where there is one.
fn router(config: &Config, container: &mut View) -> Result<Option<(View, File)>, Refusal> {
    if !config.on_networks {
        return Ok(None);
    }
    let container = container.container()?;
    for path in candidates(&config.netns) {
        // Somebody else's, or one that goes just now.
        let Ok(file) = open(&path) else { continue };
        let Ok(mut view) = View::of(file.as_fd()) else {
            continue;
        };
        let Ok(bridges) = view.bridges() else {
            continue;
        };
        if plan::behind(&bridges, &container, config.child) {
            return Ok(Some((view, file)));
        }
    }
    Ok(None)
}

fn candidates(netns: &Path) -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut directories: Vec<PathBuf> = netns.parent().map(Path::to_owned).into_iter().collect();
    if let Some(runtime) = runtime {
        directories.extend([runtime.join("netns"), runtime.join(BELOW)]);
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for directory in directories {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let named = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(ROOTLESS))
        });
        let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
        paths.sort();
        found.extend(paths.into_iter().filter(|path| path != netns));
    }
    found.dedup();
    found
}
