//! A recorded run once more, with nothing there to ask: every call of a plugin against the recorded answers, then every
//! verdict and every row from what came of that.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::execute::Executed;
use super::record::{self, Judged, row_json};
use super::resume::{JobRecord, RunRecord};
use crate::capability::events::PluginEvent;
use crate::capability::tape::playback::Finding;
use crate::capability::tape::recording::Call;
use crate::capability::tape::{Playback, body};
use crate::plugin::{Played, Plugin, PluginError, Plugins, RunContext, Session};
use crate::results::metric::MetricScanner;

/// No answer of a recording takes time, so a call that is not over by then never is.
const DEADLINE: Duration = Duration::from_secs(120);
/// Events that may wait for whoever keeps them.
const WAITING: usize = 256;

/// Bytes that a job told, by node.
type Output = Vec<(u32, Vec<u8>)>;

/// One call, played.
#[derive(Debug)]
pub struct Replayed {
    /// As recorded.
    pub call: Call,
    /// How it compares.
    pub finding: Finding,
    /// How many host calls were answered.
    pub host_calls: usize,
    /// What it answered.
    pub answer: Option<Played>,
    output: Output,
}

/// Why a call cannot be played at all.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Its plugin is not here.
    #[error("plugin `{0}` of the recording is not here")]
    NoPlugin(String),
    /// It cannot be loaded.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// Its arguments are not those of such a call.
    #[error("`{function}` of plugin `{plugin}` cannot be called as recorded: {error}")]
    Arguments {
        /// The plugin.
        plugin: String,
        /// The call.
        function: String,
        /// What is wrong.
        error: body::BodyError,
    },
}

/// The plugin that a call was for, and whether it is the very same one.
///
/// # Errors
/// It is not here, or cannot be loaded.
pub fn plugin(plugins: &Plugins, call: &Call) -> Result<(Plugin, bool), ReplayError> {
    let entry = plugins.catalog().entries().iter().find(|entry| entry.identity.name == call.plugin);
    let entry = entry.ok_or_else(|| ReplayError::NoPlugin(call.plugin.clone()))?;
    Ok((plugins.load(entry)?, entry.identity.digest == call.digest))
}

/// Plays one call.
///
/// # Errors
/// It cannot be called as recorded.
pub async fn play(plugin: &Plugin, context: &Arc<RunContext>, call: Call) -> Result<Replayed, ReplayError> {
    let (events, mut heard) = mpsc::channel(WAITING);
    let keeping = tokio::spawn(async move {
        let mut output = Output::new();
        while let Some(event) = heard.recv().await {
            if let PluginEvent::Output { node, bytes, .. } = event {
                output.push((node, bytes));
            }
        }
        output
    });
    let playback = Arc::new(Playback::new(call.clone()));
    let session = Session::quiet(context.clone()).telling(events).within(Some(DEADLINE)).playing(playback.clone());
    let session = match &call.job {
        Some(job) => session.for_job(job),
        None => session,
    };
    let answer = plugin.play(&session, &call.function, &call.arguments).await.map_err(|error| {
        ReplayError::Arguments { plugin: call.plugin.clone(), function: call.function.clone(), error }
    })?;
    // Whoever keeps the output is done when nobody can tell any more.
    drop(session);
    let output = keeping.await.unwrap_or_default();
    let finding = playback.finding();
    let ended = call.end.as_ref().and_then(|end| end.body.get("late").or(end.body.get("ended"))?.as_str());
    let answer = match (&finding, ended) {
        (Finding::Differs(_), _) | (Finding::CutOff, None) => None,
        // The host ended it, for reasons of its own.
        (_, Some(message)) => Some(Err(PluginError::Ended {
            plugin: call.plugin.clone(),
            function: call.function.clone(),
            message: message.to_owned(),
        })),
        (Finding::Same, None) => Some(answer),
    };
    Ok(Replayed { finding, host_calls: playback.answered(), answer, output, call })
}

