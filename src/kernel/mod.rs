//! The kernel, as the daemon reaches it: through the helper, and by watching the host.
//!
//! Path: `daemon` → here → helper. Invariant: nothing here decides anything; it carries requests,
//! and reports what is.
//!
//! * `helper`: client of the helper's socket, one request after the other, events in between.
//! * `launch`: starts a helper.
//! * `framing`: frames and descriptors on a stream socket.
//! * `listeners`: sockets of published ports; `holder`: who has a port that cannot be had.
//! * `granted`: what an admin grants, by an installed `mossnet-helper`.
//! * `host`: prefixes that the host uses, and a watch for changes of them and of resolv.conf.

#[cfg(test)]
pub(crate) mod fake;
mod framing;
pub mod granted;
pub mod helper;
pub mod holder;
pub mod host;
mod launch;
pub mod listeners;
