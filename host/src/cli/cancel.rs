//! `maddock cancel`

use std::time::Duration;

use tokio::time::Instant;

use super::args::Cancel;
use super::attach;
use super::earlier::{self, Earlier};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::LOOK_AGAIN;
use super::signals;
use crate::pipeline::run::Wish;
use crate::results::attendance::{self, Attendance, Attendant, Attended};

/// How long an attendant may take to end the jobs and record them.
const PATIENCE: Duration = Duration::from_secs(240);

/// Ends jobs of a run, whoever attends it.
///
/// # Errors
/// There is no such run or job, or it cannot be ended.
pub async fn run(arguments: &Cancel) -> Outcome {
    let run = Earlier::find(&arguments.run)?;
    let wanted = run.named(&arguments.jobs)?;
    let open: Vec<String> = wanted.into_iter().filter(|id| !run.directory.is_recorded(id)).collect();
    if run.is_over() || open.is_empty() {
        eprintln!("there is nothing to cancel: the jobs have ended");
        return Ok(Exit::Success);
    }
    let whole = arguments.jobs.is_empty();
    let failed = |error: std::io::Error| Failure::new(Exit::Failure, format!("cannot cancel: {error}"));
    let ask = || -> std::io::Result<()> {
        if whole {
            return attendance::ask_to_cancel(run.directory.path(), None);
        }
        open.iter().try_for_each(|id| attendance::ask_to_cancel(run.directory.path(), Some(id)))
    };
    match Attendance::take(run.directory.path(), "cancel").map_err(failed)? {
        Attended::Here(attendance) => {
            ask().map_err(failed)?;
            let stop = signals::stop_token().map_err(failed)?;
            let invocation = run.invocation(Some(attendance), &arguments.later, false)?;
            let wish = Wish::Cancel(if whole { Vec::new() } else { open.clone() });
            let resumed = attach::finish(&run, &invocation, wish, stop).await?;
            attach::concluded(&run, &invocation, &resumed, arguments.later.format())?;
        }
        Attended::Elsewhere(who) => {
            ask().map_err(failed)?;
            let told = whole && who.as_ref().is_some_and(told);
            if !told {
                by_handle(&run, arguments, &open).await?;
            }
            recorded(&run, &open).await?;
        }
    }
    let left = open.iter().filter(|id| !run.directory.is_recorded(id)).count();
    if left > 0 && !Earlier::open(run.directory.clone())?.is_over() {
        return Err(Failure::new(Exit::Failure, format!("{left} jobs have not ended yet"))
            .hint(format!("`maddock status {}` says where they are", run.record.run)));
    }
    eprintln!("cancelled");
    Ok(Exit::Success)
}

fn told(who: &Attendant) -> bool {
    who.process.as_ref().is_some_and(|process| process.terminate())
}

/// Ends launched jobs of a run that somebody else attends, who will see them end; those that wait are told by their word.
async fn by_handle(run: &Earlier, arguments: &Cancel, ids: &[String]) -> Result<(), Failure> {
    let invocation = run.invocation(None, &arguments.later, false)?;
    let target = earlier::target(&invocation, &run.record)?;
    for id in ids {
        let Some(launched) = run.job(id)?.launched else { continue };
        let session = invocation.session().for_job(id);
        let cancelled = target.plugin.cancel_job(&session, &launched.handle, "cancelled by `maddock cancel`").await;
        if let Err(error) = cancelled.as_ref()
            && !run.directory.is_recorded(id)
        {
            return Err(Failure::of_plugin(Exit::Failure, error));
        }
    }
    Ok(())
}

/// Waits until the jobs have their verdict, or nobody is there who could give them one.
async fn recorded(run: &Earlier, ids: &[String]) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let attended = run.attendant()?.is_some();
        // One that was never launched waits for its turn to be told, however long that takes.
        let open = |id: &String| !run.directory.is_recorded(id) && run.job(id).is_ok_and(|job| job.launched.is_some());
        if !attended || !ids.iter().any(open) || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