/// What a job came to, from its replayed calls.
struct Retold {
    executed: Executed,
    output: Output,
    masked: bool,
}

impl Retold {
    /// Of the last attempt at the job; none where it never came to its target.
    fn of(id: &str, calls: &mut [Replayed], interrupted: bool) -> Option<Self> {
        let writer = |call: &Call| call.id.split('.').next().unwrap_or_default().to_owned();
        let is_of_job = |call: &Call| call.job.as_deref() == Some(id) && call.function.starts_with("target.");
        let last = calls.iter().rposition(|call| {
            is_of_job(&call.call) && ["target.watch", "target.launch"].contains(&call.call.function.as_str())
        })?;
        let last = writer(&calls.get(last)?.call);
        let mut retold =
            Self { executed: Executed { interrupted, ..Executed::default() }, output: Vec::new(), masked: false };
        for replayed in calls.iter_mut().filter(|call| is_of_job(&call.call) && writer(&call.call) == last) {
            retold.masked |= replayed.call.masked;
            retold.output.append(&mut replayed.output);
            let Some(answer) = replayed.answer.take() else { continue };
            let executed = &mut retold.executed;
            match (replayed.call.function.as_str(), answer) {
                ("target.watch", Ok(ending)) => executed.ending = body::read(ending).ok(),
                ("target.collect", Ok(collection)) => executed.collection = body::read(collection).ok(),
                ("target.plan" | "target.launch" | "target.watch", Err(error)) => executed.error = Some(error),
                ("target.collect", Err(error)) => executed.problems.push(format!("collecting results: {error}")),
                _ => {}
            }
        }
        Some(retold)
    }
}

/// How a job's verdict compares.
#[derive(Debug)]
pub struct JobReplay {
    /// The job.
    pub id: String,
    /// The verdict that the replay came to.
    pub judged: Judged,
    /// What is not as recorded: where, recorded, replayed.
    pub differences: Vec<(String, Value, Value)>,
    /// What could not be compared, a sentence each.
    pub notes: Vec<String>,
}

/// What judging takes beside the calls.
#[derive(Debug)]
pub struct Records<'a> {
    /// The run's directory.
    pub directory: &'a Path,
    /// The run's record.
    pub run: &'a RunRecord,
    /// The job's.
    pub job: &'a JobRecord,
    /// Its `job.json`.
    pub recorded: &'a Value,
}

/// Judges a job by its replayed calls and compares that with what is recorded. None where the job never came to its target,
/// so that no plugin has a part in its verdict.
///
/// # Errors
/// Nothing can be written where temporary files go.
pub async fn judge(records: &Records<'_>, calls: &mut [Replayed]) -> std::io::Result<Option<JobReplay>> {
    let (id, recorded) = (&records.job.id, records.recorded);
    // That somebody stopped it is nothing that a plugin says.
    let cancelled = recorded.pointer("/execution/state") == Some(&json!("cancelled"));
    let Some(mut retold) = Retold::of(id, calls, cancelled) else { return Ok(None) };
    let mut notes = Vec::new();
    let log = rewritten(records.job, &mut retold)?;
    let kept = records.directory.join("jobs").join(id).join("run.log");
    let same_log = if retold.masked { None } else { begins_with(&kept, log.path()) };
    match same_log {
        None if retold.masked => {
            notes.push("its log holds a masked secret and is not compared byte by byte".to_owned())
        }
        None => notes.push(format!("its log `{}` is not there to compare", kept.display())),
        Some(_) => {}
    }
    let gathering = record::Gathering {
        id,
        card: &records.job.work.card,
        config: &records.run.config,
        tree: &records.run.tree,
        log: log.path(),
        facts: records.job.facts.clone(),
        nodes: records.job.reporting_nodes,
        replicas: records.job.replicas,
        skip_model: records.run.options.skip_model,
        worker: records.run.worker,
    };
    let judged = record::judge(gathering, &retold.executed).await;
    let mut differences = differences(&judged, recorded);
    if same_log == Some(false) {
        differences.push(("run.log".to_owned(), json!("another text"), json!("another text")));
    }
    Ok(Some(JobReplay { id: id.clone(), judged, differences, notes }))
}

