//! `slurm`: a batch scheduler by its own command line clients.
//!
//! Here each call is described to the gate; what acts lies in the modules below and needs a `Client`, which is had for a
//! permit only. Clients are argument vectors with time limits, never a shell. A job that does not bear this run's marker is
//! never ended, and nothing is ever ended by an empty id, a name or a pattern.

mod again;
mod ask;
mod batch;
mod client;
mod nodes;
mod parse;
mod state;
mod upkeep;
mod watch;

use std::time::Duration;

use maddock_bindings::api::slurm::{self, Batch, Cluster, Job, Seen};
use maddock_bindings::api::types::ErrorKind;

use super::files::allowed;
use super::gate::{Call, Capability, Gate, Permit};
use super::{Answer, ApiError, error, error_with_hint};
use crate::plugin::State;

pub(super) use upkeep::{sweep, version};
pub use watch::Queue;

use client::Client;

/// The `slurm` interface.
#[derive(Debug, PartialEq, Eq)]
pub enum Slurm {}

impl Capability for Slurm {
    const NAME: &'static str = "slurm";
}

/// What the comment of every job begins with.
const MARK: &str = "maddock:";

/// Whose jobs an instance may hand in and end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    run: String,
    job: String,
}

impl Owner {
    fn of(state: &State) -> Result<Self, ApiError> {
        let run = run_of(state)?.to_owned();
        let job = state.job.clone().filter(|job| !job.is_empty()).ok_or_else(|| {
            error(ErrorKind::Unsupported, "this call belongs to no job of the run, and batch jobs belong to one")
        })?;
        Ok(Self { run, job })
    }

    fn comment(&self) -> String {
        format!("{MARK}{}/{}", self.run, self.job)
    }
}

/// The run that this instance may own jobs of.
fn run_of(state: &State) -> Result<&str, ApiError> {
    match state.context.run_id.as_str() {
        "" => Err(error_with_hint(
            ErrorKind::Unsupported,
            "this command belongs to no run, and batch jobs belong to one",
            "`maddock run` makes runs",
        )),
        run => Ok(run),
    }
}

/// `RUN/JOB` of a comment that is ours.
fn owner_in(comment: &str) -> Option<&str> {
    comment.strip_prefix(MARK).filter(|owner| owner.contains('/'))
}

/// Whether a comment is of a job of that run.
fn is_of_run(comment: &str, run: &str) -> bool {
    !run.is_empty() && owner_in(comment).and_then(|owner| owner.split_once('/')).is_some_and(|(of, _)| of == run)
}

/// The id of one job: digits, such as every job that was handed in here has.
fn check_id(id: &str) -> Result<(), ApiError> {
    if !id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(error(ErrorKind::InvalidInput, format!("`{}` is no id of a batch job", id.escape_debug())))
}

fn check_ids<'a>(ids: impl IntoIterator<Item = &'a String>) -> Result<(), ApiError> {
    ids.into_iter().try_for_each(|id| check_id(id))
}

/// Asks the gate, acts, and says how it went.
macro_rules! gated {
    ($state:ident, $call:expr, |$client:ident| $act:expr) => {{
        let permit = allowed!($state.gate.permit($call));
        let $client = Client::new(&permit, &$state.context.environment);
        let answer = $act.await;
        Ok(permit.finish(answer))
    }};
}

fn on_program(operation: &'static str, programs: &[&str]) -> Call<Slurm> {
    Call::<Slurm>::new(operation).on_all("program", programs.iter().copied())
}

const ASKING: [&str; 3] = ["squeue", "scontrol", "sacct"];

impl slurm::Host for State {
    async fn describe_cluster(&mut self) -> Answer<Cluster> {
        let queue = self.context.queue.clone();
        gated!(self, on_program("describe-cluster", &["sinfo", "scontrol"]), |client| queue.cluster(&client))
    }

