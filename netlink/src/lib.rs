//! What the two helpers share: netlink messages and the sockets that carry them (`socket`,
//! `message`), names of links that are checked once, when they are built (`names`), and descriptors that arrive with a
//! message (`fds`).
//!
//! Small on purpose: the program that an admin installs with privilege links it, and it is read with
//! it. It knows nothing of what a message says; each helper writes its own attributes.
//!
//! Sources: netlink(7), Documentation/userspace-api/netlink/intro.rst.

mod message;
pub mod names;
mod socket;
mod sys;

pub use message::{HEADER_LENGTH, Message, Received, attribute};
pub use names::{IfName, MacAddr, NameError, SandboxId};
pub use socket::{Refused, Socket};
pub use sys::fds;
