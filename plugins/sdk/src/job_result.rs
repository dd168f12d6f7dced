//! The file in which the entry script leaves a job's outcome: written by [`crate::entry`], read by targets.
//!
//! The file lies where the model could write, too: what it says is the job's own word, never a path or a command.

use std::fmt::Write as _;

/// What the entry script was doing when the exit code was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Entering the work directory.
    Setup,
    /// Cloning the model's repository.
    Clone,
    /// A script before the model.
    Before,
    /// The model itself.
    Model,
    /// A script after the model, which had succeeded.
    After,
    /// The model was not run, as asked.
    Skipped,
    /// Nobody ended the job at its limit, so the script did.
    TimedOut,
}

impl Stage {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Setup, "setup"),
        (Self::Clone, "clone"),
        (Self::Before, "before"),
        (Self::Model, "model"),
        (Self::After, "after"),
        (Self::Skipped, "skipped"),
        (Self::TimedOut, "timed-out"),
    ];
}

/// The outcome of a job's entry script.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// What the script ended with.
    pub exit: i32,
    /// What decided it.
    pub stage: Stage,
    /// The model's own exit code, where it ran.
    pub model: Option<i32>,
    /// Seconds that the model ran.
    pub seconds: Option<f64>,
    /// The commit that was cloned.
    pub git_commit: Option<String>,
}

impl JobResult {
    /// Reads the file. `exit` must be there; lines that are not known are left alone, so that the file may grow.
    ///
    /// # Errors
    /// A sentence about the first line that cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut result = Self { exit: 0, stage: Stage::Model, model: None, seconds: None, git_commit: None };
        let mut exit = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.split_once('=').ok_or_else(|| format!("line `{line}` has no `=`"))?;
            let wrong = || format!("`{name}` cannot be `{value}`");
            match name {
                "exit" => exit = Some(value.parse().map_err(|_| wrong())?),
                "model" => result.model = Some(value.parse().map_err(|_| wrong())?),
                "seconds" => {
                    let seconds = value.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
                    result.seconds = Some(seconds.ok_or_else(wrong)?);
                }
                "stage" => {
                    result.stage = Stage::ALL
                        .iter()
                        .find(|(_, word)| *word == value)
                        .map(|(stage, _)| *stage)
                        .ok_or_else(wrong)?;
                }
                "git_commit" => {
                    // Anything but a commit's name would be the model speaking in the row.
                    let plain = !value.is_empty() && value.len() <= 64 && value.chars().all(|c| c.is_ascii_hexdigit());
                    result.git_commit = Some(value.to_owned()).filter(|_| plain);
                }
                _ => {}
            }
        }
        result.exit = exit.ok_or("there is no line `exit=…`")?;
        Ok(result)
    }

    /// One sentence about an exit code that the model did not decide; empty where it did.
    #[must_use]
    pub fn message(&self) -> String {
        let mut message = String::new();
        let _ = match self.stage {
            Stage::Setup => write!(message, "the work directory cannot be entered (code {})", self.exit),
            Stage::Clone => write!(message, "the repository of the model cannot be cloned (code {})", self.exit),
            Stage::Before => {
                write!(message, "a script before the model ended with code {}, so the model was not run", self.exit)
            }
            Stage::After => {
                write!(message, "the model succeeded, and a script after it ended with code {}", self.exit)
            }
            Stage::TimedOut => write!(message, "the time limit passed"),
            Stage::Model | Stage::Skipped => Ok(()),
        };
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_result_is_read() {
        let text = "exit=3\nstage=after\nmodel=0\nseconds=12.34\ngit_commit=0a1b2c\nsomething=new\n";
        let read = JobResult::parse(text).unwrap();
        assert_eq!(
            read,
            JobResult {
                exit: 3,
                stage: Stage::After,
                model: Some(0),
                seconds: Some(12.34),
                git_commit: Some("0a1b2c".to_owned())
            }
        );
        assert_eq!(read.message(), "the model succeeded, and a script after it ended with code 3");
    }

    #[test]
    fn a_result_needs_an_exit_code() {
        assert_eq!(JobResult::parse("seconds=1.00\n"), Err("there is no line `exit=…`".to_owned()));
        assert_eq!(JobResult::parse("exit=zero\n"), Err("`exit` cannot be `zero`".to_owned()));
        assert_eq!(JobResult::parse("exit\n"), Err("line `exit` has no `=`".to_owned()));
        assert!(JobResult::parse("exit=0\nseconds=inf").is_err());
        assert!(JobResult::parse("exit=0\nstage=elsewhere").is_err());
    }

    #[test]
    fn what_is_not_a_commit_is_not_reported_as_one() {
        assert_eq!(JobResult::parse("exit=0\ngit_commit=<b>\n").unwrap().git_commit, None);
    }
}
