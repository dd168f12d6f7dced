//! What a plugin that looks around needs of the host: one trait, so that tests can be a machine (`fixture`, behind the
//! feature `fixtures`).
//!
//! Only `exists` and `run` report errors; the others are best effort: what cannot be read counts as absent, and another
//! source is asked. It never writes.

use crate::process::{self, Command, ExitStatus};
use crate::{Result, facts, failed, files};

/// Driver and version files are far shorter.
const LONGEST_FILE: u64 = 64 << 10;
const LONGEST_OUTPUT: u32 = 4 << 20;

/// A machine that may have accelerators.
pub trait Machine {
    /// Whether there is something at `path`. A refusal is an error, so that it is not taken for an empty machine.
    fn exists(&self, path: &str) -> Result<bool>;
    /// The names in a directory, sorted; empty where it cannot be listed.
    fn names(&self, directory: &str) -> Vec<String>;
    /// The text of a file, where it can be read.
    fn text(&self, path: &str) -> Option<String>;
    /// An environment variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<String>;
    /// Where a program lies on the search path.
    fn program(&self, name: &str) -> Option<String>;
    /// The standard output of a program that ends well within so many seconds.
    fn run(&self, argv: &[&str], seconds: u64) -> Result<String>;
}

/// The machine that the component runs on.
#[derive(Debug, Default)]
pub struct Here {
    /// The environment variables that programs get; none but these.
    pub inherit: &'static [&'static str],
}

impl Machine for Here {
    fn exists(&self, path: &str) -> Result<bool> {
        files::stat(path).map(|found| found.is_some())
    }

    fn names(&self, directory: &str) -> Vec<String> {
        files::list_directory(directory).unwrap_or_default().into_iter().map(|entry| entry.name).collect()
    }

    fn text(&self, path: &str) -> Option<String> {
        files::read(path, LONGEST_FILE).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn variable(&self, name: &str) -> Option<String> {
        facts::environment(name).ok().flatten().filter(|value| !value.is_empty())
    }

    fn program(&self, name: &str) -> Option<String> {
        facts::find_program(name).ok().flatten()
    }

    fn run(&self, argv: &[&str], seconds: u64) -> Result<String> {
        let command = Command {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            inherit: self.inherit.iter().map(|&name| name.to_owned()).collect(),
            directory: Some("/".to_owned()),
            stdin: None,
            time_limit_ms: Some(seconds * 1_000),
            extra: Vec::new(),
        };
        let finished = process::run(&command, LONGEST_OUTPUT)?;
        match finished.status {
            ExitStatus::Exited(0) => Ok(String::from_utf8_lossy(&finished.stdout).into_owned()),
            ref other => Err(failed(format!("`{}` ended with {other:?}", argv.join(" ")))),
        }
    }
}
