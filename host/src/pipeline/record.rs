//! Judging one job: gathers the evidence that it left, and makes its rows. Runs off the async threads: logs can be large.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::card::Card;
use super::execute::{Executed, cause_word};
use super::job;
use crate::plugin::PluginError;
use crate::plugin::jobs::{Cause, CollectedFile};
use crate::results::aggregate::{Combine, Speakers, Together, combine, together};
use crate::results::configs::{config_of_row, load_configs};
use crate::results::error_scan::ErrorScan;
use crate::results::merge::merge;
use crate::results::metric::{Metric, find_metric};
use crate::results::multiple::{Results, ResultsError};
use crate::results::row::{CellValue, JobFacts, Row};
use crate::results::verdict::{self, Evidence, Execution, Expectation, LogEvidence, Measurement, Nodes, Verdict};

/// The three answers about a job, its rows, and its files.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Derived from the other two.
    pub verdict: Verdict,
    /// Why it is no success.
    pub reason: Option<String>,
    /// What to do about it, where something can be said.
    pub hint: Option<String>,
    /// How it executed, as `job.json` has it.
    pub execution: Value,
    /// What evidence there is, as `job.json` has it.
    pub evidence: Value,
    /// Its rows, ready for the reporters.
    pub rows: Vec<Row>,
    /// What was measured, for the summary: number and metric, or the results file's name.
    pub performance: Option<String>,
    /// Seconds.
    pub duration: Option<f64>,
    /// What was brought back.
    pub files: Vec<CollectedFile>,
    /// The digest of the image that was run, where the target knows it.
    pub image_digest: Option<String>,
}

impl Judged {
    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// A job that was left out.
    #[must_use]
    pub fn skipped(id: &str, facts: &JobFacts, reason: String) -> Self {
        Self {
            verdict: Verdict::Skipped,
            reason: Some(reason),
            hint: None,
            execution: Value::Null,
            evidence: Value::Null,
            rows: vec![Row::skipped(id, facts)],
            performance: None,
            duration: None,
            files: Vec::new(),
            image_digest: None,
        }
    }

    /// A job that could not be set up.
    #[must_use]
    pub fn setup_failure(id: &str, facts: &JobFacts, card_n_gpus: &str, reason: String) -> Self {
        let execution = Execution::NeverStarted(reason.clone());
        let evidence = Evidence {
            expectation: Expectation::Result,
            measurement: Measurement::Missing,
            log: LogEvidence::Unavailable,
            nodes: Nodes { expected: 1, reported: 0 },
        };
        Self {
            verdict: verdict::decide(&execution, &evidence),
            reason: Some(reason.clone()),
            hint: None,
            execution: json!({"state": "never-started", "message": reason}),
            evidence: Value::Null,
            rows: vec![Row::setup_failure(id, facts, card_n_gpus)],
            performance: None,
            duration: None,
            files: Vec::new(),
            image_digest: None,
        }
    }
}

/// What judging a job takes.
#[derive(Debug)]
pub struct Gathering<'a> {
    /// The job's id.
    pub id: &'a str,
    /// The model.
    pub card: &'a Card,
    /// The effective configuration.
    pub config: &'a Value,
    /// The model tree.
    pub tree: &'a Path,
    /// The run log.
    pub log: &'a Path,
    /// What its rows have in common.
    pub facts: JobFacts,
    /// How many nodes it was to have.
    pub nodes: u32,
    /// They work each for itself.
    pub replicas: bool,
    /// The model was not to run.
    pub skip_model: bool,
    /// Another node reports.
    pub worker: bool,
}

