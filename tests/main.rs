//! Integration tests, by topic. Everything that needs a network runs in a [`world`] of its own.

mod world;

mod layers;
mod machinery;
