//! `mossnet-helper`: the helper as a program of its own.

fn main() {}
