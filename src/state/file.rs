//! One redb file: schema version, migrations, one transaction for each change, JSON values.
//!
//! Invariant: a file is either absent or whole: a new one is made beside its place and renamed, so
//! that a crash while it is made leaves nothing half-written.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};

/// Every table maps text to JSON.
pub(super) type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const META: Table = TableDefinition::new("meta");
const VERSION: &str = "version";

/// Pages kept in memory, bytes. The stores hold kilobytes.
const CACHE: usize = 1 << 20;

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by a mossnet that knows more.
    #[error(
        "state file {} has format {found}, this mossnet knows formats up to {known}", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// Not ours, or broken.
    #[error("state file {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process has it open.
    #[error("state file {} is in use by another process", .0.display())]
    Busy(PathBuf),
    /// It cannot be read or written.
    #[error("use state file {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// It cannot be put in its place.
    #[error("make state file {}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value of ours has no JSON form.
    #[error("write {key} to state file {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Which value.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl StateError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Newer { .. } => {
                "use the newer mossnet, or another place with --root DIR".to_owned()
            }
            Self::Damaged { path, .. } => format!(
                "move it away and try again: mv {0} {0}.damaged (what it held must be made again)",
                path.display()
            ),
            Self::Busy(_) => "end the other mossnet daemon of this directory".to_owned(),
            Self::Access { .. } | Self::Make { .. } | Self::Encode { .. } => {
                "check the disk's free space and the directory's permissions".to_owned()
            }
        }
    }
}

/// Takes a file from one version to the next, inside one transaction.
pub(super) type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// What a kind of file looks like: the migrations from version 1 on, in order. The current
/// version is one more than there are migrations.
pub(super) struct Schema {
    pub(super) migrations: &'static [Migration],
}

impl Schema {
    fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX - 1) + 1
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct StateFile {
    database: Database,
    path: PathBuf,
}

/// Puts and deletions that belong together.
pub(super) struct Change<'a> {
    file: &'a StateFile,
    operations: Vec<(Table, String, Option<Vec<u8>>)>,
}

impl StateFile {
    /// Opens `path`, making or migrating it.
    pub(super) fn open(path: &Path, schema: &Schema) -> Result<Self, StateError> {
        if !path.exists() {
            make(path, schema)?;
        }
        let database = builder().open(path).map_err(|e| explain(path, e.into()))?;
        let file = Self {
            database,
            path: path.to_path_buf(),
        };
        file.migrate(schema)?;
        Ok(file)
    }

    fn migrate(&self, schema: &Schema) -> Result<(), StateError> {
        let known = schema.version();
        let path = self.path.clone();
        let Some(found) = self.meta::<u32>(VERSION)? else {
            let reason = "it has no format number".to_owned();
            return Err(StateError::Damaged { path, reason });
        };
        if found > known {
            return Err(StateError::Newer { path, found, known });
        }
        let due = usize::try_from(found.saturating_sub(1)).unwrap_or(usize::MAX);
        let due = schema.migrations.get(due..).unwrap_or(&[]);
        if due.is_empty() {
            return Ok(());
        }
        let fail = |error| explain(&self.path, error);
        let transaction = self.database.begin_write().map_err(|e| fail(e.into()))?;
        for migration in due {
            migration(&transaction).map_err(fail)?;
        }
        put_version(&transaction, known).map_err(fail)?;
        transaction.commit().map_err(|e| fail(e.into()))
    }

    /// A value of the table of single values.
    pub(super) fn meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        let found = self.read(META)?.into_iter().find(|(have, _)| have == key);
        found
            .map(|(key, bytes)| self.decode(&key, &bytes))
            .transpose()
    }

    /// Everything in a table, in order of its keys.
    pub(super) fn load<T: DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<(String, T)>, StateError> {
        let decode = |(key, bytes): (String, Vec<u8>)| {
            let value = self.decode(&key, &bytes)?;
            Ok((key, value))
        };
        self.read(table)?.into_iter().map(decode).collect()
    }

    fn read(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let rows = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(table) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                rows.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        };
        rows().map_err(|error| explain(&self.path, error))
    }

    fn decode<T: DeserializeOwned>(&self, key: &str, bytes: &[u8]) -> Result<T, StateError> {
        serde_json::from_slice(bytes).map_err(|error| StateError::Damaged {
            path: self.path.clone(),
            reason: format!("entry {key}: {error}"),
        })
    }

    /// Begins a change.
    pub(super) fn change(&self) -> Change<'_> {
        Change {
            file: self,
            operations: Vec::new(),
        }
    }
}

