//! Integration tests, by topic. Everything that needs a network runs in a [`world`] of its own.

// A test that panics is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

mod activation;
mod bulk;
mod busy_poll;
mod by_grant;
mod capture;
mod commands;
mod completion;
mod concurrency;
mod connections;
mod crash;
mod datagrams;
mod dns;
mod doctor;
mod errors;
mod families;
mod flood;
mod framed;
mod frontends;
mod host_loopback;
mod ipam;
mod isolation;
mod layers;
mod lifecycle;
mod linger;
mod machinery;
mod netavark;
mod networks;
mod newer_debian;
mod no_exec;
mod outbound;
mod pasta;
mod publish;
mod rootlessport;
mod run;
mod rush;
mod subids;
mod uplink;
mod walkthrough;
