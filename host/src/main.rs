//! The `maddock` binary: everything is in the library.

use std::process::ExitCode;

use maddock::capability::process::supervise;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else: a supervisor stays small and has one thread.
    if arguments.next().is_some_and(|command| command == supervise::COMMAND) {
        return supervise::main(arguments);
    }
    maddock::cli::main(std::env::args_os())
}
