//! What the kernel itself asks of a cluster: whether it answers, and to delete what a run has left over. It asks at the gate
//! like everybody else, as the plugin `kernel` of the shipped rules.

use std::sync::Arc;

use maddock_bindings::api::kube::Connection;

use super::cluster::{self, Client, Place};
use super::owner::{JOB, RUN, run_of, value};
use super::{Kube, act};
use crate::capability::ApiError;
use crate::capability::gate::{Call, Gate, Identity};
use crate::plugin::{Environment, RunContext};

fn gate(context: &RunContext) -> Gate {
    let identity = Identity { name: "kernel".to_owned(), digest: String::new(), built_in: true, signer: None };
    Gate::new(context.policy.clone(), context.trace.clone(), Arc::new(identity))
}

/// Whether this machine knows of a cluster.
pub(in crate::capability) fn is_configured(environment: &Environment) -> bool {
    cluster::is_configured(environment)
}

/// The version of the server of the current context.
pub(in crate::capability) async fn version(context: &RunContext) -> Result<String, ApiError> {
    let connection = Connection { kubeconfig: String::new(), context: String::new(), namespace: String::new() };
    let place = context.clusters.place(&connection, &context.environment)?;
    let permit = gate(context).permit(place.describe(Call::<Kube>::new("describe-server")))?;
    let answer = match Client::open(&permit, &place).await {
        Ok(client) => act::server(&client).await,
        Err(refused) => Err(refused),
    };
    permit.finish(answer).map(|server| {
        format!(
            "{} at {}, context {}, namespace {}",
            server.version, place.cluster.address, server.context, server.namespace
        )
    })
}

/// Deletes objects that bear this run's label, but for those of the jobs to keep. A cluster in which nothing was made has
/// none.
pub(in crate::capability) async fn sweep(context: &RunContext, keep: &[String]) -> Vec<String> {
    let Ok(run) = run_of(&context.run_id) else { return Vec::new() };
    let mut problems = Vec::new();
    for place in context.clusters.used() {
        match swept(context, &place, &run, keep).await {
            Ok(more) => problems.extend(more),
            Err(error) => problems.push(format!(
                "cannot look for what is left over in namespace `{}` of context `{}`: {}",
                place.namespace, place.cluster.context, error.message
            )),
        }
    }
    problems
}

async fn swept(context: &RunContext, place: &Place, run: &str, keep: &[String]) -> Result<Vec<String>, ApiError> {
    let gate = gate(context);
    let keep: Vec<String> = keep.iter().map(|job| value(job)).collect();
    let permit = gate.permit(place.describe(Call::<Kube>::new("list-owned")))?;
    let client = Client::open(&permit, place).await?;
    let labelled = permit.finish(act::labelled(&client, &format!("{RUN}={run}")).await)?;
    let unseen = |error: &ApiError| format!("whether anything is left over is not known: {}", error.message);
    let mut problems: Vec<String> = labelled.hidden.iter().map(unseen).collect();
    for (kind, metadata) in labelled.found {
        let job = metadata.labels.as_ref().and_then(|labels| labels.get(JOB));
        if job.is_some_and(|job| keep.contains(job)) {
            continue;
        }
        let name = metadata.name.unwrap_or_default();
        let call = place.describe(Call::<Kube>::new("delete")).on("kind", kind.word()).on("name", &name);
        let permit = gate.permit(call)?;
        if let Err(error) = permit.finish(act::delete(&client, kind, &name, run).await) {
            problems.push(format!("{} `{name}` is left over: {}", kind.word(), error.message));
        }
    }
    Ok(problems)
}
