//! Models that a Python file declares: `get_models_json.py` is run by `python3` with the driver beside this file.
//!
//! The driver goes in by standard input and the selection as hexadecimal digits behind it, so nothing of the tree or of a
//! model ever becomes Python source. Nothing is written: neither into the tree nor elsewhere.

use std::fmt::Write as _;

use maddock_sdk::events::Level;
use maddock_sdk::process::{Command, ExitStatus, Finished};
use maddock_sdk::serde_json::{self, Value, json};
use maddock_sdk::types::{Card, Error, ErrorKind};
use maddock_sdk::{Result, failed, invalid, of};
use serde::Deserialize;

use crate::cards::{self, Model, Place};
use crate::host::Host;

/// The file that declares models.
pub const FILE: &str = "get_models_json.py";

const DRIVER: &str = include_str!("driver.py");
/// Listing answers what is written down; completing a model may ask a service.
const LISTING_LIMIT_MS: u64 = 120_000;
const FINALISE_LIMIT_MS: u64 = 600_000;
/// How much of what the file printed goes into messages.
const LAST_WORDS: usize = 2_000;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Listed(Vec<Model>),
    Finalised(Vec<Finalised>),
    Error(Failure),
}

#[derive(Deserialize)]
struct Finalised {
    listed_args: Value,
    changed: Vec<String>,
    model: Model,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
    hint: Option<String>,
    line: Option<u64>,
}

/// The directory of a tree whose Python file is asked.
#[derive(Debug, Clone, Copy)]
pub struct Directory<'a> {
    /// Absolute.
    pub tree: &'a str,
    /// The name under `scripts`.
    pub name: &'a str,
}

impl Directory<'_> {
    fn source(&self) -> String {
        format!("scripts/{}/{FILE}", self.name)
    }
}

/// Why a Python file has no answer.
#[derive(Debug)]
pub enum Failed {
    /// It could not be run here at all; the rest of the tree can still be listed.
    Unrunnable(Error),
    /// It ran and is wrong.
    Wrong(Error),
}

/// The cards of one directory as they are before they are selected: paths are as written.
pub fn list(host: &impl Host, directory: Directory<'_>) -> std::result::Result<Vec<Card>, Failed> {
    let source = directory.source();
    let place = Place { source: &source, scope: Some(directory.name) };
    match ask(host, directory, &json!({}), LISTING_LIMIT_MS)? {
        Answer::Listed(models) => (1..)
            .zip(models)
            .map(|(position, model)| cards::declared(model, place, position)?.finish())
            .collect::<Result<_>>()
            .map_err(Failed::Wrong),
        _ => Err(Failed::Wrong(unexpected(&source))),
    }
}

/// The same cards, completed: `update_model()` has run once for each model, and paths are taken from the tree.
///
/// Arguments that selection appended to a card's own stay behind the completed ones.
pub fn finalise(host: &impl Host, directory: Directory<'_>, selected: &[Card]) -> Result<Vec<Card>> {
    let source = directory.source();
    let place = Place { source: &source, scope: Some(directory.name) };
    let prefix = format!("{}/", directory.name);
    let request: Vec<Value> = selected
        .iter()
        .map(|card| json!({"name": card.name.strip_prefix(&prefix).unwrap_or(&card.name), "tags": card.tags}))
        .collect();
    let answer = ask(host, directory, &json!({"selected": request}), FINALISE_LIMIT_MS);
    let finalised = match answer {
        Ok(Answer::Finalised(models)) if models.len() == selected.len() => models,
        Ok(_) => return Err(unexpected(&source)),
        Err(Failed::Unrunnable(error) | Failed::Wrong(error)) => return Err(error),
    };
    selected
        .iter()
        .zip((1..).zip(finalised))
        .map(|(card, (position, mut finalised))| {
            for key in &finalised.changed {
                let message =
                    format!("`update_model()` of `{}` changed its `{key}`: the change is left out", card.name);
                host.log(Level::Warning, &message);
            }
            append_extra_args(&mut finalised, card)?;
            cards::place_paths(&mut finalised.model, place);
            let completed = cards::declared(finalised.model, place, position)?.finish()?;
            Ok(Card {
                name: card.name.clone(),
                tags: card.tags.clone(),
                source: source.clone(),
                model: completed.model,
            })
        })
        .collect()
}

