//! Runs that were begun before: found by what the user calls them, opened as far as their records go.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::Later;
use super::exit::Exit;
use super::failure::Failure;
use super::invocation::{Invocation, Talk};
use super::setup::Setup;
use crate::config::nearest;
use crate::pipeline::event::Gravity;
use crate::pipeline::resume::{self, JobRecord, RunRecord};
use crate::pipeline::run::{Chosen, Resumed};
use crate::plugin::manifest::Kind;
use crate::results::attendance::{self, Attendance, Attendant};
use crate::results::run_directory::{RunDirectory, RunId};

/// The name of the newest run.
const LAST: &str = "last";
/// How many known ids an error lists.
const LISTED: usize = 5;

/// A run that was begun.
#[derive(Debug)]
pub struct Earlier {
    /// Its directory.
    pub directory: RunDirectory,
    /// Its record.
    pub record: RunRecord,
    /// What `run.json` says.
    pub run: Value,
}

/// The working directory, absolute and resolved.
pub fn working_directory() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .and_then(|directory| directory.canonicalize())
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot use the working directory: {error}")))
}

/// The runs of a working directory, oldest first, with their `run.json`: no builds, and none that never came to its jobs.
///
/// # Errors
/// They cannot be listed.
pub fn all(output: &Path) -> Result<Vec<(RunDirectory, Value)>, Failure> {
    let cannot = |error| Failure::new(Exit::Failure, format!("cannot list the runs: {error}"));
    let ids = RunDirectory::list(output).map_err(cannot)?;
    let opened = ids.iter().filter_map(|id: &RunId| RunDirectory::open(output, id).ok());
    let read = opened.filter_map(|directory| {
        let run = directory.read_run().ok()?;
        (run.get("command") == Some(&json!("run"))).then_some((directory, run))
    });
    Ok(read.collect())
}

/// The directory of the run that a text names: an id, the beginning of one, or `last`.
///
/// # Errors
/// There is none, or there are several: exit 4.
pub fn find(text: &str) -> Result<(RunDirectory, Value), Failure> {
    let output = working_directory()?;
    let mut runs = all(&output)?;
    let ids: Vec<String> = runs.iter().map(|(directory, _)| directory.id().as_str().to_owned()).collect();
    let fitting: Vec<usize> = match text {
        LAST => ids.len().checked_sub(1).into_iter().collect(),
        _ => match ids.iter().position(|id| id == text) {
            Some(place) => vec![place],
            None => (0..ids.len())
                .filter(|place| !text.is_empty() && ids.get(*place).is_some_and(|id| id.starts_with(text)))
                .collect(),
        },
    };
    match fitting.as_slice() {
        [only] => Ok(runs.swap_remove(*only)),
        [] if ids.is_empty() => {
            Err(Failure::new(Exit::Arguments, format!("there are no runs in `{}`", output.display()))
                .hint("runs are found from the directory that they were begun in"))
        }
        [] => {
            let newest: Vec<&String> = ids.iter().rev().take(LISTED).collect();
            Err(Failure::new(Exit::Arguments, format!("there is no run `{text}`"))
                .maybe_hint(nearest::suggestion(text, ids.iter().map(String::as_str)))
                .hint(format!("the newest are {}; `maddock runs` lists all", nearest::listed(&newest, "and"))))
        }
        several => {
            let names: Vec<&String> = several.iter().filter_map(|place| ids.get(*place)).take(LISTED).collect();
            Err(Failure::new(Exit::Arguments, format!("{} runs begin with `{text}`", several.len()))
                .hint(format!("among them {}; say more of the id", nearest::listed(&names, "and"))))
        }
    }
}

/// The same, or the run of a directory, such as one that was made elsewhere.
///
/// # Errors
/// As [`find`].
pub fn find_anywhere(text: &str) -> Result<(RunDirectory, Value), Failure> {
    let path = Path::new(text);
    if path.components().count() > 1 && path.join("trace.jsonl").is_file() {
        let directory = RunDirectory::at(path).map_err(|error| {
            Failure::new(Exit::Arguments, format!("`{}` is no run's directory: {error}", path.display()))
        })?;
        // One whose process was killed early has none.
        let run = directory.read_run().unwrap_or_default();
        return Ok((directory, run));
    }
    find(text)
}

impl Earlier {
    /// The run that a text names.
    ///
    /// # Errors
    /// There is no such run, or it never came to its jobs.
    pub fn find(text: &str) -> Result<Self, Failure> {
        let (directory, run) = find(text)?;
        Self::with(directory, run)
    }

    /// The run of a directory.
    ///
    /// # Errors
    /// It never came to its jobs.
    pub fn open(directory: RunDirectory) -> Result<Self, Failure> {
        let run = directory.read_run().unwrap_or_default();
        Self::with(directory, run)
    }

