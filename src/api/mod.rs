//! The daemon's API: HTTP/1.1 and JSON on a unix socket, plus one socket that takes descriptors.
//!
//! * `types`: requests and answers.
//! * `control`: what a daemon must be able to do; implemented by `daemon`.
//! * `server`: routes to `Control`. `client`: what the CLI calls. `stdio`: descriptors over
//!   SCM_RIGHTS, which HTTP cannot carry. `paths`: where the sockets and the state live.

pub mod control;
pub mod paths;
pub mod types;
