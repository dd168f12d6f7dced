//! A machine made of texts, for tests only: a plugin names the feature `fixtures` among its dev-dependencies, so that
//! no component has this.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::machine::Machine;
use crate::types::ErrorKind;
use crate::{Result, failed, of};

/// Files, variables, programs and what they answer.
#[derive(Debug, Default)]
pub struct Fixture {
    files: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    programs: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
    refuses: bool,
    runs: RefCell<Vec<String>>,
}

impl Fixture {
    /// A file, and with it the directories above.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Where the search path has a program; whether a file lies there is another matter.
    #[must_use]
    pub fn program(mut self, name: &str, path: &str) -> Self {
        self.programs.insert(name.to_owned(), path.to_owned());
        self
    }

    /// What a command line answers; the program is there, too.
    #[must_use]
    pub fn output(mut self, command: &str, text: &str) -> Self {
        let program = command.split(' ').next().unwrap_or_default().to_owned();
        self.files.entry(program).or_default();
        self.outputs.insert(command.to_owned(), text.to_owned());
        self
    }

    /// A machine where policy refuses to say whether something is there.
    #[must_use]
    pub fn refusing(mut self) -> Self {
        self.refuses = true;
        self
    }

    /// The command lines that were started.
    #[must_use]
    pub fn runs(&self) -> Vec<String> {
        self.runs.borrow().clone()
    }
}

impl Machine for Fixture {
    fn exists(&self, path: &str) -> Result<bool> {
        if self.refuses {
            return Err(of(ErrorKind::Denied, "policy refuses plugin the call `files.stat`"));
        }
        let below = format!("{path}/");
        Ok(self.files.keys().any(|file| file == path || file.starts_with(&below)))
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let below = format!("{directory}/");
        let names: BTreeSet<String> = self
            .files
            .keys()
            .filter_map(|file| Some(file.strip_prefix(&below)?.split('/').next()?.to_owned()))
            .collect();
        names.into_iter().collect()
    }

    fn text(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn program(&self, name: &str) -> Option<String> {
        self.programs.get(name).cloned()
    }

    fn run(&self, argv: &[&str], _seconds: u64) -> Result<String> {
        let command = argv.join(" ");
        self.runs.borrow_mut().push(command.clone());
        self.outputs.get(&command).cloned().ok_or_else(|| failed(format!("`{command}` ended with 1")))
    }
}
