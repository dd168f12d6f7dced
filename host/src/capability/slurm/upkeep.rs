//! What the kernel itself asks of the scheduler: its version, and to end what a run has left over. It asks at the gate like
//! everybody else, as the plugin `kernel` of the shipped rules.

use std::sync::Arc;

use super::client::Client;
use super::{ask, on_program};
use crate::capability::ApiError;
use crate::capability::gate::{Gate, Identity};
use crate::plugin::RunContext;

fn gate(context: &RunContext) -> Gate {
    let identity = Identity { name: "kernel".to_owned(), digest: String::new(), built_in: true, signer: None };
    Gate::new(context.policy.clone(), context.trace.clone(), Arc::new(identity))
}

/// The version of the clients, where the controller answers them.
pub(in crate::capability) async fn version(context: &RunContext) -> Result<String, ApiError> {
    let permit = gate(context).permit(on_program("describe-cluster", &["sinfo", "scontrol"]))?;
    let client = Client::new(&permit, &context.environment);
    permit.finish(ask::cluster(&client).await).map(|cluster| {
        format!("{}, {} nodes in {} partitions", cluster.version, cluster.nodes.len(), cluster.partitions.len())
    })
}

/// Ends batch jobs that bear this run's marker, but for those of the jobs to keep. A scheduler that nothing was handed to
/// has none.
pub(in crate::capability) async fn sweep(context: &RunContext, keep: &[String]) -> Vec<String> {
    if !context.queue.is_used() || context.run_id.is_empty() {
        return Vec::new();
    }
    match swept(context, keep).await {
        Ok(problems) => problems,
        Err(error) => vec![format!("cannot look for batch jobs that are left over: {}", error.message)],
    }
}

async fn swept(context: &RunContext, keep: &[String]) -> Result<Vec<String>, ApiError> {
    let gate = gate(context);
    let permit = gate.permit(on_program("find", &["squeue"]))?;
    let client = Client::new(&permit, &context.environment);
    let found = permit.finish(ask::jobs_of_run(&client, &context.run_id).await)?;
    let mut problems = Vec::new();
    for job in found.into_iter().filter(|job| !job.ended) {
        if job.owner.split_once('/').is_some_and(|(_, name)| keep.iter().any(|kept| kept == name)) {
            continue;
        }
        let permit = gate.permit(on_program("cancel", &["scancel"]).on("job", &job.id))?;
        let answer = super::cancel(&permit, &client, &context.run_id, &job.id).await;
        if let Err(error) = permit.finish(answer) {
            problems.push(format!("batch job {} is left over: {}", job.id, error.message));
        }
    }
    Ok(problems)
}
