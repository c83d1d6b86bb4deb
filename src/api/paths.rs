//! Where one daemon keeps its things, and the check that the places are ours.
//!
//! Two daemons with different roots share nothing: every socket, lock, log and store lies under
//! the two directories of [`Paths`].

use mossnet_helper::SandboxId;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// It cannot be made or looked at.
    #[error("use directory {}", path.display())]
    Access {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could put sockets there.
    #[error("directory {} belongs to uid {owner}, not to uid {uid}", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Us.
        uid: u32,
    },
    /// A symbolic link or a file is in the way.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// sun_path holds 107 bytes (unix(7)).
    #[error("socket path {} is longer than 107 bytes", .0.display())]
    TooLong(PathBuf),
}

impl PathsError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Access { .. } => {
                "point XDG_RUNTIME_DIR and XDG_DATA_HOME, or --root, at a directory that you can write"
            }
            Self::ForeignOwner { .. } | Self::NotADirectory(_) => {
                "remove it, or choose another place with --root DIR"
            }
            Self::TooLong(_) => "choose a shorter place with --root DIR",
        }
    }
}

/// Set by `unshare` for what it runs: the runtime directory of the daemon outside.
pub const RUNTIME_DIR: &str = "MOSSNET_RUNTIME_DIR";

/// The two directories of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Survives a reboot: networks, leases (`$XDG_DATA_HOME/mossnet`, or `ROOT/data`).
    pub data: PathBuf,
    /// Sockets, live sandboxes, logs (`$XDG_RUNTIME_DIR/mossnet`, `/tmp/mossnet-UID`, or `ROOT/run`).
    pub runtime: PathBuf,
    /// `--root`, as given; passed on to a daemon that is started on first use.
    pub root: Option<PathBuf>,
}

impl Paths {
    /// Computes the places; touches nothing.
    pub fn resolve(root: Option<&Path>) -> Self {
        if let Some(root) = root {
            let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
            return Self {
                data: root.join("data"),
                runtime: root.join("run"),
                root: Some(root),
            };
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        // A directory named there but absent is common after `su`: fall back as if it were unset.
        let users = absolute("XDG_RUNTIME_DIR").filter(|path| path.is_dir());
        let runtime = absolute(RUNTIME_DIR)
            .or_else(|| users.map(|path| path.join("mossnet")))
            .unwrap_or_else(|| fallback(nix::unistd::getuid().as_raw()));
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map_or_else(|| runtime.join("data"), |path| path.join("mossnet"));
        Self {
            data,
            runtime,
            root: None,
        }
    }

    /// The places of a daemon that runs, for programs that other runtimes start, perhaps without any
    /// environment, and as root of our own user namespace.
    pub fn of_running(root: Option<&Path>) -> Self {
        let paths = Self::resolve(root);
        if root.is_some() || paths.api_socket().exists() {
            return paths;
        }
        let uid = uid_outside(nix::unistd::getuid().as_raw());
        let users = PathBuf::from(format!("/run/user/{uid}/mossnet"));
        let places = [users, fallback(uid)].map(|runtime| Self {
            runtime,
            ..paths.clone()
        });
        let found = places.into_iter().find(|place| place.api_socket().exists());
        found.unwrap_or(paths)
    }

    /// This process was started by `unshare` of the same daemon, so that it is not in the host's network.
    pub fn is_unshared(&self) -> bool {
        std::env::var_os(RUNTIME_DIR).is_some_and(|told| self.runtime == told)
    }

    /// Makes both directories with mode 0700 and checks that they are ours alone.
    pub fn prepare(&self) -> Result<(), PathsError> {
        own_directory(&self.data)?;
        own_directory(&self.runtime)?;
        own_directory(&self.runtime.join("sandboxes"))?;
        for socket in [self.api_socket(), self.stdio_socket(), self.helper_socket()] {
            if socket.as_os_str().len() > 107 {
                return Err(PathsError::TooLong(socket));
            }
        }
        Ok(())
    }

    /// HTTP API of the daemon.
    pub fn api_socket(&self) -> PathBuf {
        self.runtime.join("api.sock")
    }
    /// Takes the standard streams of sandboxes.
    pub fn stdio_socket(&self) -> PathBuf {
        self.runtime.join("stdio.sock")
    }
    /// The helper, for the daemon only.
    pub fn helper_socket(&self) -> PathBuf {
        self.runtime.join("helper.sock")
    }
    /// Held with flock(2) by the running daemon.
    pub fn daemon_lock(&self) -> PathBuf {
        self.runtime.join("daemon.lock")
    }
    /// Networks and leases.
    pub fn data_store(&self) -> PathBuf {
        self.data.join("mossnet.redb")
    }
    /// Live sandboxes and endpoints.
    pub fn runtime_store(&self) -> PathBuf {
        self.runtime.join("live.redb")
    }
    /// `/etc` files and log of one sandbox.
    pub fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.runtime.join("sandboxes").join(id.as_str())
    }
    /// Log of one of our own processes: `daemon`, `helper`, `relay`.
    pub fn log(&self, process: &str) -> PathBuf {
        self.runtime.join(format!("{process}.log"))
    }
}

