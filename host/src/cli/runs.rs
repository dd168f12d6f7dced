//! `maddock runs`

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::{Format, Runs};
use super::earlier::{self, Earlier};
use super::failure::Outcome;
use super::render;
use super::{Exit, table};
use crate::results::attendance::Attendant;
use crate::results::run_directory::RunDirectory;

/// Lists the runs of the working directory.
///
/// # Errors
/// They cannot be listed.
pub fn run(arguments: &Runs) -> Outcome {
    let all = earlier::all(&earlier::working_directory()?)?;
    let lines: Vec<Line> = all.into_iter().rev().map(|(directory, run)| Line::of(directory, &run)).collect();
    match arguments.later.format() {
        Format::Json => println!("{}", render::json(&Value::Array(lines.iter().map(Line::json).collect()))),
        Format::Text if lines.is_empty() => eprintln!("there are no runs here"),
        Format::Text => {
            let rows: Vec<Vec<String>> = lines.iter().map(Line::cells).collect();
            table::print("", &["Run", "Started", "Target", "Details", "State"], &rows);
        }
    }
    Ok(Exit::Success)
}

struct Line {
    id: String,
    started: String,
    target: String,
    jobs: BTreeMap<&'static str, usize>,
    state: String,
    attendant: Option<Attendant>,
}

impl Line {
    fn of(directory: RunDirectory, run: &Value) -> Self {
        let text = |name: &str| run.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = directory.id().as_str().to_owned();
        let mut line = Self {
            id,
            started: text("started"),
            target: text("target"),
            jobs: BTreeMap::new(),
            state: text("state"),
            attendant: None,
        };
        // One that failed before it had jobs says so itself.
        let Ok(run) = Earlier::open(directory) else { return line };
        let attended = run.attendant().ok().flatten();
        line.state = state(&run, attended.is_some()).to_owned();
        line.attendant = attended.clone().flatten();
        let jobs = run.jobs();
        for job in &jobs.jobs {
            let word = match job.status.as_str() {
                "SUCCESS" => "good",
                "FAILURE" => "failed",
                _ => "skipped",
            };
            *line.jobs.entry(word).or_default() += 1;
        }
        for (name, _) in &jobs.going {
            let launched = run.job(&name.id).is_ok_and(|job| job.launched.is_some());
            let word = match (run.is_over(), launched, attended.is_some()) {
                (true, ..) => "not begun",
                (false, true, _) => "launched",
                (false, false, true) => "waiting",
                (false, false, false) => "never launched",
            };
            *line.jobs.entry(word).or_default() += 1;
        }
        line
    }

    fn counts(&self) -> String {
        let counts: Vec<String> = self.jobs.iter().map(|(word, count)| format!("{count} {word}")).collect();
        if counts.is_empty() { "no jobs".to_owned() } else { counts.join(", ") }
    }

    fn cells(&self) -> Vec<String> {
        // In the time of the ids.
        let time = self.started.parse::<jiff::Timestamp>().map(|time| time.strftime("%m-%d %H:%M UTC").to_string());
        let started = time.unwrap_or_default();
        let target = self.target.strip_prefix("target-").unwrap_or(&self.target).to_owned();
        vec![self.id.clone(), started, target, self.counts(), self.state.clone()]
    }

    fn json(&self) -> Value {
        json!({
            "run": self.id,
            "started": self.started,
            "target": self.target,
            "jobs": self.jobs,
            "state": self.state,
            "attendant": self.attendant,
        })
    }
}

/// One word for where a run is.
pub fn state(run: &Earlier, attended: bool) -> &str {
    let said = run.run.get("state").and_then(Value::as_str).unwrap_or("unknown");
    match (run.is_over(), attended, run.record.detached) {
        (true, ..) => said,
        (false, true, _) => "attended",
        (false, false, true) => "detached",
        // Its process died without a word.
        (false, false, false) => "abandoned",
    }
}
