//! The `maddock` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    maddock::cli::main(std::env::args_os())
}
