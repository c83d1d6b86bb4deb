//! The only place where mossnet calls the kernel through `unsafe`. One module per mechanism.
#![allow(unsafe_code)]

pub mod capture;
pub mod descriptors;
pub mod epoll;
pub mod inheritance;
pub mod inherited;
pub mod installed;
pub mod open_files;
#[cfg(test)]
pub mod own_netns;
pub mod packet;
pub mod readiness;
pub mod splice;
pub mod tcp;
pub mod tcp_repair;
pub mod udp;
