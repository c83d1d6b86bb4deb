//! Networks of the user: what `docker network` promises, on real packets.

mod create;
mod hot;
mod interrupted;
mod isolation;
mod leases;
mod limits;
mod links;
mod modes;
mod names;
mod picture;
mod references;
mod refusals;
mod remove;
mod scale;
mod service;
mod spoofing;
mod stress;
