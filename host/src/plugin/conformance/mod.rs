//! The conformance suite of a plugin: what any plugin of its kind must do, whoever wrote it. It runs against a host made of
//! a script, under the ceilings of a real call, and touches nothing.
//!
//! A plugin may answer with an error wherever it likes. It may not trap, loop, or hide that policy refused it.

mod inputs;
mod script;

use std::sync::Arc;
use std::time::Duration;

pub use script::{Answers, Script};

use super::catalog::Entry;
use super::engine::Engine;
use super::error::PluginError;
use super::{Plugin, Session};
use inputs::{Input, Said};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// One check and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was asked of the plugin.
    pub name: String,
    /// What it did wrong.
    pub fault: Option<String>,
}

/// Runs the suite of a plugin's kind.
pub async fn run(engine: &Arc<Engine>, entry: &Entry, session: &Session) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut note = |name: String, fault: Option<String>| checks.push(Check { name, fault });
    let loads = engine.load(entry).map(|_| ());
    let usable = loads.is_ok();
    note("it loads as it would in a run".to_owned(), loads.err().map(|error| error.to_string()));
    if !usable {
        return checks;
    }
    note("its requests name calls that there are".to_owned(), requests(entry));
    let kit = Kit { engine, entry, session: session.clone().within(Some(DEADLINE)) };
    for input in inputs::of(entry.manifest.kind, &entry.manifest.provides) {
        let empty = kit.call(&input, Answers::Empty).await;
        note(format!("{}: it answers, and does not trap", input.name), fault(&empty));
        let again = kit.call(&input, Answers::Empty).await;
        note(format!("{}: the same again, the same answer and calls", input.name), differs(&empty, &again));
        let denied = kit.call(&input, Answers::Denied).await;
        note(format!("{}: refused everything, it says so", input.name), fault(&denied).or_else(|| hides(&denied)));
        let unavailable = kit.call(&input, Answers::Unavailable).await;
        note(format!("{}: with no answer from anywhere, it does not trap", input.name), fault(&unavailable));
    }
    checks
}

fn requests(entry: &Entry) -> Option<String> {
    use crate::capability::policy::vocabulary::CallSet;
    let calls = entry.manifest.requests.iter().flat_map(|request| &request.calls);
    calls.filter_map(|call| CallSet::default().add(call).err()).map(|(message, _)| message).next()
}

/// What came of one call.
struct Done {
    answer: Result<Said, PluginError>,
    script: Script,
}

struct Kit<'a> {
    engine: &'a Arc<Engine>,
    entry: &'a Entry,
    session: Session,
}

impl Kit<'_> {
    async fn call(&self, input: &Input, answers: Answers) -> Done {
        let script = Script::new(answers);
        let answer = match self.engine.load_scripted(self.entry, &script) {
            Ok(loaded) => input.call(&Plugin::new(self.engine.clone(), loaded), &self.session).await,
            Err(error) => Err(error),
        };
        Done { answer, script }
    }
}

/// Errors of the plugin's own are answers. What else can go wrong is a fault.
fn fault(done: &Done) -> Option<String> {
    match &done.answer {
        Ok(said) => said.fault.clone(),
        Err(PluginError::Answered { error, .. }) if error.message.trim().is_empty() => {
            Some("it answered an error without a message".to_owned())
        }
        Err(PluginError::Answered { .. }) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn differs(one: &Done, other: &Done) -> Option<String> {
    let (first, second) = (one.script.calls(), other.script.calls());
    let at = first.iter().zip(&second).position(|(a, b)| a != b);
    if let Some(at) = at.or_else(|| (first.len() != second.len()).then_some(first.len().min(second.len()))) {
        let name =
            |calls: &[String]| calls.get(at).and_then(|call| call.split(' ').next()).unwrap_or("no call").to_owned();
        return Some(format!("call {} was `{}` and then `{}`", at + 1, name(&first), name(&second)));
    }
    let text = |done: &Done| match &done.answer {
        Ok(said) => said.text.clone(),
        Err(error) => error.to_string(),
    };
    (text(one) != text(other)).then(|| "it answered something else".to_owned())
}

/// An error after a refusal must be of the kind `denied`: the run's exit code hangs on it.
fn hides(done: &Done) -> Option<String> {
    match &done.answer {
        Err(error @ PluginError::Answered { .. }) if done.script.was_refused() && !error.is_denied() => {
            Some(format!("its error is not of the kind `denied`: {error}"))
        }
        _ => None,
    }
}
