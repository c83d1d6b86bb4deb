//! `mossnet-router`: the helper as a program of its own. `mossnet` contains the same code and needs
//! no other binary; this one is for an administrator who wants the helper apart, as
//! `mossnet-router --socket PATH --relay /usr/bin/mossnet`.

use mossnet_helper::{remover, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|word| word == remover::WORD).is_some() {
        return remover::main();
    }
    serve::main(args)
}
