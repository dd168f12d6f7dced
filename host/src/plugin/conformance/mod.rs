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
use super::package::grants;
use super::{Plugin, Session};
use inputs::{Input, Said};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// After how many calls that were answered the refusals begin, at most.
const LATEST: usize = 16;

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
    note("its requests are such as policy can grant".to_owned(), requests(entry));
    let kit = Kit { engine, entry, session: session.clone().within(Some(DEADLINE)) };
    for mut input in inputs::of(entry.manifest.kind, &entry.manifest.provides) {
        // What one call needs of another is made by a host that answers everything.
        if !kit.prepare(&mut input).await {
            continue;
        }
        let empty = kit.call(&input, Answers::Empty).await;
        note(format!("{}: it answers, and does not trap", input.name), fault(&empty));
        let again = kit.call(&input, Answers::Empty).await;
        note(format!("{}: the same again, the same answer and calls", input.name), differs(&empty, &again));
        let denied = kit.call(&input, Answers::DeniedAfter(0)).await;
        let said = fault(&denied).or_else(|| hides(&denied)).or_else(|| claims(&denied));
        note(format!("{}: refused everything, it says so", input.name), said);
        if let Some(fault) = kit.refused_midway(&input, &empty).await {
            note(format!("{}: refused after it has begun, it says so", input.name), fault);
        }
        let unavailable = kit.call(&input, Answers::Unavailable).await;
        note(format!("{}: with no answer from anywhere, it does not trap", input.name), fault(&unavailable));
    }
    checks
}

fn requests(entry: &Entry) -> Option<String> {
    grants::check(&entry.manifest).err().map(|(message, _)| message)
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

    /// Whether the input can be asked.
    async fn prepare(&self, input: &mut Input) -> bool {
        match self.engine.load_scripted(self.entry, &Script::new(Answers::Empty)) {
            Ok(loaded) => input.prepare(&Plugin::new(self.engine.clone(), loaded), &self.session).await,
            Err(_) => true,
        }
    }

    /// The first fault where refusals begin at each of the calls after the first; none where there is no such call.
    async fn refused_midway(&self, input: &Input, empty: &Done) -> Option<Option<String>> {
        let last = if input.is_large() { 0 } else { empty.script.refusable().min(LATEST) };
        for answered in 1..last {
            let denied = self.call(input, Answers::DeniedAfter(answered)).await;
            // What it says of a host that refuses nothing is no word about refusals.
            let hides = hides(&denied).filter(|_| text(&denied) != text(empty));
            if let Some(fault) = fault(&denied).or(hides) {
                return Some(Some(format!("after {answered} calls: {fault}")));
            }
        }
        (last > 1).then_some(None)
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
    (text(one) != text(other)).then(|| "it answered something else".to_owned())
}

fn text(done: &Done) -> String {
    match &done.answer {
        Ok(said) => said.text.clone(),
        Err(error) => error.to_string(),
    }
}

/// Where all was refused nothing was done, so an answer that says that something was is none. What does not say so, such as a
/// report without files, may have done without.
fn claims(done: &Done) -> Option<String> {
    match &done.answer {
        Ok(Said { claim: Some(claim), .. }) if done.script.was_refused() => {
            Some(format!("it says that {claim}, and every call with which that could be was refused"))
        }
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use maddock_bindings::api::types::{Error, ErrorKind};

    use super::*;

    fn answered(text: &str, claim: Option<&'static str>) -> Result<Said, PluginError> {
        Ok(Said { text: text.to_owned(), fault: None, claim })
    }

    fn failed(kind: ErrorKind, message: &str) -> Result<Said, PluginError> {
        let error = Error { kind, message: message.to_owned(), hint: None, details: Vec::new() };
        let (plugin, function) = ("a".to_owned(), "f".to_owned());
        Err(PluginError::Answered { plugin, function, error: Box::new(error) })
    }

    fn done(answers: Answers, calls: &[&str], answer: Result<Said, PluginError>) -> Done {
        let script = Script::new(answers);
        calls.iter().for_each(|call| script.pretend(call));
        Done { answer, script }
    }

    #[test]
    fn other_calls_and_other_answers_are_told_apart() {
        let of = |calls: &[&str], text: &str| done(Answers::Empty, calls, answered(text, None));
        assert_eq!(differs(&of(&["a", "b"], "x"), &of(&["a", "b"], "x")), None);
        assert_eq!(differs(&of(&["a", "b"], "x"), &of(&["a", "c"], "x")).unwrap(), "call 2 was `b` and then `c`");
        assert_eq!(differs(&of(&["a"], "x"), &of(&["a", "c"], "x")).unwrap(), "call 2 was `no call` and then `c`");
        assert_eq!(differs(&of(&["a"], "x"), &of(&["a"], "y")).unwrap(), "it answered something else");
    }

    #[test]
    fn an_error_without_a_message_is_a_fault_and_one_with_it_is_none() {
        let of = |message: &str| fault(&done(Answers::Unavailable, &["a"], failed(ErrorKind::Failed, message)));
        assert_eq!(of("what went wrong"), None);
        assert!(of("  ").unwrap().contains("without a message"));
    }

    #[test]
    fn a_refusal_keeps_its_kind() {
        let of = |answered: usize, kind| hides(&done(Answers::DeniedAfter(answered), &["a", "b"], failed(kind, "no")));
        assert_eq!(of(0, ErrorKind::Denied), None);
        assert!(of(0, ErrorKind::Failed).is_some());
        assert!(of(1, ErrorKind::Failed).is_some());
        assert_eq!(of(2, ErrorKind::Failed), None, "nothing was refused");
    }

    #[test]
    fn what_was_refused_was_not_done() {
        let of = |calls: &[&str], claim| claims(&done(Answers::DeniedAfter(0), calls, answered("x", claim)));
        assert!(of(&["a"], Some("a job was started")).unwrap().contains("it says that a job was started"));
        assert_eq!(of(&[], Some("a job was started")), None, "it asked for nothing");
        assert_eq!(of(&["a"], None), None);
    }
}
