//! The `maddock` binary: everything is in the library.

use std::process::ExitCode;

use maddock::capability::process::supervise;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else: a supervisor stays small and has one thread.
    match arguments.next() {
        Some(command) if command == supervise::COMMAND => return supervise::main(arguments),
        Some(command) if command == maddock::cli::ATTEND => return maddock::cli::attend(arguments),
        _ => {}
    }
    maddock::cli::main(std::env::args_os())
}
