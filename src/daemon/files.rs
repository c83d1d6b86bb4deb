//! A sandbox's directory: `hosts`, `resolv.conf`, `hostname`, which are laid over its `/etc`, and
//! `output.log`. The host's own `/etc` is only read.

use super::refusal::FileError;
use crate::api::paths::Paths;
use crate::network::resolv::ResolvError;
use mossnet_helper::SandboxId;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The host's configuration files are small; a huge one is not read to its end.
const MAX_CONFIG: u64 = 1 << 20;

/// Texts of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Etc {
    pub(super) hosts: String,
    pub(super) resolv_conf: String,
    pub(super) hostname: String,
}

/// Where detached output goes.
pub(super) fn log_path(paths: &Paths, id: &SandboxId) -> PathBuf {
    paths.sandbox_dir(id).join("output.log")
}

/// Makes the directory and the files in it. World-readable in a private directory: inside, they
/// belong to the sandbox's root and any user there may read them.
pub(super) fn write_etc(directory: &Path, etc: &Etc) -> Result<(), FileError> {
    make_directory(directory)?;
    let hostname = format!("{}\n", etc.hostname);
    for (name, text) in [
        ("hosts", &etc.hosts),
        ("resolv.conf", &etc.resolv_conf),
        ("hostname", &hostname),
    ] {
        let path = directory.join(name);
        write_in_place(&path, text).map_err(FileError::on("write", &path))?;
    }
    Ok(())
}

/// Makes a file say `text`, unless it does. Its inode stays, for it may be mounted elsewhere; a
/// reader meanwhile sees the old beginning or the new one, but no empty file.
fn write_in_place(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut had = Vec::new();
    let mut beginning = (&mut file).take(text.len() as u64 + 1);
    beginning.read_to_end(&mut had)?;
    if had == text.as_bytes() && !had.is_empty() {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// Makes a sandbox's private directory.
pub(super) fn make_directory(directory: &Path) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(FileError::on("make directory", directory))
}

/// Removes a sandbox's directory; absent is success.
pub(super) fn remove_directory(directory: &Path) {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let path = directory.display();
            tracing::warn!(%path, %error, "sandbox directory not removed");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Sandbox ids that have a directory.
pub(super) fn directories(paths: &Paths) -> Vec<SandboxId> {
    let Ok(entries) = std::fs::read_dir(paths.runtime.join("sandboxes")) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| SandboxId::try_from(name).ok())
        .collect()
}

/// Text of a small file of the host; what is absent or unreadable is empty.
pub(super) fn read_small(path: &str) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!(path, %error, "file of the host not read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A host name as sethostname(2) takes it and `/etc/hosts` can hold it.
pub(super) fn check_hostname(name: &str) -> Result<(), ResolvError> {
    if name.len() > 64 {
        return Err(ResolvError::HostName(name.to_owned()));
    }
    crate::network::resolv::check_host_name(name).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_readable_inside_and_the_directory_is_private() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("one");
        let etc = Etc {
            hosts: "127.0.0.1\tlocalhost\n".into(),
            resolv_conf: "nameserver 10.89.0.1\n".into(),
            hostname: "web".into(),
        };
        write_etc(&directory, &etc).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("hosts")), 0o644);
        assert_eq!(
            read_small(directory.join("hostname").to_str().unwrap()),
            "web\n"
        );
        let hosts = directory.join("hosts");
        let inode = |path: &Path| path.metadata().unwrap().ino();
        let before = inode(&hosts);
        for text in ["127.0.0.1\tlocalhost\n10.89.0.2\tweb\n", "short\n", ""] {
            let hosts_text = text.to_owned();
            let changed = Etc {
                hosts: hosts_text,
                ..etc.clone()
            };
            write_etc(&directory, &changed).unwrap();
            assert_eq!(read_small(hosts.to_str().unwrap()), text);
        }
        assert_eq!(inode(&hosts), before, "a mount still shows it");
        remove_directory(&directory);
        remove_directory(&directory);
        assert!(!directory.exists());
    }

    #[test]
    fn host_names_fit_the_kernel() {
        assert!(check_hostname("web-1.example").is_ok());
        assert!(check_hostname(&"x".repeat(65)).is_err());
        assert!(check_hostname("a b").is_err());
    }
}