/// Judges a job that was executed, or tried.
pub async fn judge(gathering: Gathering<'_>, executed: &Executed) -> Judged {
    let execution = execution_of(executed);
    let complete = executed.ending.as_ref().is_some_and(|ending| ending.log_complete);
    let files = executed.collection.as_ref().map(|collection| collection.files.clone()).unwrap_or_default();
    let mut facts = gathering.facts.clone();
    let (mut image_digest, mut results, mut unclear) = (None, String::new(), String::new());
    for fact in executed.collection.iter().flat_map(|collection| &collection.facts) {
        match fact.name.as_str() {
            "git_commit" => facts.git_commit.clone_from(&fact.value),
            "machine_name" => facts.machine_name.clone_from(&fact.value),
            // What was detected where the job ran counts more than what is here.
            "gpu_architecture" if !fact.value.is_empty() => facts.gpu_architecture.clone_from(&fact.value),
            "results" => results.clone_from(&fact.value),
            "unclear" => unclear.clone_from(&fact.value),
            "image_digest" => image_digest = Some(fact.value.clone()).filter(|digest| !digest.is_empty()),
            _ => {}
        }
    }
    let named = job::text(&gathering.card.model, "multiple_results");
    let owned = Owned {
        results: if named.is_empty() { results } else { named },
        unclear,
        id: gathering.id.to_owned(),
        card: gathering.card.clone(),
        config: gathering.config.clone(),
        tree: gathering.tree.to_owned(),
        log: gathering.log.to_owned(),
        facts,
        skip_model: gathering.skip_model,
        worker: gathering.worker,
        complete,
        duration: executed.ending.as_ref().and_then(|ending| ending.duration),
        metrics: executed.metrics.clone(),
        nodes: nodes_of(executed, gathering.nodes),
        replicas: gathering.replicas,
        message: message_of(executed),
        hint: executed.error.as_ref().and_then(PluginError::hint),
        execution,
        files,
    };
    let (id, facts) = (owned.id.clone(), owned.facts.clone());
    let judged = tokio::task::spawn_blocking(move || owned.judge()).await.unwrap_or_else(|error| {
        Judged::setup_failure(&id, &facts, "", format!("judging it failed: {error}; please report this"))
    });
    Judged { image_digest, ..judged }
}

/// A node has reported if its program ended by itself; the only one, if the job came to an end.
fn nodes_of(executed: &Executed, expected: u32) -> Nodes {
    match &executed.ending {
        Some(ending) if expected > 1 => {
            let reported = ending.nodes.iter().filter(|node| matches!(node.cause, Cause::Exited(_))).count();
            Nodes { expected, reported: u32::try_from(reported).unwrap_or(u32::MAX) }
        }
        Some(_) => Nodes::ONE,
        None => Nodes { expected, reported: 0 },
    }
}

fn execution_of(executed: &Executed) -> Execution {
    if executed.interrupted {
        return Execution::Cancelled;
    }
    match (&executed.ending, &executed.error) {
        (Some(ending), _) => match &ending.cause {
            Cause::Exited(code) => Execution::Exited(*code),
            Cause::Signalled(signal) => Execution::Signalled(*signal),
            Cause::TimedOut => Execution::TimedOut,
            Cause::Cancelled => Execution::Cancelled,
            Cause::NeverStarted => Execution::NeverStarted(ending.message.clone()),
            Cause::Lost => Execution::Lost,
            Cause::Unknown => Execution::Unknown,
        },
        // An error before there was anything to collect: it was never launched.
        (None, Some(error)) if executed.collection.is_none() => Execution::NeverStarted(error.to_string()),
        (None, Some(_)) => Execution::Unknown,
        (None, None) => Execution::NeverStarted(executed.problems.join("; ")),
    }
}

fn message_of(executed: &Executed) -> String {
    let ending = executed.ending.as_ref().map(|ending| ending.message.clone()).filter(|message| !message.is_empty());
    ending.or_else(|| executed.error.as_ref().map(ToString::to_string)).unwrap_or_default()
}

struct Owned {
    id: String,
    /// The file that holds the rows; empty where the log has the metric.
    results: String,
    /// Why the log has no metric, whatever it holds; empty where it may have one.
    unclear: String,
    card: Card,
    config: Value,
    tree: PathBuf,
    log: PathBuf,
    facts: JobFacts,
    skip_model: bool,
    worker: bool,
    complete: bool,
    duration: Option<f64>,
    metrics: Vec<(u32, Metric)>,
    nodes: Nodes,
    replicas: bool,
    message: String,
    hint: Option<String>,
    execution: Execution,
    files: Vec<CollectedFile>,
}