impl Change<'_> {
    /// Sets a value of the table of single values.
    pub(super) fn put_meta(self, key: &str, value: &impl Serialize) -> Result<Self, StateError> {
        self.put(META, key, value)
    }

    /// Sets `key` in `table`.
    pub(super) fn put(
        mut self,
        table: Table,
        key: &str,
        value: &impl Serialize,
    ) -> Result<Self, StateError> {
        let json = serde_json::to_vec(value).map_err(|source| StateError::Encode {
            path: self.file.path.clone(),
            key: key.to_owned(),
            source,
        })?;
        self.operations.push((table, key.to_owned(), Some(json)));
        Ok(self)
    }

    /// Removes `key` from `table`; absent is fine.
    pub(super) fn delete(mut self, table: Table, key: &str) -> Self {
        self.operations.push((table, key.to_owned(), None));
        self
    }

    /// All of it or, after a crash at any moment, nothing.
    pub(super) fn commit(self) -> Result<(), StateError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.file.database.begin_write()?;
            self.write(&transaction)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| explain(&self.file.path, error))
    }

    fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        for (table, key, value) in &self.operations {
            let mut table = transaction.open_table(*table)?;
            match value {
                Some(json) => drop(table.insert(key.as_str(), json.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
        Ok(())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Makes an empty file of the current version beside its place, then moves it there.
fn make(path: &Path, schema: &Schema) -> Result<(), StateError> {
    let fresh = path.with_extension("new");
    let io_error = |source| StateError::Make {
        path: path.to_path_buf(),
        source,
    };
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        Ok(()) | Err(_) => {}
    }
    let write = || -> Result<(), redb::Error> {
        let database = builder().create(&fresh)?;
        let transaction = database.begin_write()?;
        put_version(&transaction, schema.version())?;
        Ok(transaction.commit()?)
    };
    write().map_err(|error| explain(path, error))?;
    std::fs::rename(&fresh, path).map_err(io_error)
}

fn put_version(transaction: &WriteTransaction, version: u32) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(META)?;
    table.insert(VERSION, version.to_string().as_bytes())?;
    Ok(())
}

fn explain(path: &Path, error: redb::Error) -> StateError {
    let path = path.to_path_buf();
    match error {
        redb::Error::DatabaseAlreadyOpen => StateError::Busy(path),
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            let reason = error.to_string();
            StateError::Damaged { path, reason }
        }
        error @ (redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }) => {
            let reason = error.to_string();
            StateError::Damaged { path, reason }
        }
        error => StateError::Access {
            path,
            source: Box::new(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THINGS: Table = TableDefinition::new("things");
    const SCHEMA: Schema = Schema { migrations: &[] };

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        (directory, path)
    }

    #[test]
    fn a_change_survives_and_an_interrupted_one_leaves_no_trace() {
        let (_directory, path) = place();
        let file = StateFile::open(&path, &SCHEMA).unwrap();
        file.change()
            .put(THINGS, "a", &1)
            .unwrap()
            .commit()
            .unwrap();
        // What kill -9 between write and commit leaves: the transaction is dropped.
        let change = file
            .change()
            .put(THINGS, "b", &2)
            .unwrap()
            .delete(THINGS, "a");
        let transaction = file.database.begin_write().unwrap();
        change.write(&transaction).unwrap();
        drop(transaction);
        drop(file);
        let file = StateFile::open(&path, &SCHEMA).unwrap();
        assert_eq!(file.load::<i32>(THINGS).unwrap(), [("a".to_owned(), 1)]);
    }

    #[test]
    fn a_newer_file_is_refused_and_an_older_one_migrated() {
        const NEWER: Schema = Schema {
            migrations: &[|transaction| {
                let mut table = transaction.open_table(THINGS)?;
                table.insert("migrated", b"true".as_slice())?;
                Ok(())
            }],
        };
        let (_directory, path) = place();
        drop(StateFile::open(&path, &SCHEMA).unwrap());
        let file = StateFile::open(&path, &NEWER).unwrap();
        assert_eq!(
            file.load::<bool>(THINGS).unwrap(),
            [("migrated".to_owned(), true)]
        );
        assert_eq!(file.meta::<u32>(VERSION).unwrap(), Some(2));
        drop(file);
        let error = StateFile::open(&path, &SCHEMA).unwrap_err();
        assert!(
            matches!(
                error,
                StateError::Newer {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let (_directory, path) = place();
        std::fs::write(&path, "this is no database".repeat(1000)).unwrap();
        let error = StateFile::open(&path, &SCHEMA).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error:?}");
        assert!(error.hint().contains("mv "), "{}", error.hint());
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let (_directory, path) = place();
        let file = StateFile::open(&path, &SCHEMA).unwrap();
        file.change()
            .put(THINGS, "a", &"text")
            .unwrap()
            .commit()
            .unwrap();
        let error = file.load::<i32>(THINGS).unwrap_err().to_string();
        assert!(error.contains("entry a: invalid type"), "{error}");
    }

    #[test]
    fn a_half_made_file_is_made_again() {
        let (_directory, path) = place();
        std::fs::write(path.with_extension("new"), "half").unwrap();
        StateFile::open(&path, &SCHEMA).unwrap();
    }
}
