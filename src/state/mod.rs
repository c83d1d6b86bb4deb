//! The store: what survives the daemon, in two redb files.
//!
//! Path: `daemon` commits each change of the model here before it touches the kernel. Invariants:
//! one change is one transaction; a file from a newer mossnet is never touched; live state of an
//! earlier boot is never believed.
//!
//! * `file`: one redb file with a schema version, migrations and its errors.
//! * [`DataStore`]: networks, leases and the installation's ULA prefix, under the data directory.
//! * [`RuntimeStore`]: sandboxes, and exit codes not yet asked for, under the runtime directory.

mod data;
mod file;
mod runtime;

pub use data::{DataStore, Lease};
pub use file::StateError;
pub use runtime::RuntimeStore;