    fn with(directory: RunDirectory, run: Value) -> Result<Self, Failure> {
        let record = resume::read_run(&directory).map_err(|error| {
            let why = run.get("error").and_then(Value::as_str).map(|why| format!("it failed: {why}"));
            Failure::new(Exit::Arguments, format!("run {} has no jobs to ask for: {error}", directory.id()))
                .maybe_hint(why)
        })?;
        Ok(Self { directory, record, run })
    }

    /// Who attends it.
    ///
    /// # Errors
    /// Nobody can say.
    pub fn attendant(&self) -> Result<Option<Option<Attendant>>, Failure> {
        attendance::attendant(self.directory.path())
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot see who attends the run: {error}")))
    }

    /// Whether nothing will change any more: all jobs have their verdict, or the run was ended before they could.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let state = self.run.get("state").and_then(Value::as_str).unwrap_or_default();
        matches!(state, "ended" | "interrupted" | "cancelled" | "failed")
    }

    /// Whether its process was interrupted, and it with it.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.run.get("state") == Some(&json!("interrupted"))
    }

    /// The jobs that have their verdict, and those that have not.
    #[must_use]
    pub fn jobs(&self) -> Resumed {
        Resumed::read(&self.directory, &self.record)
    }

    /// What one job needs.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn job(&self, id: &str) -> Result<JobRecord, Failure> {
        resume::read_job(&self.directory, id).map_err(|error| Failure::new(Exit::Failure, error))
    }

    /// The ids of the jobs that texts name, by id or model; all where there are no texts.
    ///
    /// # Errors
    /// There is no such job: exit 4.
    pub fn named(&self, texts: &[String]) -> Result<Vec<String>, Failure> {
        let jobs = &self.record.jobs;
        let mut ids = Vec::new();
        for text in texts {
            let found: Vec<&String> =
                jobs.iter().filter(|job| job.id == *text || job.model == *text).map(|job| &job.id).collect();
            if found.is_empty() {
                let known: Vec<&String> = jobs.iter().map(|job| &job.id).collect();
                return Err(Failure::new(Exit::Arguments, format!("run {} has no job `{text}`", self.record.run))
                    .hint(format!("its jobs are {}", nearest::listed(&known, "and"))));
            }
            ids.extend(found.into_iter().cloned());
        }
        Ok(if texts.is_empty() { jobs.iter().map(|job| job.id.clone()).collect() } else { ids })
    }

    /// An invocation in the run's directory: it attends the run, or only looks.
    ///
    /// # Errors
    /// A plugin file is not there.
    pub fn invocation(&self, attendance: Option<Attendance>, later: &Later, live: bool) -> Result<Invocation, Failure> {
        let record = &self.record;
        let directories = [&record.tree, &record.output, &record.results].map(Clone::clone);
        let setup = Setup::with(directories, &later.given())?;
        let talk = Talk { live_output: live, verbose: later.verbose };
        Invocation::of(setup, self.directory.clone(), attendance, talk)
    }

    /// Refuses to show or judge output of jobs whose secrets are not here: they could not be masked in it.
    ///
    /// # Errors
    /// A value is not here: exit 4.
    pub fn check_secrets(&self, invocation: &Invocation, ids: &[String], unredacted: bool) -> Result<(), Failure> {
        for id in ids.iter().filter(|id| !self.directory.is_recorded(id)) {
            let Ok(job) = self.job(id) else { continue };
            let missing = job.secrets.iter().find(|name| invocation.context.secrets.reveal(name).is_none());
            let (Some(name), Some(_)) = (missing, &job.launched) else { continue };
            let text = format!("job {id} was given the secret `{name}`, whose value is not here: it cannot be masked");
            if unredacted {
                invocation.events.say(Gravity::Warning, "", text);
                continue;
            }
            let hint = match name.strip_prefix("env/") {
                Some(variable) => format!("set the variable {variable} as it was"),
                None => "put it into `credential.json` as it was".to_owned(),
            };
            return Err(Failure::new(Exit::Arguments, text).hint(format!("{hint}, or give `--unredacted`")));
        }
        Ok(())
    }
}

/// The target plugin of an earlier run.
///
/// # Errors
/// It is not among the plugins that there are: exit 4.
pub fn target(invocation: &Invocation, record: &RunRecord) -> Result<Chosen, Failure> {
    let wanted = &record.target;
    let plugins = &invocation.setup.plugins;
    let entry = plugins.catalog().of_kind(Kind::Target).find(|entry| entry.identity.name == wanted.plugin);
    let entry = entry.ok_or_else(|| {
        Failure::new(Exit::Arguments, format!("the run's target plugin `{}` is not here", wanted.plugin))
            .hint("load it by `--plugin FILE`")
    })?;
    if entry.identity.digest != wanted.digest {
        let text = format!("the run was begun with another build of `{}`", wanted.plugin);
        invocation.events.say(Gravity::Warning, "", text);
    }
    let plugin = plugins.load(entry).map_err(|error| Failure::of_plugin(Exit::Run, &error))?;
    Ok(Chosen { plugin, info: wanted.info() })
}
