//! Sandboxes of this boot, and exit codes that may still be asked for.

use super::file::{Schema, StateError, StateFile, Table};
use crate::network::Sandbox;
use crate::network::model::Millis;
use mossnet_helper::SandboxId;
use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use std::path::Path;

const SANDBOXES: Table = TableDefinition::new("sandboxes");
const EXITS: Table = TableDefinition::new("exits");
const BOOT: &str = "boot_id";
/// Format 2: sandboxes have attachments and links, which format 1 leaves empty.
const SCHEMA: Schema = Schema {
    migrations: &[|_| Ok(())],
};

/// Exit codes of removed sandboxes and of exec'd processes that are kept for a late `wait`.
const KEPT_EXITS: usize = 512;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct ExitRecord {
    code: i32,
    at: Millis,
}

/// The store under the runtime directory.
#[derive(Debug)]
pub struct RuntimeStore(StateFile);

impl RuntimeStore {
    /// Opens or makes it. One of another boot (the runtime directory may lie on a disk) describes
    /// processes that are gone, and is discarded.
    pub fn open(path: &Path, boot_id: &str) -> Result<Self, StateError> {
        let store = Self(StateFile::open(path, &SCHEMA)?);
        match store.0.meta::<String>(BOOT)? {
            Some(recorded) if recorded == boot_id => return Ok(store),
            Some(_) => drop(store),
            None => return store.claim(boot_id),
        }
        std::fs::remove_file(path).map_err(|source| StateError::Make {
            path: path.to_path_buf(),
            source,
        })?;
        Self(StateFile::open(path, &SCHEMA)?).claim(boot_id)
    }

    fn claim(self, boot_id: &str) -> Result<Self, StateError> {
        self.0.change().put_meta(BOOT, &boot_id)?.commit()?;
        Ok(self)
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>, StateError> {
        let rows = self.0.load(SANDBOXES)?;
        Ok(rows.into_iter().map(|(_, sandbox)| sandbox).collect())
    }

    /// Adds or replaces a sandbox.
    pub fn put_sandbox(&self, sandbox: &Sandbox) -> Result<(), StateError> {
        let change = self.0.change();
        change
            .put(SANDBOXES, sandbox.id.as_str(), sandbox)?
            .commit()
    }

    /// Forgets a sandbox.
    pub fn remove_sandbox(&self, id: &SandboxId) -> Result<(), StateError> {
        self.0.change().delete(SANDBOXES, id.as_str()).commit()
    }

    /// Forgets a sandbox or exec'd process, but keeps its exit code for those who wait late.
    pub fn remove_exited(&self, id: &SandboxId, code: i32, at: Millis) -> Result<(), StateError> {
        let mut exits = self.0.load::<ExitRecord>(EXITS)?;
        exits.sort_by_key(|(_, exit)| exit.at);
        let surplus = (exits.len() + 1).saturating_sub(KEPT_EXITS);
        let change = exits
            .iter()
            .take(surplus)
            .fold(self.0.change(), |change, (id, _)| change.delete(EXITS, id));
        change
            .put(EXITS, id.as_str(), &ExitRecord { code, at })?
            .delete(SANDBOXES, id.as_str())
            .commit()
    }

    /// The exit code of something forgotten.
    pub fn exit_code(&self, id: &SandboxId) -> Result<Option<i32>, StateError> {
        let exits = self.0.load::<ExitRecord>(EXITS)?;
        let found = exits.into_iter().find(|(have, _)| have == id.as_str());
        Ok(found.map(|(_, exit)| exit.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    #[test]
    fn another_boot_discards_the_live_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("live.redb");
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        let store = RuntimeStore::open(&path, "boot 1").unwrap();
        store.put_sandbox(&sandbox).unwrap();
        drop(store);
        let store = RuntimeStore::open(&path, "boot 1").unwrap();
        assert_eq!(store.sandboxes().unwrap(), [sandbox]);
        drop(store);
        let store = RuntimeStore::open(&path, "boot 2").unwrap();
        assert!(store.sandboxes().unwrap().is_empty());
    }

    #[test]
    fn exit_codes_are_kept_but_not_forever() {
        let directory = tempfile::tempdir().unwrap();
        let store = RuntimeStore::open(&directory.path().join("live.redb"), "boot").unwrap();
        let id = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            SandboxId::from(bytes)
        };
        for n in 0..KEPT_EXITS + 2 {
            store.remove_exited(&id(n), 7, n as Millis).unwrap();
        }
        assert_eq!(store.exit_code(&id(0)).unwrap(), None);
        assert_eq!(store.exit_code(&id(1)).unwrap(), None);
        assert_eq!(store.exit_code(&id(2)).unwrap(), Some(7));
        assert_eq!(store.exit_code(&id(KEPT_EXITS + 1)).unwrap(), Some(7));
    }
}
