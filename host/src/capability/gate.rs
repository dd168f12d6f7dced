//! The gate: the one place where a host call is allowed or refused.
//!
//! It must never be bypassed, and cannot be: the functions that act take a [`Permit`], whose fields are private to this
//! file. Allowed and refused calls alike are recorded in the trace.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use maddock_bindings::api::types;

use super::ApiError;
use super::events::cut;
use super::policy::{Policy, Verdict, vocabulary};
use super::trace::{Outcome, Record, Trace};
use crate::plugin::RunContext;
use crate::plugin::allowance::Allowance;

/// One family of host calls: the name of its WIT interface.
pub trait Capability {
    /// Such as `docker`.
    const NAME: &'static str;
}

/// A host call that is about to happen, in the words of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<C> {
    operation: &'static str,
    scope: Vec<(&'static str, String)>,
    family: PhantomData<C>,
}

impl<C: Capability> Call<C> {
    /// A call of the function named as in the WIT file.
    #[must_use]
    pub fn new(operation: &'static str) -> Self {
        Self { operation, scope: Vec::new(), family: PhantomData }
    }

    /// Adds something that the call wants to touch. A name may come several times; policy must allow every value.
    #[must_use]
    pub fn on(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.scope.push((name, value.into()));
        self
    }

    /// Adds several values under one name.
    #[must_use]
    pub fn on_all<S: Into<String>>(mut self, name: &'static str, values: impl IntoIterator<Item = S>) -> Self {
        self.scope.extend(values.into_iter().map(|value| (name, value.into())));
        self
    }

    /// `family.operation`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", C::NAME, self.operation)
    }
}

/// Who is asking: what the policy's grants belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name in the manifest.
    pub name: String,
    /// `sha256:…` of the component.
    pub digest: String,
    /// Whether the component is part of this binary.
    pub built_in: bool,
    /// The trusted public key whose signature of these bytes was verified.
    pub signer: Option<String>,
}

/// Leave to do one host call. Made by [`Gate::permit`] alone; recorded in the trace when it ends.
#[derive(Debug)]
#[must_use = "a permit is to be handed to the code that acts"]
pub struct Permit<C> {
    trace: Arc<Trace>,
    record: Option<Record>,
    hidden: Option<Arc<RunContext>>,
    started: Instant,
    family: PhantomData<C>,
}

impl<C> Permit<C> {
    /// Says how the call went and hands its answer on.
    pub fn finish<T>(mut self, answer: Result<T, ApiError>) -> Result<T, ApiError> {
        let outcome = match &answer {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Error(recorded(&error.message, self.hidden.as_deref())),
        };
        self.close(outcome);
        answer
    }

    fn close(&mut self, outcome: Outcome) {
        if let Some(mut record) = self.record.take() {
            record.outcome = outcome;
            record.duration = self.started.elapsed();
            self.trace.append(&record);
        }
    }
}

impl<C> Drop for Permit<C> {
    fn drop(&mut self) {
        self.close(Outcome::Abandoned);
    }
}

/// The gate of one plugin instance.
#[derive(Debug, Clone)]
pub struct Gate {
    policy: Arc<Policy>,
    trace: Arc<Trace>,
    identity: Arc<Identity>,
    calls: Arc<Calls>,
    hidden: Option<Arc<RunContext>>,
}

/// Bytes of one value that are recorded and told.
const VALUE: usize = 4 << 10;
/// Values of one call that are recorded.
const VALUES: usize = 512;
/// Bytes of a refusal and of the lines that would allow it.
const REFUSAL: usize = 16 << 10;

/// What is recorded of a text: no secret, and not without end.
fn recorded(text: &str, hidden: Option<&RunContext>) -> String {
    let mut text = Cow::Borrowed(text);
    // Before it is cut: what is left of a secret at the cut is no secret any more, and still tells of it.
    for secret in hidden.iter().flat_map(|context| context.secrets.values()) {
        if text.contains(secret) {
            text = Cow::Owned(text.replace(secret, "[secret]"));
        }
    }
    cut(&text, VALUE)
}

