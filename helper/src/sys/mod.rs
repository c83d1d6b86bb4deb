//! The only unsafe code of the helper: one system call a block, each with its reason.

#![allow(unsafe_code)]

pub mod child;
pub mod inheritance;
pub mod loopback;
pub mod mount;
pub mod process;