/// The job's log as the replay has it, and what each node printed as its metric.
fn rewritten(job: &JobRecord, retold: &mut Retold) -> std::io::Result<tempfile::NamedTempFile> {
    let mut log = tempfile::NamedTempFile::new()?;
    log.write_all(super::execute::heading(job.time_limit).as_bytes())?;
    let mut scanners = std::collections::BTreeMap::<u32, MetricScanner>::new();
    for (node, bytes) in &retold.output {
        log.write_all(bytes)?;
        if *node < job.nodes {
            scanners.entry(*node).or_default().feed(bytes);
        }
    }
    log.flush()?;
    retold.executed.metrics =
        scanners.into_iter().filter_map(|(node, scanner)| Some((node, scanner.finish()?))).collect();
    Ok(log)
}

/// Whether a file begins with all of another one; none where it is not there. What the kernel found out comes after it.
fn begins_with(kept: &Path, replayed: &Path) -> Option<bool> {
    let kept = BufReader::new(File::open(kept).ok()?);
    let replayed = BufReader::new(File::open(replayed).ok()?);
    let mut kept = kept.bytes();
    for byte in replayed.bytes() {
        match (byte, kept.next()) {
            (Ok(byte), Some(Ok(other))) if byte == other => {}
            _ => return Some(false),
        }
    }
    Some(true)
}

fn differences(judged: &Judged, recorded: &Value) -> Vec<(String, Value, Value)> {
    let replayed = json!({
        "verdict": judged.verdict.status(),
        "reason": judged.reason,
        "execution": judged.execution,
        "evidence": judged.evidence,
        "performance": judged.performance,
        "seconds": judged.duration,
        "rows": judged.rows.iter().map(row_json).collect::<Vec<_>>(),
    });
    // Through text, as the recorded one: numbers are compared as they are written.
    let replayed: Value = serde_json::from_str(&replayed.to_string()).unwrap_or_default();
    let members = replayed.as_object().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (name, value) in members {
        let was = recorded.get(&name).cloned().unwrap_or_default();
        if let Some((place, was, is)) = first_difference(&was, &value) {
            found.push((format!("{name}{place}"), was, is));
        }
    }
    found
}

/// The first place where two values differ, as a JSON pointer, with both sides of it.
#[must_use]
pub fn first_difference(recorded: &Value, replayed: &Value) -> Option<(String, Value, Value)> {
    let below = |name: &str, was: Option<&Value>, is: Option<&Value>| {
        let (was, is) = (was.cloned().unwrap_or_default(), is.cloned().unwrap_or_default());
        first_difference(&was, &is).map(|(place, was, is)| (format!("/{name}{place}"), was, is))
    };
    match (recorded, replayed) {
        (Value::Object(was), Value::Object(is)) => {
            let names = was.keys().chain(is.keys().filter(|name| !was.contains_key(*name)));
            names.into_iter().find_map(|name| below(name, was.get(name), is.get(name)))
        }
        (Value::Array(was), Value::Array(is)) => {
            (0..was.len().max(is.len())).find_map(|place| below(&place.to_string(), was.get(place), is.get(place)))
        }
        (was, is) if was == is => None,
        (was, is) => Some((String::new(), was.clone(), is.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let was = json!({"a": [1, {"b": "x"}], "c": 1});
        assert_eq!(first_difference(&was, &was.clone()), None);
        let is = json!({"a": [1, {"b": "y"}], "c": 2});
        assert_eq!(first_difference(&was, &is), Some(("/a/1/b".to_owned(), json!("x"), json!("y"))));
        let longer = json!({"a": [1, {"b": "x"}, 3], "c": 1});
        assert_eq!(first_difference(&was, &longer), Some(("/a/2".to_owned(), Value::Null, json!(3))));
    }
}
