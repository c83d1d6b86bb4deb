//! `mossnet-helper`: the helper as a program of its own. `mossnet` contains the same code and needs
//! no other binary; this one is for an administrator who wants the helper apart, as
//! `mossnet-helper --socket PATH --relay /usr/bin/mossnet`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mossnet_helper::serve::main(std::env::args_os().skip(1))
}