/// What a job measured.
enum Measured {
    Log(Option<Metric>),
    Results(Results),
    Unusable(String),
}

impl Owned {
    fn judge(self) -> Judged {
        let measured = self.measured();
        let log = self.log_evidence();
        let expectation = match (self.skip_model, self.worker) {
            (true, _) => Expectation::NoModel,
            (false, true) => Expectation::NoResult,
            (false, false) => Expectation::Result,
        };
        let measurement = match &measured {
            Measured::Log(Some(_)) => Measurement::Metric,
            Measured::Log(None) => Measurement::Missing,
            Measured::Results(_) => Measurement::Rows,
            Measured::Unusable(why) => Measurement::Unusable(why.clone()),
        };
        let evidence = Evidence { expectation, measurement, log, nodes: self.nodes };
        let verdict = verdict::decide(&self.execution, &evidence);
        let reason = match &verdict {
            Verdict::Failure(reason) if self.message.is_empty() => Some(reason.to_string()),
            Verdict::Failure(reason) => {
                let reason = reason.to_string();
                Some(if reason.contains(&self.message) { reason } else { format!("{reason} ({})", self.message) })
            }
            Verdict::Success | Verdict::Skipped => None,
        };
        let performance = match &measured {
            Measured::Log(Some(metric)) => Some(format!("{} {}", metric.value, metric.name)),
            Measured::Results(_) => Some(self.results.clone()),
            Measured::Log(None) | Measured::Unusable(_) => None,
        };
        Judged {
            rows: self.rows(&verdict, &measured),
            reason,
            hint: self.hint,
            execution: json!({"state": execution_word(&self.execution), "code": exit_code(&self.execution), "message": self.message}),
            evidence: evidence_json(&evidence, self.complete, &self.metrics),
            verdict,
            performance,
            duration: self.duration,
            files: self.files,
            image_digest: None,
        }
    }

    fn measured(&self) -> Measured {
        let name = &self.results;
        if name.is_empty() {
            if !self.unclear.is_empty() {
                return Measured::Unusable(self.unclear.clone());
            }
            if self.nodes.expected > 1 {
                return match together(&self.metrics, self.speakers()) {
                    Together::Nothing => Measured::Log(None),
                    Together::Metric(metric) => Measured::Log(Some(metric)),
                    Together::Unclear(why) => Measured::Unusable(why),
                };
            }
            let found = File::open(&self.log).and_then(|file| find_metric(BufReader::new(file)));
            return Measured::Log(found.unwrap_or_default());
        }
        let several = self.nodes.expected > 1;
        let mut tables = Vec::new();
        let mut empty = None;
        for file in self.files.iter().filter(|file| file.name == *name && (several || file.node == 0)) {
            let read = std::fs::read(&file.path).map_err(|error| error.to_string());
            match read.map(|bytes| Results::parse(&bytes)) {
                Ok(Ok(results)) => tables.push((file.node, results)),
                // A node that measured nothing leaves it to the others.
                Ok(Err(ResultsError::NoValue)) => empty = Some(ResultsError::NoValue),
                Ok(Err(error)) => return Measured::Unusable(self.unusable(file, several, &error.to_string())),
                Err(why) => return Measured::Unusable(self.unusable(file, several, &why)),
            }
        }
        if tables.is_empty() {
            return Measured::Unusable(match empty {
                Some(error) => format!("`{name}`: {error}"),
                None => format!("the model left no `{name}` in its work directory"),
            });
        }
        tables.sort_by_key(|(node, _)| *node);
        match merge(&tables, self.speakers()) {
            Ok(results) => Measured::Results(results),
            Err(why) => Measured::Unusable(format!("`{name}`: {why}")),
        }
    }

    fn speakers(&self) -> Speakers {
        Speakers { nodes: self.nodes.expected, replicas: self.replicas }
    }

    fn unusable(&self, file: &CollectedFile, several: bool, why: &str) -> String {
        let of = if several { format!(" of node {}", file.node) } else { String::new() };
        format!("`{}`{of}: {why}", self.results)
    }

