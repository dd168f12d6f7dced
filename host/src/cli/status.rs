//! `maddock status`

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::args::{Format, Status};
use super::earlier::{self, Earlier};
use super::failure::{Failure, Outcome};
use super::invocation::Invocation;
use super::render;
use super::{Exit, runs, style, table};
use crate::capability::events::printable;
use crate::pipeline::execute::phase_word;
use crate::pipeline::recorded::Recorded;
use crate::pipeline::resume::JobName;
use crate::pipeline::run::Chosen;

/// How long asking for one job may take.
const ASKING: Duration = Duration::from_secs(30);

/// Says where the jobs of a run are.
///
/// # Errors
/// There is no such run. A target that does not answer for a job is no error but exit 1.
pub async fn run(arguments: &Status) -> Outcome {
    let run = Earlier::find(&arguments.run)?;
    let attended = run.attendant()?;
    let seen = run.jobs();
    let mut lines: Vec<Line> = Vec::new();
    if seen.finished() || run.is_over() {
        lines.extend(seen.going.iter().map(|(name, _)| Line::new(name, "not begun", String::new())));
    } else {
        let invocation = run.invocation(None, &arguments.later, false)?;
        let target = earlier::target(&invocation, &run.record)?;
        let asked = seen.going.iter().map(|(name, _)| ask(&run, &invocation, &target, name, attended.is_some()));
        lines.extend(join_all(asked).await);
    }
    lines.extend(seen.jobs.iter().map(Line::recorded));
    let place = |id: &str| run.record.jobs.iter().position(|job| job.id == id);
    lines.sort_by_key(|line| place(&line.id));
    let state = runs::state(&run, attended.is_some());
    match arguments.later.format() {
        Format::Json => {
            let jobs: Vec<Value> = lines.iter().map(Line::json).collect();
            let whole = json!({
                "run": run.record.run,
                "state": state,
                "detached": run.record.detached,
                "attendant": attended.clone().flatten(),
                "directory": run.directory.path(),
                "target": run.record.target.plugin,
                "jobs": jobs,
            });
            println!("{}", render::json(&whole));
        }
        Format::Text => {
            let by = match &attended {
                Some(Some(who)) => format!(" by {} (`maddock {}`)", who.words(), who.command),
                _ => String::new(),
            };
            let title = format!("run {}: {state}{by}", run.record.run);
            let rows: Vec<Vec<String>> = lines.iter().map(Line::cells).collect();
            table::print(&title, &["Job", "State", "Details"], &rows);
        }
    }
    Ok(if lines.iter().any(|line| line.unanswered) { Exit::Failure } else { Exit::Success })
}

struct Line {
    id: String,
    model: String,
    state: String,
    details: String,
    unanswered: bool,
}

impl Line {
    fn new(name: &JobName, state: &str, details: String) -> Self {
        let (id, model) = (name.id.clone(), name.model.clone());
        Self { id, model, state: state.to_owned(), details, unanswered: false }
    }

    fn recorded(job: &Recorded) -> Self {
        Self {
            id: job.id.clone(),
            model: job.model.clone(),
            state: job.status.clone(),
            details: job.reason.clone().or_else(|| job.performance.clone()).unwrap_or_default(),
            unanswered: false,
        }
    }

    fn json(&self) -> Value {
        json!({"job": self.id, "model": self.model, "state": self.state, "details": self.details})
    }

    fn cells(&self) -> Vec<String> {
        let palette = style::Palette::of_stdout();
        let state = match self.state.as_str() {
            "FAILURE" => palette.bad(&self.state),
            "SUCCESS" => palette.good(&self.state),
            other => other.to_owned(),
        };
        vec![self.id.clone(), state, printable(&self.details)]
    }
}

/// Where a job without a verdict is.
async fn ask(run: &Earlier, invocation: &Invocation, target: &Chosen, name: &JobName, attended: bool) -> Line {
    let unanswered = |details: String| Line { unanswered: true, ..Line::new(name, "unknown", details) };
    let launched = match run.job(&name.id) {
        Ok(record) => record.launched,
        Err(Failure { message, .. }) => return unanswered(message),
    };
    let Some(launched) = launched else {
        let state = if attended { "waiting" } else { "never launched" };
        return Line::new(name, state, String::new());
    };
    let session = invocation.session().for_job(&name.id).within(Some(ASKING));
    let answer = target.plugin.job_status(&session, &launched.handle).await;
    // It may have got its verdict while it was asked for, and what it ran in is gone by now.
    if let Some(recorded) = Recorded::read(&run.directory, &name.id) {
        return Line::recorded(&recorded);
    }
    match answer {
        Ok(status) => Line::new(name, phase_word(status.phase), status.reason),
        Err(error) => unanswered(error.to_string()),
    }
}
