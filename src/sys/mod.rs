//! The only place where mossnet calls the kernel through `unsafe`. One module per mechanism.
#![allow(unsafe_code)]

pub mod epoll;
pub mod inheritance;
pub mod packet;
pub mod tcp;
pub mod udp;