/// Where there is no directory of the user's own.
fn fallback(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/mossnet-{uid}"))
}

/// What a user is called in the user namespace above.
fn uid_outside(uid: u32) -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, uid).unwrap_or(uid)
}

/// From lines of `inside outside count` (user_namespaces(7)).
fn outside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
        let mut field = || fields.next()?.ok();
        let (inside, outside, count) = (field()?, field()?, field()?);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Makes `path` (and parents) unless it exists; refuses one that others own or could write.
fn own_directory(path: &Path) -> Result<(), PathsError> {
    let access = |source| PathsError::Access {
        path: path.to_path_buf(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .or_else(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                Ok(())
            } else {
                Err(access(error))
            }
        })?;
    // lstat: a symbolic link planted in /tmp must not lead us elsewhere.
    let metadata = std::fs::symlink_metadata(path).map_err(access)?;
    check_ours(path, &metadata)?;
    if metadata.mode() & 0o077 != 0 {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(access)?;
    }
    Ok(())
}

fn check_ours(path: &Path, metadata: &Metadata) -> Result<(), PathsError> {
    let uid = nix::unistd::geteuid().as_raw();
    if !metadata.is_dir() {
        return Err(PathsError::NotADirectory(path.to_path_buf()));
    }
    if metadata.uid() != uid {
        return Err(PathsError::ForeignOwner {
            path: path.to_path_buf(),
            owner: metadata.uid(),
            uid,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_has_another_number_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outside(map, 0), Some(1000));
        assert_eq!(outside(map, 7), Some(100_006));
        assert_eq!(outside(map, 70_000), None);
        assert_eq!(outside("0 0 4294967295", 1000), Some(1000));
        assert_eq!(outside("", 0), None);
    }

    #[test]
    fn a_root_holds_everything() {
        let paths = Paths::resolve(Some(Path::new("/some/where")));
        assert!(paths.api_socket().starts_with("/some/where/run"));
        assert!(paths.data_store().starts_with("/some/where/data"));
    }

    #[test]
    fn directories_are_made_private_and_links_refused() {
        let place = tempfile::tempdir().unwrap();
        let paths = Paths::resolve(Some(&place.path().join("root")));
        paths.prepare().unwrap();
        assert_eq!(paths.runtime.metadata().unwrap().mode() & 0o777, 0o700);
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        assert!(matches!(
            own_directory(&link),
            Err(PathsError::NotADirectory(_))
        ));
    }

    #[test]
    fn long_socket_paths_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let paths = Paths::resolve(Some(&place.path().join("x".repeat(100))));
        assert!(matches!(paths.prepare(), Err(PathsError::TooLong(_))));
    }
}