    async fn submit(&mut self, batch: Batch) -> Answer<String> {
        let owner = allowed!(Owner::of(self));
        let order = allowed!(batch::Order::new(batch, &owner, &self.context.roots));
        let permit = allowed!(self.gate.permit(order.describe(on_program("submit", &["sbatch"]))));
        self.charge_transfer(order.length())?;
        // From here on there may be jobs of this run, whatever becomes of the call.
        self.context.queue.mark_used();
        let client = Client::new(&permit, &self.context.environment);
        let teller = again::Teller::new(self.events.clone(), "handing the job in");
        let (context, gate) = (self.context.clone(), self.gate.clone());
        let attempt = || order.submit(&permit, &client, &context.secrets);
        let find = || async {
            let found = owned(&gate, &client, &owner).await?;
            Ok(found.into_iter().map(|job| job.id).collect())
        };
        let answer = again::submit(again::SUBMIT, teller, attempt, find).await;
        if let Ok(handed) = &answer
            && handed.again
        {
            end_twins(&gate, &client, &owner, &handed.id).await;
        }
        Ok(permit.finish(answer.map(|handed| handed.id)))
    }

    async fn query(&mut self, ids: Vec<String>) -> Answer<Vec<Job>> {
        allowed!(check_ids(&ids));
        gated!(self, on_program("query", &ASKING), |client| ask::jobs_now(&client, &ids))
    }

    async fn next_change(&mut self, seen: Vec<Seen>, timeout_ms: u32) -> Answer<Vec<Job>> {
        allowed!(check_ids(seen.iter().map(|seen| &seen.id)));
        let queue = self.context.queue.clone();
        let timeout = Duration::from_millis(timeout_ms.into());
        gated!(self, on_program("next-change", &ASKING), |client| async {
            Ok(queue.next_change(client, &seen, timeout).await)
        })
    }

    async fn cancel(&mut self, id: String) -> Answer<()> {
        allowed!(check_id(&id));
        let run = allowed!(run_of(self)).to_owned();
        let call = on_program("cancel", &["scancel"]).on("job", &id);
        let permit = allowed!(self.gate.permit(call));
        if self.context.queue.has_ended(&id) {
            return Ok(permit.finish(Ok(())));
        }
        let client = Client::new(&permit, &self.context.environment);
        let teller = again::Teller::new(self.events.clone(), format!("ending batch job {id}"));
        let attempt = || cancel(&permit, &client, &run, &id);
        let answer = again::cancel(again::CANCEL, &id, teller, attempt).await;
        Ok(permit.finish(answer))
    }

    async fn find(&mut self, job: Option<String>) -> Answer<Vec<Job>> {
        let run = allowed!(run_of(self)).to_owned();
        gated!(self, on_program("find", &["squeue"]), |client| async {
            let found = ask::jobs_of_run(&client, &run).await?;
            let wanted = job.map(|job| format!("{run}/{job}"));
            Ok(found.into_iter().filter(|found| wanted.as_ref().is_none_or(|wanted| found.owner == *wanted)).collect())
        })
    }
}

/// The jobs of one owner. Looking for them is a call of its own to the gate.
async fn owned(gate: &Gate, client: &Client, owner: &Owner) -> Result<Vec<Job>, ApiError> {
    let permit = gate.permit(on_program("find", &["squeue"]))?;
    let found = permit.finish(ask::jobs_of_run(client, &owner.run).await)?;
    let own = format!("{}/{}", owner.run, owner.job);
    Ok(found.into_iter().filter(|job| job.owner == own).collect())
}

/// Ends what an attempt to hand a job in has left that seemed not to be heard. What cannot be ended now is ended by its
/// marker when the run ends.
async fn end_twins(gate: &Gate, client: &Client, owner: &Owner, id: &str) {
    let found = owned(gate, client, owner).await.unwrap_or_default();
    for twin in found.into_iter().filter(|job| job.id != id && !job.ended) {
        let Ok(permit) = gate.permit(on_program("cancel", &["scancel"]).on("job", &twin.id)) else { continue };
        let answer = cancel(&permit, client, &owner.run, &twin.id).await;
        let _ = permit.finish(answer);
    }
}

/// Ends a job after looking whose it is.
async fn cancel(_: &Permit<Slurm>, client: &Client, run: &str, id: &str) -> Result<(), ApiError> {
    check_id(id)?;
    let Some(comment) = ask::comment_of(client, id).await? else {
        // The controller has forgotten it: it ended long ago.
        return Ok(());
    };
    if !is_of_run(&comment, run) {
        return Err(error_with_hint(
            ErrorKind::Conflict,
            format!("batch job {id} is not of this run (`{run}`) and is not ended"),
            "end it with the scheduler's own command if it is yours",
        ));
    }
    client.run("scancel", &[id.to_owned()], None).await?.success("scancel").map(|_| ())
}