fn append_extra_args(finalised: &mut Finalised, card: &Card) -> Result<()> {
    let selected: Model = serde_json::from_str(&card.model)
        .map_err(|error| invalid(format!("the card of `{}` is not a JSON object: {error}", card.name)))?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (listed, wanted) = (text(Some(&finalised.listed_args)), text(selected.get("args")));
    if let Some(extra) = wanted.strip_prefix(listed.as_str()).filter(|extra| !extra.is_empty()) {
        let completed = text(finalised.model.get("args")) + extra;
        finalised.model.insert("args".to_owned(), Value::String(completed));
    }
    Ok(())
}

fn ask(
    host: &impl Host,
    directory: Directory<'_>,
    request: &Value,
    limit_ms: u64,
) -> std::result::Result<Answer, Failed> {
    let source = directory.source();
    let folder = format!("scripts/{}", directory.name);
    let command = Command {
        argv: ["python3", "-I", "-B", "-", directory.tree, &folder].map(str::to_owned).to_vec(),
        env: Vec::new(),
        inherit: Vec::new(),
        directory: Some(directory.tree.to_owned()),
        stdin: Some(program(request)),
        time_limit_ms: Some(limit_ms),
        extra: Vec::new(),
    };
    let finished = host.run(&command).map_err(|error| {
        let error = error.during(&format!("`{source}` cannot be run"));
        match error.kind {
            ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Unavailable | ErrorKind::Unsupported => {
                Failed::Unrunnable(error)
            }
            _ => Failed::Wrong(error),
        }
    })?;
    answer(host, &source, &finished, limit_ms).map_err(Failed::Wrong)
}

/// The driver with its request: the call holds hexadecimal digits and nothing else.
fn program(request: &Value) -> Vec<u8> {
    let mut program = String::from(DRIVER);
    program.push_str("\nmain(bytes.fromhex(\"");
    for byte in request.to_string().bytes() {
        // Writing to a text cannot fail.
        let _ = write!(program, "{byte:02x}");
    }
    program.push_str("\").decode())\n");
    program.into_bytes()
}

fn answer(host: &impl Host, source: &str, finished: &Finished, limit_ms: u64) -> Result<Answer> {
    let words = last_words(&finished.stderr);
    let about = |error: Error| error.detail("file", source).detail("output", words.as_str());
    match finished.status {
        ExitStatus::Exited(0) => {}
        ExitStatus::TimedOut => {
            let message = format!("`{source}` did not answer within {} s", limit_ms / 1_000);
            return Err(about(of(ErrorKind::TimedOut, message).hint("make its work quicker, or do it before")));
        }
        ref other => {
            let message = format!("`{source}`: python3 ended with {}", ending(other));
            return Err(about(failed(message).hint(hint_of(&words))));
        }
    }
    let answer = serde_json::from_slice(&finished.stdout)
        .map_err(|error| about(failed(format!("`{source}`: the answer of python3 cannot be read: {error}"))))?;
    match answer {
        Answer::Error(failure) => {
            let at = failure.line.map(|line| format!(" (line {line})")).unwrap_or_default();
            let error = invalid(format!("`{source}`{at}: {}", failure.message))
                .hint(failure.hint.unwrap_or_else(|| "correct the file; its output has the traceback".to_owned()));
            let error = match failure.line {
                Some(line) => error.detail("line", line.to_string()),
                None => error,
            };
            Err(about(error))
        }
        answer => {
            if !words.is_empty() {
                host.log(Level::Debug, &format!("`{source}` printed: {words}"));
            }
            Ok(answer)
        }
    }
}

fn unexpected(source: &str) -> Error {
    failed(format!("`{source}`: python3 answered something else than it was asked for")).detail("file", source)
}

fn ending(status: &ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exit code {code}"),
        ExitStatus::Signalled(signal) => format!("signal {signal}"),
        ExitStatus::TimedOut => "its time over".to_owned(),
        ExitStatus::Lost => "no answer".to_owned(),
    }
}

fn hint_of(words: &str) -> String {
    match words.lines().last() {
        Some(line) => format!("its last line was: {line}"),
        None => "it printed nothing; Python 3.7 or later is needed".to_owned(),
    }
}

fn last_words(output: &[u8]) -> String {
    let start = output.len().saturating_sub(LAST_WORDS);
    String::from_utf8_lossy(output.get(start..).unwrap_or_default()).trim().to_owned()
}
