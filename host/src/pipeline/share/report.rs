//! What a node leaves in its own directory: `started`, `output.log`, `files/`, `ended`. The files of a node are there as a
//! whole or not at all; lines are `name=value`, and one that a reader does not know is left alone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::capability::events::printable;
use crate::pipeline::event::{Event, Gravity, Listener};
use crate::plugin::jobs::CollectedFile;
use crate::results::run_directory::replace_file;

/// The file by which the others know that a node has begun.
pub const STARTED: &str = "started";

/// What became of a node's share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The model's code, or one that stands for why there is none.
    pub code: i32,
    /// One word for how it ended.
    pub cause: &'static str,
    /// One sentence, empty for a plain end.
    pub message: String,
    /// It was ended because another node failed.
    pub peer: bool,
    /// Seconds that the model ran.
    pub seconds: Option<f64>,
    /// Named facts for the row.
    pub facts: Vec<(String, String)>,
}

/// A node's own directory.
#[derive(Debug, Clone)]
pub struct Desk {
    directory: PathBuf,
    log: Arc<Mutex<File>>,
    host: String,
    rank: u32,
}

impl Desk {
    /// Takes a node's place: from here on it has begun.
    ///
    /// # Errors
    /// The directory is not there or cannot be written.
    pub fn open(directory: &Path, rank: u32, host: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        // What a model prints is the owner's alone.
        let log = File::options().create(true).append(true).mode(0o600).open(directory.join("output.log"))?;
        let desk =
            Self { directory: directory.to_owned(), log: Arc::new(Mutex::new(log)), host: printable(host), rank };
        replace_file(&directory.join(STARTED), format!("host={}\n", desk.host).as_bytes())?;
        Ok(desk)
    }

    /// The file that all output goes to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("output.log")
    }

    /// Where the trace goes.
    #[must_use]
    pub fn trace(&self) -> PathBuf {
        self.directory.join("trace.jsonl")
    }

    /// A line of this node's own in its output.
    pub fn say(&self, text: &str) {
        let line = format!("maddock: node {} ({}): {}\n", self.rank, self.host, printable(text));
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not keep the outcome from being left.
        let _ = log.write_all(line.as_bytes());
    }

    /// Brings files to where the job is collected from; says which could not be.
    pub fn keep(&self, files: &[CollectedFile]) {
        for file in files {
            let name = Path::new(&file.name);
            let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
            let place = self.directory.join("files").join(name);
            let kept =
                if plain { copy(Path::new(&file.path), &place) } else { Err(io::ErrorKind::InvalidInput.into()) };
            if let Err(error) = kept {
                self.say(&format!("`{}` cannot be brought back: {error}", file.name));
            }
        }
    }

    /// Leaves the outcome.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn close(&self, outcome: &Outcome) -> io::Result<()> {
        let mut text = format!(
            "exit={}\nhost={}\npeer={}\ncause={}\n",
            outcome.code,
            self.host,
            u8::from(outcome.peer),
            outcome.cause
        );
        let seconds = outcome.seconds.map(|seconds| ("seconds".to_owned(), seconds.to_string()));
        let message = Some(("message".to_owned(), outcome.message.clone())).filter(|(_, text)| !text.is_empty());
        for (name, value) in message.into_iter().chain(seconds).chain(outcome.facts.iter().cloned()) {
            let _ = writeln!(text, "{name}={}", printable(&value));
        }
        replace_file(&self.directory.join("ended"), text.as_bytes())
    }
}

impl Listener for Desk {
    fn hear(&self, event: &Event) {
        if let Event::Message { gravity, text, .. } = event
            && *gravity > Gravity::Debug
        {
            self.say(text);
        }
    }
}

fn copy(source: &Path, place: &Path) -> io::Result<()> {
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(source, place).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_that_it_began_and_how_it_ended_by_lines() {
        let place = tempfile::tempdir().unwrap();
        let desk = Desk::open(place.path(), 1, "n1").unwrap();
        assert_eq!(fs::read_to_string(place.path().join("started")).unwrap(), "host=n1\n");
        let outcome = Outcome {
            code: 7,
            cause: "exited",
            message: "two\nlines".to_owned(),
            seconds: Some(2.5),
            facts: vec![("git_commit".to_owned(), "abc".to_owned())],
            ..Outcome::default()
        };
        desk.close(&outcome).unwrap();
        let ended = fs::read_to_string(place.path().join("ended")).unwrap();
        assert!(ended.starts_with("exit=7\nhost=n1\npeer=0\ncause=exited\nmessage=two"), "{ended}");
        assert!(ended.ends_with("seconds=2.5\ngit_commit=abc\n"), "{ended}");
        assert_eq!(ended.lines().count(), 7, "{ended}");
    }

    #[test]
    fn a_file_that_leads_elsewhere_is_not_brought_back() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("x");
        fs::write(&source, "x").unwrap();
        let desk = Desk::open(&place.path().join("0"), 0, "n0").unwrap();
        let file = |name: &str| CollectedFile { node: 0, name: name.to_owned(), path: source.display().to_string() };
        desk.keep(&[file("a/b.csv"), file("../../out.csv")]);
        assert!(place.path().join("0/files/a/b.csv").exists());
        assert!(!place.path().join("out.csv").exists());
        assert!(fs::read_to_string(desk.log()).unwrap().contains("`../../out.csv` cannot be brought back"));
    }
}