    fn log_evidence(&self) -> LogEvidence {
        let scan = match ErrorScan::new(&self.card.model, &self.config) {
            Ok(scan) => scan,
            Err(_) => return LogEvidence::Unavailable,
        };
        let Ok(file) = File::open(&self.log) else { return LogEvidence::Unavailable };
        match scan.first_hit(BufReader::new(file)) {
            Ok(Some(hit)) => LogEvidence::ErrorPattern { line: hit.line, pattern: hit.pattern },
            Ok(None) if self.complete => LogEvidence::Clean,
            Ok(None) | Err(_) => LogEvidence::Unavailable,
        }
    }

    fn rows(&self, verdict: &Verdict, measured: &Measured) -> Vec<Row> {
        if matches!(verdict, Verdict::Skipped) || self.worker {
            return Vec::new();
        }
        if matches!(self.execution, Execution::NeverStarted(_)) {
            return vec![Row::setup_failure(&self.id, &self.facts, &job::text(&self.card.model, "n_gpus"))];
        }
        let scripts = job::text(&self.card.model, "scripts");
        // A configuration that cannot be read says nothing about the result; it is left out of the row.
        let configs = load_configs(&self.tree, &scripts, &self.facts.args).unwrap_or(Value::Null);
        match (verdict, measured) {
            (Verdict::Success, Measured::Results(results)) => {
                Row::multiple(&self.id, &self.facts, results, self.duration, |row| config_of_row(&configs, row))
            }
            (_, Measured::Log(metric)) => {
                vec![Row::single(&self.id, &self.facts, verdict, metric.as_ref(), self.duration, configs)]
            }
            _ => vec![Row::single(&self.id, &self.facts, verdict, None, self.duration, configs)],
        }
    }
}

fn execution_word(execution: &Execution) -> &'static str {
    let cause = match execution {
        Execution::Exited(code) => Cause::Exited(*code),
        Execution::Signalled(signal) => Cause::Signalled(*signal),
        Execution::TimedOut => Cause::TimedOut,
        Execution::Cancelled => Cause::Cancelled,
        Execution::NeverStarted(_) => Cause::NeverStarted,
        Execution::Lost => Cause::Lost,
        Execution::Unknown => Cause::Unknown,
    };
    cause_word(&cause)
}

fn exit_code(execution: &Execution) -> Value {
    match execution {
        Execution::Exited(code) => json!(code),
        Execution::Signalled(signal) => json!({"signal": signal}),
        _ => Value::Null,
    }
}

/// What each of several nodes printed, so that a reader can see what the job's figure is made of, and how alike they are.
fn of_each_node(metrics: &[(u32, Metric)]) -> Value {
    let each: Vec<Value> = metrics
        .iter()
        .map(|(node, metric)| json!({"node": node, "value": metric.value, "metric": metric.name}))
        .collect();
    let method = match metrics {
        [] => return Value::Null,
        [_] => "the only one",
        [(_, metric), ..] => match combine(&metric.name) {
            Combine::Sum => "sum",
            Combine::Greatest => "greatest",
            Combine::Undefined => "undefined",
        },
    };
    let mut all = json!({"values": each, "contributing": metrics.len(), "aggregation": method});
    let values: Vec<f64> = metrics.iter().filter_map(|(_, metric)| metric.value.parse().ok()).collect();
    let alike = metrics.windows(2).all(|pair| matches!(pair, [(_, one), (_, other)] if one.name == other.name));
    let count = u32::try_from(values.len()).map_or(f64::NAN, f64::from);
    if let (true, true, Some(all)) = (alike, count > 1.0, all.as_object_mut()) {
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        all.insert("mean".to_owned(), json!(mean));
        all.insert("std_dev".to_owned(), json!(deviation));
        // Of what is nothing on average there is no such figure.
        all.insert("cv".to_owned(), if mean == 0.0 { Value::Null } else { json!(deviation / mean.abs()) });
    }
    all
}