/// The same for everything that a call wants to touch.
fn all_recorded(scope: Vec<(&'static str, String)>, hidden: Option<&RunContext>) -> Vec<(&'static str, String)> {
    let more = scope.len().saturating_sub(VALUES);
    let last = scope.get(VALUES).map(|(name, _)| (*name, format!("… ({more} more)")));
    let first = scope.into_iter().take(VALUES).map(|(name, value)| (name, recorded(&value, hidden)));
    first.chain(last).collect()
}

/// How many calls there were, and may be.
#[derive(Debug)]
struct Calls {
    done: AtomicU64,
    most: Allowance,
}

impl Gate {
    /// A gate for one plugin under a policy, recording into a trace.
    #[must_use]
    pub fn new(policy: Arc<Policy>, trace: Arc<Trace>, identity: Arc<Identity>) -> Self {
        Self::limited(policy, trace, identity, u64::MAX)
    }

    /// The same, for so many calls in an hour.
    #[must_use]
    pub fn limited(policy: Arc<Policy>, trace: Arc<Trace>, identity: Arc<Identity>, most: u64) -> Self {
        Self {
            policy,
            trace,
            identity,
            calls: Arc::new(Calls { done: AtomicU64::new(0), most: Allowance::new(most) }),
            hidden: None,
        }
    }

    /// The same, which records no secret of this invocation.
    #[must_use]
    pub fn hiding(self, context: Arc<RunContext>) -> Self {
        Self { hidden: Some(context), ..self }
    }

    /// The ceiling of calls, where it was reached. Whoever runs the plugin ends it then; until that happens, each further
    /// call is an error.
    #[must_use]
    pub fn exhausted(&self) -> Option<u64> {
        let Calls { done, most } = &*self.calls;
        most.is_exceeded_by(done.load(Ordering::Relaxed)).then_some(most.ceiling())
    }

    /// Who this gate is for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether a call would be refused as it is told so far, before more is found out about it. This allows nothing, and only a
    /// refusal is recorded.
    ///
    /// # Errors
    /// As [`Gate::permit`].
    pub fn ask<C: Capability>(&self, call: &Call<C>) -> Result<(), ApiError> {
        let found = vocabulary::find_parts(C::NAME, call.operation);
        let name = found.map_or_else(|| Cow::Owned(call.name()), |(_, words)| Cow::Borrowed(words.call));
        if self.policy.decide_found(&self.identity, &name, found, &call.scope).is_allowed() {
            return Ok(());
        }
        let again = Call { operation: call.operation, scope: call.scope.clone(), family: PhantomData };
        self.permit::<C>(again).map(drop)
    }

    /// Leave to do a call.
    ///
    /// # Errors
    /// Of kind `denied`, naming plugin, call, scope, the deciding rule and what would allow it.
    pub fn permit<C: Capability>(&self, call: Call<C>) -> Result<Permit<C>, ApiError> {
        let Calls { done, most } = &*self.calls;
        if most.is_exceeded_by(done.fetch_add(1, Ordering::Relaxed).saturating_add(1)) {
            let message = format!("more than {} host calls, the ceiling of one call", most.ceiling());
            return Err(super::error(types::ErrorKind::Failed, message));
        }
        let found = vocabulary::find_parts(C::NAME, call.operation);
        let name = found.map_or_else(|| Cow::Owned(call.name()), |(_, words)| Cow::Borrowed(words.call));
        let verdict = self.policy.decide_found(&self.identity, &name, found, &call.scope);
        let record = Record {
            plugin: self.identity.clone(),
            call: name,
            scope: all_recorded(call.scope, self.hidden.as_deref()),
            rule: verdict.rule().clone(),
            outcome: Outcome::Abandoned,
            duration: std::time::Duration::ZERO,
        };
        match verdict {
            Verdict::Allowed { .. } => Ok(Permit {
                trace: self.trace.clone(),
                record: Some(record),
                hidden: self.hidden.clone(),
                started: Instant::now(),
                family: PhantomData,
            }),
            Verdict::Denied(denial) => {
                let error = types::Error {
                    kind: types::ErrorKind::Denied,
                    message: cut(&denial.message, REFUSAL),
                    hint: Some(cut(&denial.remedy, REFUSAL)),
                    details: vec![types::Entry { name: "rule".to_owned(), value: denial.rule.to_string() }],
                };
                self.trace.append(&Record { outcome: Outcome::Denied, ..record });
                Err(error)
            }
        }
    }
}
