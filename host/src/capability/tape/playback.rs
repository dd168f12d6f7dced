//! Plays one recorded call of a plugin: every request is compared with the recorded one before its answer is given, to the
//! bit. The first that differs is the finding, and ends the call.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

use super::body::{BodyError, Writer};
use super::clock::Reading;
use super::recording::Call;
use super::{Arguments, End, in_wit};
use crate::results::redact::Redactor;

/// Where a replay is not as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// Which host call it was, from 0; none: the end of the plugin's call.
    pub number: Option<u64>,
    /// What was recorded.
    pub recorded: Seen,
    /// What came now.
    pub replayed: Seen,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A host call with its arguments.
    Call(String, Value),
    /// The plugin's call came to its end.
    End(Value),
    /// Something in words.
    Words(String),
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Every request and the result are as recorded.
    Same,
    /// All that was recorded came again; the recording ends before the call did.
    CutOff,
    /// It went another way.
    Differs(Box<Divergence>),
}

/// Ends the plugin's call: there is nothing more to play.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stop(&'static str);

/// One recorded call, and how far it is.
#[derive(Debug)]
pub struct Playback {
    call: Call,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    next: usize,
    looks: usize,
    finding: Option<Finding>,
}

impl Playback {
    /// A call to be played.
    #[must_use]
    pub fn new(call: Call) -> Self {
        Self { call, progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of it.
    #[must_use]
    pub fn finding(&self) -> Finding {
        self.progress().finding.clone().unwrap_or(Finding::CutOff)
    }

    /// How many host calls were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.progress().next
    }

    fn clock(&self, place: usize) -> &[Reading] {
        match (self.call.host_calls.get(place), &self.call.end) {
            (Some(call), _) => &call.clock,
            (None, Some(end)) => &end.clock,
            (None, None) => &[],
        }
    }

    /// What a clock said. A look that is not in the recording is a divergence, told where the plugin goes on.
    pub(super) fn look(&self, now: Reading) -> Reading {
        let mut progress = self.progress();
        let recorded = self.clock(progress.next).get(progress.looks).copied();
        let same_clock = |reading: &Reading| std::mem::discriminant(reading) == std::mem::discriminant(&now);
        match recorded.filter(same_clock) {
            Some(reading) => {
                progress.looks = progress.looks.saturating_add(1);
                reading
            }
            None => {
                if self.call.host_calls.len() > progress.next || self.call.is_whole() {
                    let number = u64::try_from(progress.next).ok();
                    let recorded = Seen::Words("no further look at that clock before this call".to_owned());
                    let replayed = Seen::Words("one more look at a clock".to_owned());
                    differ(&mut progress, Divergence { number, recorded, replayed });
                }
                now
            }
        }
    }

    /// What the recording has next, for whoever sees that something else came.
    fn recorded(&self, place: usize) -> Seen {
        match (self.call.host_calls.get(place), &self.call.end) {
            (Some(call), _) => Seen::Call(call.function.clone(), call.ask.clone()),
            (None, Some(end)) => Seen::End(end.body.clone()),
            (None, None) => Seen::Words("nothing more".to_owned()),
        }
    }

    /// The answer to a request, if it is the recorded one.
    pub(super) fn ask(
        &self,
        function: &'static str,
        arguments: impl FnOnce(&mut Arguments<'_>) -> Result<(), BodyError>,
    ) -> wasmtime::Result<Value> {
        let none = Redactor::default();
        let mut told = Arguments::new(Writer::of_requests(&none));
        arguments(&mut told).map_err(wasmtime::Error::new)?;
        let (function, ask) = (in_wit(function), Value::Array(told.bodies));
        let mut progress = self.progress();
        if let Some(Finding::Differs(_)) = progress.finding {
            return Err(wasmtime::Error::new(Stop("the replay has diverged already")));
        }
        let place = progress.next;
        let number = u64::try_from(place).unwrap_or(u64::MAX);
        if self.call.gap() == Some(number) {
            let recorded = Seen::Words("this host call is missing from the recording".to_owned());
            let found = Divergence { number: Some(number), recorded, replayed: Seen::Call(function, ask) };
            return Err(differ(&mut progress, found));
        }
        let Some(recorded) = self.call.host_calls.get(place) else {
            if !self.call.is_whole() {
                progress.finding = Some(Finding::CutOff);
                return Err(wasmtime::Error::new(Stop("the recording ends here")));
            }
            let found = Divergence {
                number: Some(number),
                recorded: self.recorded(place),
                replayed: Seen::Call(function, ask),
            };
            return Err(differ(&mut progress, found));
        };
        if recorded.function != function || recorded.ask != ask || progress.looks != recorded.clock.len() {
            let (mut was, mut is) = (self.recorded(place), Seen::Call(function.clone(), ask.clone()));
            if recorded.function == function && recorded.ask == ask {
                was = Seen::Words(format!("{} looks at a clock before this call", recorded.clock.len()));
                is = Seen::Words(format!("{} looks", progress.looks));
            }
            return Err(differ(&mut progress, Divergence { number: Some(number), recorded: was, replayed: is }));
        }
        let Some(answer) = recorded.answer.clone() else {
            progress.next = progress.next.saturating_add(1);
            progress.finding = Some(Finding::CutOff);
            return Err(wasmtime::Error::new(Stop("the recording has no answer to this call")));
        };
        progress.next = progress.next.saturating_add(1);
        progress.looks = 0;
        if answer.get("ends").is_some() {
            // A ceiling was reached in this call, and will be again: nothing comes after it.
            progress.finding = Some(Finding::Same);
        }
        Ok(answer)
    }

    pub(super) fn end<T: Serialize>(&self, end: &End<'_, T>) {
        let none = Redactor::default();
        let replayed =
            end.body(&Writer::of_answers(&none)).unwrap_or_else(|error| json!({"unknown": error.to_string()}));
        let mut progress = self.progress();
        if progress.finding.is_some() {
            return;
        }
        let place = progress.next;
        let number = u64::try_from(place).ok().filter(|_| place < self.call.host_calls.len());
        let gap = self.call.gap().filter(|_| number.is_none());
        match &self.call.end {
            // The host ended it, or the recording: what it would have come to is nobody's word.
            _ if !self.call.is_whole() && number.is_none() && gap.is_none() => {
                let ended = self.call.end.as_ref().and_then(|end| end.body.get("ended"));
                if ended.is_some() && ended != replayed.get("ended") {
                    let recorded = self.recorded(place);
                    differ(&mut progress, Divergence { number, recorded, replayed: Seen::End(replayed) });
                    return;
                }
                progress.finding = Some(if ended.is_some() { Finding::Same } else { Finding::CutOff });
            }
            Some(recorded) if number.is_none() && gap.is_none() && recorded.body == replayed => {
                progress.finding = Some(Finding::Same);
            }
            _ => {
                let recorded = match gap {
                    Some(_) => Seen::Words("this host call is missing from the recording".to_owned()),
                    None => self.recorded(place),
                };
                let found = Divergence { number: number.or(gap), recorded, replayed: Seen::End(replayed) };
                differ(&mut progress, found);
            }
        }
    }
}

fn differ(progress: &mut Progress, found: Divergence) -> wasmtime::Error {
    if !matches!(progress.finding, Some(Finding::Differs(_))) {
        progress.finding = Some(Finding::Differs(Box::new(found)));
    }
    wasmtime::Error::new(Stop("the replay differs from the recording"))
}
