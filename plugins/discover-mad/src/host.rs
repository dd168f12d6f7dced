//! What this plugin needs of the host: one trait, so that tests can be the host.

use maddock_sdk::Result;
use maddock_sdk::events::{self, Level};
use maddock_sdk::files::{self, DirectoryEntry};
use maddock_sdk::process::{self, Command, Finished};

/// A file that declares models is never longer than this.
const LONGEST_FILE: u64 = 64 << 20;
/// Nor is what a Python file answers.
const LONGEST_ANSWER: u32 = 64 << 20;

/// The host, as far as discovery needs it.
pub trait Host {
    /// The entries of a directory, sorted by name.
    fn list(&self, path: &str) -> Result<Vec<DirectoryEntry>>;
    /// A whole file.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
    /// Runs a program to its end.
    fn run(&self, command: &Command) -> Result<Finished>;
    /// One line for the person.
    fn log(&self, level: Level, message: &str);
}

/// The host that the component imports.
#[derive(Debug)]
pub struct Imports;

impl Host for Imports {
    fn list(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        files::list_directory(path)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        files::read(path, LONGEST_FILE)
    }

    fn run(&self, command: &Command) -> Result<Finished> {
        process::run(command, LONGEST_ANSWER)
    }

    fn log(&self, level: Level, message: &str) {
        events::log(level, message, &[]);
    }
}
