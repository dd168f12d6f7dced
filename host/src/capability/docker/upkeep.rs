//! What the kernel itself asks of the engine: whether it answers, and to remove what a run has left over: this one, or one
//! that was killed. It asks at the
//! gate like everybody else, as the plugin `kernel` of the shipped rules.

use std::path::Path;
use std::sync::Arc;

use maddock_bindings::api::events::Level;
use maddock_bindings::api::types::Entry;

use super::Docker;
use super::containers;
use super::engine::Engine;
use super::spec;
use crate::capability::ApiError;
use crate::capability::gate::{Call, Gate, Identity};
use crate::capability::mark::Mark;
use crate::plugin::RunContext;
use crate::results::attendance::lives_on;

/// The label that says which process answers for a container.
pub(super) const OWNER: &str = "maddock.owner";
/// The label with the directory of its run.
pub(super) const DIRECTORY: &str = "maddock.directory";
/// The label by which a plugin asks that a container outlive its run, for a person to look around in.
pub(super) const KEPT: &str = "maddock.keep-alive";

fn gate(context: &RunContext) -> Gate {
    let identity = Identity { name: "kernel".to_owned(), digest: String::new(), built_in: true, signer: None };
    Gate::new(context.policy.clone(), context.trace.clone(), Arc::new(identity))
}

/// The engine's version and where it listens.
pub(in crate::capability) async fn version(context: &RunContext) -> Result<String, ApiError> {
    let permit = gate(context).permit(Call::<Docker>::new("describe-engine"))?;
    let opened = context.docker.open(&permit, &context.environment).await;
    permit.finish(opened).map(|engine| format!("{} (API {}) at {}", engine.version, engine.api_version, engine.address))
}

/// Removes the containers that bear this run's label, but for those of the jobs to keep. An engine that was never spoken
/// to has none.
pub(in crate::capability) async fn sweep(context: &RunContext, keep: &[String]) -> Vec<String> {
    if !context.docker.is_open() || context.run_id.is_empty() {
        return Vec::new();
    }
    match swept(context, keep).await {
        Ok(problems) => problems,
        Err(error) => vec![format!("cannot look for containers that are left over: {}", error.message)],
    }
}

async fn swept(context: &RunContext, keep: &[String]) -> Result<Vec<String>, ApiError> {
    let gate = gate(context);
    let permit = gate.permit(Call::<Docker>::new("find-containers"))?;
    let engine = context.docker.open(&permit, &context.environment).await?;
    let found = permit.finish(containers::find(&engine, &context.run_id, &[]).await)?;
    let mut problems = Vec::new();
    for container in found {
        let job = container.labels.iter().find(|label| label.name == spec::JOB).map(|label| &label.value);
        if job.is_some_and(|job| keep.contains(job)) {
            continue;
        }
        let permit = gate.permit(Call::<Docker>::new("remove-container").on("container", &container.id))?;
        if let Err(error) = permit.finish(containers::remove(&engine, &context.run_id, &container.id).await) {
            problems.push(format!("container `{}` is left over: {}", container.name, error.message));
        }
    }
    Ok(problems)
}

/// Removes the containers that one job of this run has left.
pub(in crate::capability) async fn sweep_job(context: &RunContext, job: &str) -> Vec<String> {
    if !context.docker.is_open() || context.run_id.is_empty() || job.is_empty() {
        return Vec::new();
    }
    match swept_job(context, job).await {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("a container may be left over: {}", error.message)],
    }
}

async fn swept_job(context: &RunContext, job: &str) -> Result<(), ApiError> {
    let gate = gate(context);
    let of_job = [Entry { name: spec::JOB.to_owned(), value: job.to_owned() }];
    let permit = gate.permit(Call::<Docker>::new("find-containers").on("label", format!("{}={job}", spec::JOB)))?;
    let engine = context.docker.open(&permit, &context.environment).await?;
    for container in permit.finish(containers::find(&engine, &context.run_id, &of_job).await)? {
        let permit = gate.permit(Call::<Docker>::new("remove-container").on("container", &container.id))?;
        permit.finish(containers::remove(&engine, &context.run_id, &container.id).await)?;
    }
    Ok(())
}

/// Removes the containers of runs of this machine that were killed, but for those that were to be kept alive, and those of
/// jobs that outlive their process as their run's directory says. Answers what there is to tell of it.
pub(super) async fn recover(context: &RunContext, engine: &Engine) -> Vec<(Level, String)> {
    match recovered(context, engine).await {
        Ok(told) => told,
        // Nobody asked for it: whatever keeps it from being done keeps nothing else.
        Err(error) => vec![(Level::Debug, format!("containers of killed runs were not looked for: {}", error.message))],
    }
}

async fn recovered(context: &RunContext, engine: &Engine) -> Result<Vec<(Level, String)>, ApiError> {
    let gate = gate(context);
    let permit = gate.permit(Call::<Docker>::new("find-containers").on("label", OWNER))?;
    let marked = permit.finish(containers::labelled(engine, OWNER).await)?;
    let mut told = Vec::new();
    for (id, labels) in marked {
        let gone = labels.get(OWNER).and_then(|text| Mark::read(text)).is_some_and(|mark| mark.is_gone());
        let Some(run) = labels.get(spec::RUN).filter(|_| gone && !labels.contains_key(KEPT)) else { continue };
        let place = labels.get(DIRECTORY).zip(labels.get(spec::JOB));
        if place.is_some_and(|(directory, job)| lives_on(Path::new(directory), job)) {
            continue;
        }
        let permit = gate.permit(Call::<Docker>::new("remove-container").on("container", &id))?;
        told.push(match permit.finish(containers::remove(engine, run, &id).await) {
            Ok(()) => (Level::Info, format!("removed container `{id}`: its run `{run}` was killed")),
            Err(error) => {
                (Level::Warning, format!("container `{id}` of the killed run `{run}` is left over: {}", error.message))
            }
        });
    }
    Ok(told)
}
