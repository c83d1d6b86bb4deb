//! The only unsafe code of this crate: one system call a block, each with its reason.

#![allow(unsafe_code)]

pub mod fds;
pub mod option;
