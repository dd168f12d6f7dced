//! `maddock attach` and `maddock collect`: finish a run that was left, by whichever process; or see how another one does.

use std::sync::Arc;

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use super::args::{Attach, Collect, Format, Later};
use super::earlier::{self, Earlier};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::Events;
use super::invocation::Invocation;
use super::outcome::{self, Done};
use super::render;
use super::{run, signals, style};
use crate::pipeline::event::Event;
use crate::pipeline::keeper::Manner;
use crate::pipeline::resume::Records;
use crate::pipeline::run::{Place, Resumed, Wish, resume};
use crate::results::attendance::{Attendance, Attended};

fn cannot(what: &str) -> impl Fn(std::io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::new(Exit::Failure, format!("cannot {what}: {error}"))
}

/// Follows a run to its end.
///
/// # Errors
/// There is no such run, or it cannot be followed.
pub async fn attach(arguments: &Attach) -> Outcome {
    let stop = signals::leave_token().map_err(cannot("listen to signals"))?;
    let (later, live) = (&arguments.later, arguments.live_output);
    let mut events: Option<Events> = None;
    loop {
        let run = Earlier::find(&arguments.run)?;
        if run.is_over() {
            return over(&run, later);
        }
        match Attendance::take(run.directory.path(), "attach").map_err(cannot("attend the run"))? {
            Attended::Here(attendance) => {
                let invocation = run.invocation(Some(attendance), later, live)?;
                // It may have come to its end in between.
                let run = Earlier::open(run.directory.clone())?;
                if run.is_over() {
                    return over(&run, later);
                }
                let ids = run.named(&[])?;
                run.check_secrets(&invocation, &ids, arguments.unredacted)?;
                let resumed = finish(&run, &invocation, Wish::Attend, stop).await?;
                return concluded(&run, &invocation, &resumed, later.format());
            }
            Attended::Elsewhere(who) => {
                let invocation = run.invocation(None, later, live)?;
                let whom = who.map_or_else(|| "another process".to_owned(), |who| who.words());
                if events.is_none() {
                    eprintln!("{whom} attends run {}; following it", run.record.run);
                }
                let events = events.get_or_insert_with(|| Events::of(&run.directory, live));
                if !events.until_left(run.directory.path(), &invocation.events, &stop).await {
                    eprintln!("run {} goes on; {whom} attends it", run.record.run);
                    return Ok(Exit::Interrupted);
                }
            }
        }
    }
}

/// Records the jobs that have ended.
///
/// # Errors
/// There is no such run, or it cannot be asked for.
pub async fn collect(arguments: &Collect) -> Outcome {
    let stop = signals::stop_token().map_err(cannot("listen to signals"))?;
    let run = Earlier::find(&arguments.run)?;
    let later = &arguments.later;
    if run.is_over() {
        return over(&run, later);
    }
    match Attendance::take(run.directory.path(), "collect").map_err(cannot("attend the run"))? {
        Attended::Elsewhere(who) => {
            let whom = who.map_or_else(|| "another process".to_owned(), |who| who.words());
            eprintln!("{whom} attends run {} and records its jobs as they end", run.record.run);
            let seen = run.jobs();
            say_going(&run, &seen);
            Ok(so_far(&seen, &run))
        }
        Attended::Here(attendance) => {
            let invocation = run.invocation(Some(attendance), later, false)?;
            let ids = run.named(&[])?;
            run.check_secrets(&invocation, &ids, arguments.unredacted)?;
            let resumed = finish(&run, &invocation, Wish::Collect, stop).await?;
            concluded(&run, &invocation, &resumed, later.format())
        }
    }
}

/// Finishes jobs of a run that this process attends.
///
/// # Errors
/// What a job needs cannot be read, or the target is not here.
pub async fn finish(
    run: &Earlier,
    invocation: &Invocation,
    wish: Wish,
    stop: CancellationToken,
) -> Result<Resumed, Failure> {
    let record = &run.record;
    let target = earlier::target(invocation, record)?;
    let cancels = matches!(wish, Wish::Cancel(_));
    let who = invocation.attendance.as_ref().map(|attendance| attendance.who.command.clone()).unwrap_or_default();
    invocation.events.emit(&Event::RunResumed { run: record.run.clone(), by: who });
    invocation.record("run", "running", Map::new());
    let records = Records::new(invocation.directory.clone(), invocation.redactor(), record.clone());
    let place = Place {
        plugins: invocation.setup.plugins.clone(),
        context: invocation.context.clone(),
        directory: invocation.directory.clone(),
        config: Arc::new(record.config.clone()),
        // These are for setting jobs up, which was done.
        said: Arc::default(),
        presets: Arc::default(),
        events: invocation.events.clone(),
        stop,
        // Whoever begins to finish a run does not end it by going away.
        manner: Manner { detached: record.detached, watches: true, leaves: !cancels, patient: !cancels },
        records: Some(Arc::new(records)),
        progress: Arc::default(),
    };
    resume(&place, &target, record, &wish).await.map_err(|error| run::of_run(&error))
}

/// What this process says when it has done what it could.
pub fn concluded(run: &Earlier, invocation: &Invocation, resumed: &Resumed, format: Format) -> Outcome {
    if resumed.finished() {
        return outcome::conclude(invocation, &run.record, &resumed.jobs, Done::Ended, format, Map::new());
    }
    invocation.record("run", "detached", Map::new());
    if format == Format::Json {
        let going: Vec<_> = resumed
            .going
            .iter()
            .map(|(name, phase)| json!({"job": name.id, "model": name.model, "state": phase}))
            .collect();
        println!("{}", render::json(&json!({"run": run.record.run, "going": going})));
    }
    say_going(run, resumed);
    Ok(if resumed.interrupted { Exit::Interrupted } else { so_far(resumed, run) })
}

/// Jobs that still go on, one line each.
fn say_going(run: &Earlier, resumed: &Resumed) {
    for (name, phase) in &resumed.going {
        let phase = if phase.is_empty() { "no verdict yet" } else { phase };
        eprintln!("{}: {phase}", name.id);
    }
    let id = &run.record.run;
    match resumed.going.len() {
        0 => {}
        1 => eprintln!("1 job of run {id} goes on"),
        several => eprintln!("{several} jobs of run {id} go on"),
    }
}

/// While some go on, what is known of the others decides.
fn so_far(resumed: &Resumed, run: &Earlier) -> Exit {
    outcome::exit_code(&resumed.jobs, Done::Ended, run.record.build_failed)
}

/// A run to which nothing can happen any more.
fn over(run: &Earlier, later: &Later) -> Outcome {
    let invocation = run.invocation(None, later, false)?;
    let seen = run.jobs();
    if !seen.going.is_empty() {
        let palette = style::Palette::of_stderr();
        eprintln!("{}: {} jobs were not begun when the run ended", palette.warn("warning"), seen.going.len());
    }
    let done = if run.was_interrupted() { Done::Interrupted } else { Done::Ended };
    outcome::conclude(&invocation, &run.record, &seen.jobs, done, later.format(), Map::new())
}
