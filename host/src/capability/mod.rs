//! What plugins may do: one gate, and one file per host interface.
//!
//! Every effect passes the gate. A host function describes the call (`Call`), asks `Gate::permit`, and hands the
//! `Permit` to the code that acts; only the gate can make a permit, so code without one does not compile.

pub mod docker;
pub mod events;
pub mod facts;
pub mod files;
pub mod gate;
pub mod kube;
pub mod mark;
pub mod policy;
pub mod probe;
pub mod process;
pub mod secrets;
pub mod slurm;
pub mod tape;
#[doc(hidden)]
pub mod testing;
pub mod trace;

pub use kube::Clusters;
pub use slurm::Queue;

use maddock_bindings::api::types;

/// An error as plugins see it.
pub type ApiError = types::Error;

/// What a host function answers to a plugin: the outer error ends the plugin, the inner one is the plugin's to handle.
pub type Answer<T> = wasmtime::Result<Result<T, ApiError>>;

/// Makes an error for a plugin: kind and message.
#[must_use]
pub fn error(kind: types::ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError { kind, message: message.into(), hint: None, details: Vec::new() }
}

/// Makes an error for a plugin: kind, message, and what to do about it.
#[must_use]
pub fn error_with_hint(kind: types::ErrorKind, message: impl Into<String>, hint: impl Into<String>) -> ApiError {
    ApiError { kind, message: message.into(), hint: Some(hint.into()), details: Vec::new() }
}

/// Removes what belongs to a run and is left over when it ends, found by its owner label. Answers what could not be
/// removed, a sentence each. Programs need no sweeping: their supervisors end them with the run.
///
/// What belongs to the jobs to `keep` stays.
pub async fn sweep(context: &crate::plugin::RunContext, keep: &[String]) -> Vec<String> {
    let mut problems = docker::sweep(context, keep).await;
    problems.extend(slurm::sweep(context, keep).await);
    problems.extend(kube::sweep(context, keep).await);
    problems
}

/// The same for what belongs to one job, where others of the run go on.
pub async fn sweep_job(context: &crate::plugin::RunContext, job: &str) -> Vec<String> {
    docker::sweep_job(context, job).await
}
