//! Asks what became of jobs: the queue first, the controller's memory for those that have ended, and the accounting for
//! those that the controller has forgotten. An accounting that is absent, late or broken is no failure: it has no answer.

use std::collections::BTreeSet;

use maddock_bindings::api::slurm::{Cluster, Job, JobState};
use maddock_bindings::api::types::{Entry, ErrorKind};

use super::client::Client;
use super::{ApiError, is_of_run, parse};

/// What is known about each job that was asked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those that somebody knows.
    pub(super) jobs: Vec<Job>,
    /// Those that nobody knows (any more, or yet).
    pub(super) missing: Vec<String>,
    /// Those that could not be asked for although the others could, with what the queue says of an end, and why.
    pub(super) silent: Vec<(String, Option<Job>, ApiError)>,
}

/// One look at many jobs. Of those that the controller is known to have `forgotten`, only queue and accounting are asked.
///
/// # Errors
/// The controller does not answer, or the clients are not there.
pub(super) async fn jobs(client: &Client, ids: &[String], forgotten: &BTreeSet<String>) -> Result<Found, ApiError> {
    let mut found = Found::default();
    if ids.is_empty() {
        return Ok(found);
    }
    let arguments = [
        "--noheader".to_owned(),
        "--states=all".to_owned(),
        format!("--format={}", parse::queue_format()),
        format!("--jobs={}", ids.join(",")),
    ];
    let reply = client.run("squeue", &arguments, None).await?;
    let listed = if reply.knows_no_such_job() { Vec::new() } else { parse::queue(&reply.success("squeue")?) };
    let mut gone = Vec::new();
    for id in ids {
        match listed.iter().find(|job| job.id == *id) {
            Some(job) if !job.ended => found.jobs.push(job.clone()),
            None if forgotten.contains(id) => gone.push(id.clone()),
            // How it ended stands in the controller's memory, for some minutes.
            listed => match (details(client, id).await, listed) {
                (Ok(Some(job)), _) => found.jobs.push(job),
                (Ok(None), Some(job)) => found.jobs.push(job.clone()),
                (Ok(None), None) => gone.push(id.clone()),
                (Err(trouble), listed) => found.silent.push((id.clone(), listed.cloned(), trouble)),
            },
        }
    }
    let accounted = accounting(client, &gone).await;
    for id in gone {
        // A record that has not been closed yet says nothing about a job that has left the queue.
        match accounted.iter().find(|job| job.id == id && job.ended) {
            Some(job) => found.jobs.push(job.clone()),
            None => found.missing.push(id),
        }
    }
    Ok(found)
}

/// What the controller remembers of one job.
async fn details(client: &Client, id: &str) -> Result<Option<Job>, ApiError> {
    let arguments = ["show".to_owned(), "job".to_owned(), id.to_owned()];
    let reply = client.run("scontrol", &arguments, None).await?;
    if reply.knows_no_such_job() {
        return Ok(None);
    }
    Ok(parse::details(&reply.success("scontrol")?).filter(|job| job.id == id))
}

async fn accounting(client: &Client, ids: &[String]) -> Vec<Job> {
    if ids.is_empty() {
        return Vec::new();
    }
    let arguments = [
        "--noheader".to_owned(),
        "--parsable2".to_owned(),
        "--allocations".to_owned(),
        format!("--delimiter={}", parse::FIELD),
        format!("--jobs={}", ids.join(",")),
        format!("--format={}", parse::ACCOUNTING_FIELDS),
    ];
    let reply = client.run("sacct", &arguments, None).await;
    reply.and_then(|reply| reply.success("sacct")).map(|text| parse::accounting(&text)).unwrap_or_default()
}

/// The same for a caller who wants an answer now.
pub(super) async fn jobs_now(client: &Client, ids: &[String]) -> Result<Vec<Job>, ApiError> {
    let found = jobs(client, ids, &BTreeSet::new()).await?;
    if let Some((_, _, trouble)) = found.silent.into_iter().next() {
        return Err(trouble);
    }
    let missing = found.missing.iter().map(|id| out_of_sight(id, "neither the queue nor the accounting knows it"));
    let all: Vec<Job> = found.jobs.iter().cloned().chain(missing).collect();
    Ok(ids.iter().filter_map(|id| all.iter().find(|job| job.id == *id).cloned()).collect())
}

/// A job that nobody has an answer about.
pub(super) fn out_of_sight(id: &str, reason: impl Into<String>) -> Job {
    Job {
        id: id.to_owned(),
        state: JobState::LostSight,
        word: String::new(),
        reason: reason.into(),
        ended: true,
        exit_code: None,
        signal: None,
        nodes: String::new(),
        start: String::new(),
        end: String::new(),
        owner: String::new(),
        change: 0,
    }
}

/// Jobs with the marker of a run, also those that have ended.
pub(super) async fn jobs_of_run(client: &Client, run: &str) -> Result<Vec<Job>, ApiError> {
    let arguments = [
        "--noheader".to_owned(),
        "--me".to_owned(),
        "--states=all".to_owned(),
        format!("--format={}", parse::queue_format()),
    ];
    let text = client.run("squeue", &arguments, None).await?.success("squeue")?;
    let ours = |job: &Job| is_of_run(&format!("{}{}", super::MARK, job.owner), run);
    Ok(parse::queue(&text).into_iter().filter(ours).collect())
}

/// The comment of one job, in which its owner stands; none where the controller does not know the job.
pub(super) async fn comment_of(client: &Client, id: &str) -> Result<Option<String>, ApiError> {
    Ok(details(client, id).await?.map(|job| format!("{}{}", super::MARK, job.owner)))
}

/// What there is.
pub(super) async fn cluster(client: &Client) -> Result<Cluster, ApiError> {
    let version = version(client).await?;
    let sinfo = async |arguments: &[String]| client.run("sinfo", arguments, None).await?.success("sinfo");
    let partitions = sinfo(&["--noheader".to_owned(), format!("--format={}", parse::partition_format())]).await?;
    let nodes =
        sinfo(&["--noheader".to_owned(), "--Node".to_owned(), format!("--format={}", parse::node_format())]).await?;
    let extra =
        kill_wait(client).await.map(|value| Entry { name: "kill-wait".to_owned(), value }).into_iter().collect();
    Ok(Cluster { version, partitions: parse::partitions(&partitions), nodes: parse::nodes(&nodes), extra })
}

/// Seconds between asking a job's processes to end and ending them. Nobody's question depends on it, so that a controller
/// that does not say it is fine.
async fn kill_wait(client: &Client) -> Option<String> {
    let said =
        client.run("scontrol", &["show".to_owned(), "config".to_owned()], None).await.ok()?.success("scontrol").ok()?;
    parse::kill_wait(&said)
}

/// The version of the clients, such as `22.05.8`.
pub(super) async fn version(client: &Client) -> Result<String, ApiError> {
    let text = client.run("sinfo", &["--version".to_owned()], None).await?.success("sinfo")?;
    text.split_whitespace()
        .last()
        .map(str::to_owned)
        .ok_or_else(|| super::error(ErrorKind::Failed, "`sinfo` does not say its version"))
}
