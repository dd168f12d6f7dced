//! Runs the scheduler's own programs, each as an argument vector, with a time limit and a small environment.
//!
//! The environment is an allow-list: the clients read options from variables (`SBATCH_PARTITION`), which would pass the
//! gate by, and a batch job inherits what its client has.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use maddock_bindings::api::types::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::Slurm;
use crate::capability::events::printable;
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};
use crate::plugin::Environment;

/// Clients wait for a silent controller by themselves, for 20 s or so and more on large clusters.
const TIME_LIMIT: Duration = Duration::from_secs(90);
/// More output than any cluster's queue has.
const MOST_OUTPUT: u64 = 64 << 20;
/// Lines of an error that are worth showing.
const ERROR_LINES: usize = 3;

/// What the clients may know of the invoking shell.
const INHERITED: [&str; 13] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_JWT",
    "KRB5CCNAME",
    "XDG_RUNTIME_DIR",
];

/// What the clients say when it is the controller that does not answer, and nothing was wrong with the question.
const UNREACHABLE: [&str; 13] = [
    "unable to contact slurm controller",
    "connect failure",
    "connection refused",
    "connection timed out",
    "connection reset",
    "socket timed out",
    "zero bytes were transmitted",
    "unexpected message received",
    "resource temporarily unavailable",
    "slurm backup controller in standby mode",
    "munge encode failed",
    "protocol authentication error",
    "could not establish a configuration source",
];

/// A way to the scheduler, for a call that the gate allowed. It holds a token where the shell has one, hence no `Debug`.
#[derive(Clone)]
pub(super) struct Client {
    environment: Environment,
    time_limit: Duration,
}

/// What a program wrote, and how it ended.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Client {
    pub(super) fn new(_: &Permit<Slurm>, environment: &Environment) -> Self {
        Self { environment: environment.clone(), time_limit: TIME_LIMIT }
    }

    #[cfg(test)]
    pub(super) fn for_tests(environment: Environment, time_limit: Duration) -> Self {
        Self { environment, time_limit }
    }

    /// Runs a program to its end.
    pub(super) async fn run(
        &self,
        program: &str,
        arguments: &[String],
        stdin: Option<&[u8]>,
    ) -> Result<Reply, ApiError> {
        self.run_with(program, arguments, stdin, &BTreeMap::new()).await
    }

    /// The same with more variables.
    pub(super) async fn run_with(
        &self,
        program: &str,
        arguments: &[String],
        stdin: Option<&[u8]>,
        more: &BTreeMap<String, String>,
    ) -> Result<Reply, ApiError> {
        let path = self.environment.find_program(program).ok_or_else(|| {
            error_with_hint(
                ErrorKind::Unavailable,
                format!("`{program}` is not on the search path"),
                "run this where the scheduler's commands are, such as a login node of the cluster",
            )
        })?;
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, self.environment.get(name)?)));
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .envs(inherited)
            .envs(more)
            .current_dir("/")
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let broken = |why: std::io::Error| {
            // A machine that has no room for a process now has some later.
            let later = matches!(why.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory);
            let kind = if later { ErrorKind::Unavailable } else { ErrorKind::Failed };
            error(kind, format!("cannot run `{program}`: {why}"))
        };
        let mut child = command.spawn().map_err(broken)?;
        let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let work = async {
            let feed = async {
                if let (Some(mut input), Some(bytes)) = (input.take(), stdin) {
                    // A program need not read what it is given; what it says about it counts.
                    let _ = input.write_all(bytes).await;
                }
                Ok::<(), std::io::Error>(())
            };
            let ((), stdout, stderr) = tokio::try_join!(feed, gather(output), gather(errors))?;
            Ok((child.wait().await?, stdout, stderr))
        };
        match tokio::time::timeout(self.time_limit, work).await {
            Ok(Ok((status, stdout, stderr))) => Ok(Reply { code: status.code(), stdout, stderr }),
            Ok(Err(why)) => Err(broken(why)),
            Err(_) => Err(error(
                ErrorKind::Unavailable,
                format!("`{program}` did not answer within {} s", self.time_limit.as_secs()),
            )),
        }
    }
}

/// Whether a program is not there, which no waiting changes: the only trouble of a client for which there is a hint.
pub(super) fn is_absent(trouble: &ApiError) -> bool {
    matches!(trouble.kind, ErrorKind::Unavailable) && trouble.hint.is_some()
}

async fn gather(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(MOST_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Reply {
    /// The output of a program that succeeded; else what it said as an error.
    pub(super) fn success(self, program: &str) -> Result<String, ApiError> {
        if self.code == Some(0) { Ok(self.stdout) } else { Err(self.trouble(program)) }
    }

    /// Whether the program says that there is no such job.
    pub(super) fn knows_no_such_job(&self) -> bool {
        self.code != Some(0) && self.stderr.to_lowercase().contains("invalid job id")
    }

    fn trouble(&self, program: &str) -> ApiError {
        let said = self.stderr.to_lowercase();
        // A client that was ended by a signal has not said what the controller thinks.
        let kind = if self.code.is_none() || UNREACHABLE.iter().any(|words| said.contains(words)) {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Failed
        };
        let prefixes = [format!("{program}: error: "), format!("{program}: "), "slurm_load_jobs error: ".to_owned()];
        let lines: Vec<String> = self
            .stderr
            .lines()
            .map(|line| prefixes.iter().fold(line.trim(), |line, prefix| line.strip_prefix(prefix).unwrap_or(line)))
            .filter(|line| !line.is_empty())
            .map(printable)
            .collect();
        let shown = lines.get(lines.len().saturating_sub(ERROR_LINES)..).unwrap_or_default().join("; ");
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
        let message = if shown.is_empty() { format!("it ended with {code}") } else { shown };
        error(kind, format!("`{program}`: {message}"))
    }
}
