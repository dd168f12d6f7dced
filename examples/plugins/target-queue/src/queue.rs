//! What is asked of the queue, one program call each, and what it answers. The words are those that `plugin.json` asks for.

use maddock_sdk::process::{self, Command, ExitStatus};
use maddock_sdk::types::{EnvValue, EnvVar, ErrorKind};
use maddock_sdk::{Result, failed, serde_json};
use serde::{Deserialize, Serialize};

/// The queue's program.
pub const PROGRAM: &str = "toyq";
/// Where the queue is, for its program.
pub const SPOOL: &str = "TOYQ_SPOOL";
/// An answer is one line; a longer one is not the queue's.
const ANSWER: u32 = 64 << 10;
/// How long the queue may take for an answer.
const PATIENCE_MS: u64 = 30_000;
/// How long one wait takes at most.
const WAIT: u64 = 10;

/// A job in a queue: all that later steps need to find it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number there.
    pub id: String,
    /// Whose it is: run and job.
    pub owner: String,
    /// The queue's directory.
    pub spool: String,
}

/// What the queue says of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Shown {
    pub id: String,
    pub owner: String,
    pub spool: String,
    pub state: State,
    pub how: How,
    pub code: i32,
    pub reason: String,
    pub host: String,
    pub bytes: u64,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Queued,
    Running,
    Ended,
    Gone,
    /// A word of a later queue.
    #[serde(other)]
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It has not.
    #[serde(rename = "")]
    NotYet,
    Exited,
    Signalled,
    Cancelled,
    TimedOut,
    NeverStarted,
    Lost,
    /// A word of a later queue.
    #[serde(other)]
    Unknown,
}

/// The words of a submission.
#[must_use]
pub fn submission(owner: &str, time: Option<u64>, directory: &str, output: &str, script: &str) -> Vec<String> {
    let time = time.unwrap_or(0).to_string();
    let words = ["submit", "--owner", owner, "--time", &time, "--directory", directory, "--output", output];
    words.iter().chain(&["--", "bash", script]).map(|&word| word.to_owned()).collect()
}

/// Hands a job in. After an error there is none.
///
/// # Errors
/// The queue cannot be asked, or refuses.
pub fn submit(owner: &str, words: Vec<String>, env: Vec<EnvVar>, inherit: &[&str]) -> Result<Entry> {
    let inherit = inherit.iter().map(|&name| name.to_owned()).collect();
    let handed_in = run(words, env.clone(), inherit, PATIENCE_MS).and_then(|answer| read(&answer));
    match handed_in {
        Ok(shown) => Ok(Entry { id: shown.id, owner: shown.owner, spool: shown.spool }),
        Err(error) => {
            // Refused by policy, nothing was asked; else the answer may have been lost and not the job.
            if error.kind != ErrorKind::Denied {
                let spool = env.into_iter().filter(|variable| variable.name == SPOOL).collect();
                let _ = run(remove_words(owner), spool, vec![SPOOL.to_owned()], PATIENCE_MS);
            }
            Err(error.during("handing the job in"))
        }
    }
}

fn remove_words(owner: &str) -> Vec<String> {
    ["remove", "--owner", owner].map(str::to_owned).to_vec()
}

impl Entry {
    /// How it is.
    ///
    /// # Errors
    /// The queue cannot be asked.
    pub fn show(&self) -> Result<Shown> {
        self.ask("show", &[], PATIENCE_MS).map_err(|error| error.during("asking the queue"))
    }

    /// The same, as soon as it is something else than `seen`, has written more, or some time is over.
    ///
    /// # Errors
    /// The queue cannot be asked.
    pub fn wait(&self, seen: &Shown) -> Result<Shown> {
        let (bytes, seconds) = (seen.bytes.to_string(), WAIT.to_string());
        let more = ["--state", seen.state.word(), "--seen", &bytes, "--seconds", &seconds];
        self.ask("wait", &more, PATIENCE_MS + WAIT * 1000).map_err(|error| error.during("waiting for the queue"))
    }

    /// Ends it. One that has ended is fine.
    ///
    /// # Errors
    /// The queue cannot be asked.
    pub fn cancel(&self) -> Result<Shown> {
        self.ask("cancel", &[], PATIENCE_MS).map_err(|error| error.during("cancelling"))
    }

    /// Ends and forgets all that is this owner's.
    ///
    /// # Errors
    /// The queue cannot be asked, or a job does not end.
    pub fn remove(&self) -> Result<()> {
        let removed = run(remove_words(&self.owner), self.env(), Vec::new(), PATIENCE_MS);
        removed.map(|_| ()).map_err(|error| error.during("removing the job from the queue"))
    }

    fn ask(&self, command: &str, more: &[&str], patience: u64) -> Result<Shown> {
        let words = [command, &self.id, "--owner", &self.owner].into_iter().chain(more.iter().copied());
        read(&run(words.map(str::to_owned).collect(), self.env(), Vec::new(), patience)?)
    }

    fn env(&self) -> Vec<EnvVar> {
        vec![EnvVar { name: SPOOL.to_owned(), value: EnvValue::Text(self.spool.clone()) }]
    }
}

fn run(words: Vec<String>, env: Vec<EnvVar>, inherit: Vec<String>, patience: u64) -> Result<Vec<u8>> {
    let argv = [PROGRAM.to_owned()].into_iter().chain(words).collect();
    let time_limit_ms = Some(patience);
    let command = Command { argv, env, inherit, directory: None, stdin: None, time_limit_ms, extra: Vec::new() };
    let finished = process::run(&command, ANSWER).map_err(|error| match error.kind {
        ErrorKind::NotFound => error.hint("build it: `cargo build --release -p toyq`, and put it on the search path"),
        _ => error,
    })?;
    match finished.status {
        ExitStatus::Exited(0) => Ok(finished.stdout),
        ExitStatus::Exited(code) => {
            let said = String::from_utf8_lossy(&finished.stderr).trim().to_owned();
            Err(failed(if said.is_empty() { format!("the queue's program ended with code {code}") } else { said }))
        }
        ExitStatus::TimedOut => Err(maddock_sdk::of(ErrorKind::TimedOut, "the queue's program did not end in time")),
        ExitStatus::Signalled(signal) => Err(failed(format!("the queue's program was ended by signal {signal}"))),
        ExitStatus::Lost => Err(failed("nobody knows how the queue's program ended")),
    }
}

/// Reads an answer.
///
/// # Errors
/// It is not one of the queue's.
pub fn read(answer: &[u8]) -> Result<Shown> {
    serde_json::from_slice(answer).map_err(|error| failed(format!("the queue's answer cannot be read: {error}")))
}