fn evidence_json(evidence: &Evidence, complete: bool, metrics: &[(u32, Metric)]) -> Value {
    let measurement = match &evidence.measurement {
        Measurement::Metric => json!("metric"),
        Measurement::Rows => json!("rows"),
        Measurement::Unusable(why) => json!({"unusable": why}),
        Measurement::Missing => json!("missing"),
    };
    let log = match &evidence.log {
        LogEvidence::Clean => json!("clean"),
        LogEvidence::ErrorPattern { line, pattern } => json!({"error_pattern": pattern, "line": line}),
        LogEvidence::Unavailable => json!("unavailable"),
    };
    let mut members = json!({
        "measurement": measurement,
        "log": log,
        "log_complete": complete,
        "nodes": {"expected": evidence.nodes.expected, "reported": evidence.nodes.reported},
    });
    if let (true, Some(members)) = (evidence.nodes.expected > 1, members.as_object_mut()) {
        members.insert("per_node".to_owned(), of_each_node(metrics));
    }
    members
}

/// A row as `job.json` has it: numbers as measured, blanks null.
#[must_use]
pub fn row_json(row: &Row) -> Value {
    let cells: Map<String, Value> = row
        .cells
        .iter()
        .map(|cell| {
            let value = match &cell.value {
                CellValue::Text(text) | CellValue::Number(text) => Value::String(text.clone()),
                CellValue::Structured(value) => value.clone(),
                CellValue::Blank => Value::Null,
            };
            (cell.name.clone(), value)
        })
        .collect();
    Value::Object(cells)
}

/// The names in a list, or in a text with commas.
#[must_use]
pub fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Ends a run log with what was found out, in the lines that tools look for.
///
/// # Errors
/// The log cannot be written.
pub fn close_log(log: &Path, model: &str, judged: &Judged) -> io::Result<()> {
    let mut lines = String::new();
    if let Some(seconds) = judged.duration {
        lines.push_str(&format!("test_duration: {seconds:.2}s\n"));
    }
    if let Some(performance) = &judged.performance {
        lines.push_str(&format!("{model} performance is {performance}\n"));
    }
    if let Some(reason) = &judged.reason {
        lines.push_str(&format!("{model} {}: {reason}\n", judged.verdict.status()));
    }
    let mut file = File::options().read(true).append(true).open(log)?;
    let mut last = [b'\n'];
    let size = file.metadata()?.len();
    if size > 0 {
        use std::os::unix::fs::FileExt;
        file.read_exact_at(&mut last, size - 1)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{lines}").as_bytes())
}

/// Writes build log, a heading and run log into one file, replaced as a whole.
///
/// # Errors
/// A log cannot be read, or the file cannot be written.
pub fn join_logs(build: &Path, heading: &str, run: &Path, output: &Path) -> io::Result<()> {
    let directory = output.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".maddock-").tempfile_in(directory)?;
    io::copy(&mut File::open(build)?, &mut file)?;
    file.write_all(heading.as_bytes())?;
    io::copy(&mut File::open(run)?, &mut file)?;
    file.persist(output).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(values: &[&str]) -> Vec<(u32, Metric)> {
        (0..)
            .zip(values)
            .map(|(node, value)| (node, Metric { value: (*value).into(), name: "tokens/s".into() }))
            .collect()
    }

    #[test]
    fn what_each_node_printed_is_kept_with_how_it_became_one_and_how_alike_it_is() {
        let all = of_each_node(&metrics(&["10", "30"]));
        assert_eq!(all["values"][1], json!({"node": 1, "value": "30", "metric": "tokens/s"}));
        assert_eq!((&all["contributing"], &all["aggregation"], &all["mean"]), (&json!(2), &json!("sum"), &json!(20.0)));
        assert!((all["std_dev"].as_f64().unwrap() - 200_f64.sqrt()).abs() < 1e-9, "{all}");
        assert!((all["cv"].as_f64().unwrap() - 200_f64.sqrt() / 20.0).abs() < 1e-9, "{all}");
        assert_eq!(of_each_node(&metrics(&["0", "0"]))["cv"], Value::Null);
    }

    #[test]
    fn one_node_that_speaks_for_all_has_nothing_to_be_compared_with() {
        let all = of_each_node(&metrics(&["10"]));
        assert_eq!(
            (&all["contributing"], &all["aggregation"], all.get("mean")),
            (&json!(1), &json!("the only one"), None)
        );
        assert_eq!(of_each_node(&[]), Value::Null);
    }
}
