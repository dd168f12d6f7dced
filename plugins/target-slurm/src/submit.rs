//! From a plan to a batch job: what is looked at, sent and written before, in this order.

use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::target::Job;
use maddock_sdk::types::Entry;
use maddock_sdk::{Result, files, slurm};

use crate::{plan, preflight};

fn entry(name: &str, value: &str) -> Entry {
    Entry { name: name.to_owned(), value: value.to_owned() }
}

/// Looks at the cluster: says what is wrong with the partition, and learns how patient the scheduler is. One that does not
/// answer says so at the submission.
fn look_at(work: &mut plan::Work) {
    if !work.check && work.share.is_none() && !work.longest {
        return;
    }
    let Ok(cluster) = slurm::describe_cluster() else { return };
    if work.check
        && let Some((level, text)) = preflight::told(&cluster, &work.batch.partition, work.batch.nodes)
    {
        events::log(level, &text, &[]);
    }
    if work.longest {
        match preflight::longest(&cluster, &work.batch.partition) {
            Some(Some(minutes)) => {
                work.batch.time_limit = Some(minutes);
                let text =
                    format!("without a limit of its own the job gets the partition's longest, {minutes} minutes");
                events::log(Level::Info, &text, &[]);
            }
            Some(None) => work.batch.extra.push(entry("time", "unlimited")),
            // What the partition gives to those who ask for nothing.
            None => {}
        }
    }
    if let (Some(share), Some(seconds)) = (&mut work.share, preflight::grace(&cluster)) {
        share.set_grace(seconds);
    }
}

/// Everything that launching does, but for the handle. Answers what the job is known by, and its program.
pub fn hand_in(job: &Job, work: &mut plan::Work) -> Result<(String, Option<String>)> {
    look_at(work);
    events::state(Phase::Starting, "staging");
    if let Some(share) = &mut work.share {
        let login = share.send().map_err(|error| error.during("sending the image to the nodes"))?;
        work.batch.env.extend(login);
        work.files.push((plan::share_file(&job.paths.directory), share.text(), 0o600));
    }
    for (source, destination) in &work.copies {
        files::copy(source, destination).map_err(|error| error.during("copying the tree's scripts"))?;
    }
    for (path, content, mode) in &work.files {
        files::write(path, content.as_bytes(), *mode).map_err(|error| error.during("writing the job's files"))?;
    }
    crate::start(job, work)
}
