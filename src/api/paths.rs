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
        let uid = nix::unistd::getuid();
        // A directory named there but absent is common after `su`: fall back as if it were unset.
        let runtime = absolute("XDG_RUNTIME_DIR")
            .filter(|path| path.is_dir())
            .map_or_else(
                || PathBuf::from(format!("/tmp/mossnet-{uid}")),
                |path| path.join("mossnet"),
            );
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map_or_else(|| runtime.join("data"), |path| path.join("mossnet"));
        Self {
            data,
            runtime,
            root: None,
        }
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
