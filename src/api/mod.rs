//! The daemon's API: HTTP/1.1 and JSON on a unix socket, plus one socket that takes descriptors.
//!
//! * `types`, `network_types`: requests and answers.
//! * `control`: what a daemon must be able to do; implemented by `daemon`.
//! * `server`: connections and their life; `routes`, `network_routes`: each path to one method of
//!   `Control`;
//!   `hold`: what a client that vanishes leaves behind.
//! * `client`, `network_client`: what the CLI calls, by `call`; `launch`: starts the daemon for it.
//! * `stdio`: descriptors over SCM_RIGHTS, which HTTP cannot carry.
//! * `paths`: where the sockets and the state live.
//! * `enter`: our own process into the router's namespaces, for `unshare`, and for `capture`.
//! * `doctor`: what the machine lets mossnet do; needs no daemon.
//!
//! The same in OpenAPI's words: `docs/openapi.json`.

mod call;
pub mod capture;
pub mod client;
pub mod control;
pub mod doctor;
pub mod enter;
mod hold;
mod launch;
mod network_client;
mod network_routes;
pub mod network_types;
pub mod paths;
mod port_client;
mod port_routes;
pub mod port_types;
mod routes;
pub mod server;
pub mod stdio;
pub mod types;
