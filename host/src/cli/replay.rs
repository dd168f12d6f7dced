//! `maddock replay`

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::{Format, Replay};
use super::earlier;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::setup::Setup;
use super::style;
use crate::capability::events::printable;
use crate::capability::secrets::SecretStore;
use crate::capability::tape::Recording;
use crate::capability::tape::playback::{Divergence, Finding, Seen};
use crate::capability::tape::recording::{Call, RecordingError};
use crate::capability::trace::Trace;
use crate::pipeline::replay::{self, JobReplay, Records, Replayed, first_difference};
use crate::pipeline::resume::{self, RunRecord};
use crate::plugin::Plugin;
use crate::results::run_directory::{JOB_FILE, RunDirectory};

/// Characters of a value in a message.
const SHOWN: usize = 300;

/// Plays a run again and compares.
///
/// # Errors
/// There is no recording, or a plugin of it is not here.
pub async fn run(arguments: &Replay) -> Outcome {
    let (directory, run) = earlier::find_anywhere(&arguments.run)?;
    let recording = Recording::read(directory.path()).map_err(|error| missing(&error))?;
    let record = resume::read_run(&directory).ok();
    let setup = setup(arguments, &run, record.as_ref())?;
    let id = directory.id().as_str().to_owned();
    let context = setup.context_in(id, directory.path(), Trace::none(), SecretStore::default())?;
    let jobs = jobs(arguments, &directory, record.as_ref(), &recording)?;
    let wanted = |call: &Call| arguments.jobs.is_empty() || call.job.as_ref().is_some_and(|job| jobs.contains(job));
    let mut report = Report::of(&directory, &recording);
    let mut plugins: BTreeMap<(String, String), Plugin> = BTreeMap::new();
    for call in recording.calls.into_iter().filter(wanted) {
        let key = (call.plugin.clone(), call.digest.clone());
        let plugin = match plugins.get(&key) {
            Some(plugin) => plugin.clone(),
            None => {
                let (plugin, same) = replay::plugin(&setup.plugins, &call).map_err(cannot)?;
                if !same {
                    report.strangers.push((
                        call.plugin.clone(),
                        call.digest.clone(),
                        plugin.loaded().identity.digest.clone(),
                    ));
                }
                plugins.insert(key, plugin.clone());
                plugin
            }
        };
        report.calls.push(replay::play(&plugin, &context, call).await.map_err(cannot)?);
    }
    if let Some(record) = &record {
        for id in &jobs {
            report.judge(&directory, record, id).await?;
        }
    }
    match arguments.later.format() {
        Format::Json => println!("{:#}", report.json()),
        Format::Text => report.print(),
    }
    Ok(report.exit())
}

fn missing(error: &RecordingError) -> Failure {
    let failure = Failure::new(Exit::Failure, error);
    match error {
        RecordingError::Missing(_) => failure
            .hint("it was removed as one of the older ones, or `MADDOCK_RECORDING=off` was set when it was run")
            .hint("its trace is there all the same: `maddock trace show`"),
        _ => failure,
    }
}

fn cannot(error: replay::ReplayError) -> Failure {
    let failure = Failure::new(Exit::Failure, &error);
    match error {
        replay::ReplayError::NoPlugin(_) => failure.hint("load it by `--plugin FILE`"),
        _ => failure,
    }
}

fn setup(arguments: &Replay, run: &Value, record: Option<&RunRecord>) -> Result<Setup, Failure> {
    let place = |name: &str| run.get(name).and_then(Value::as_str).unwrap_or_default().into();
    let directories = match record {
        Some(record) => [record.tree.clone(), record.output.clone(), record.results.clone()],
        None => [place("tree"), place("output"), Default::default()],
    };
    Setup::with(directories, &arguments.later.given())
}

/// The jobs whose verdicts are wanted.
fn jobs(
    arguments: &Replay,
    directory: &RunDirectory,
    record: Option<&RunRecord>,
    recording: &Recording,
) -> Result<Vec<String>, Failure> {
    let mut known: Vec<(String, String)> = record
        .map(|record| record.jobs.iter().map(|job| (job.id.clone(), job.model.clone())).collect())
        .unwrap_or_default();
    for job in recording.calls.iter().filter_map(|call| call.job.clone()) {
        if !known.iter().any(|(id, _)| *id == job) {
            known.push((job.clone(), job));
        }
    }
    let mut ids = Vec::new();
    for text in &arguments.jobs {
        let found: Vec<_> = known.iter().filter(|(id, model)| id == text || model == text).collect();
        if found.is_empty() {
            let names: Vec<&String> = known.iter().map(|(id, _)| id).collect();
            return Err(Failure::new(Exit::Arguments, format!("run {} has no job `{text}`", directory.id()))
                .hint(format!("its jobs are {}", crate::config::nearest::listed(&names, "and"))));
        }
        ids.extend(found.into_iter().map(|(id, _)| id.clone()));
    }
    Ok(if arguments.jobs.is_empty() { known.into_iter().map(|(id, _)| id).collect() } else { ids })
}

/// What came of it all.
struct Report {
    run: String,
    calls: Vec<Replayed>,
    jobs: Vec<JobReplay>,
    /// Plugin, recorded digest, the one that is here.
    strangers: Vec<(String, String, String)>,
    /// Why the recording is not whole, though the run may have been.
    incomplete: Vec<String>,
    /// What else there is to say.
    notes: Vec<String>,
    damaged: Vec<usize>,
}

impl Report {
    fn of(directory: &RunDirectory, recording: &Recording) -> Self {
        let mut report = Self {
            run: directory.id().as_str().to_owned(),
            calls: Vec::new(),
            jobs: Vec::new(),
            strangers: Vec::new(),
            incomplete: Vec::new(),
            notes: Vec::new(),
            damaged: recording.damaged.clone(),
        };
        if let Some(why) = &recording.stopped {
            report.incomplete.push(format!("the recording stopped before the run did: {why}"));
        }
        if recording.torn {
            report.notes.push("the last line of the recording is cut off: its writer was killed".to_owned());
        }
        if !recording.damaged.is_empty() && recording.stopped.is_none() {
            let lines: Vec<String> = recording.damaged.iter().take(5).map(ToString::to_string).collect();
            report.incomplete.push(format!("lines of the recording cannot be read: {}", lines.join(", ")));
        }
        let blind = recording.calls.iter().filter(|call| call.blind).count();
        if blind > 0 {
            report.incomplete.push(format!("{blind} calls looked at a clock more often than is kept"));
        }
        report
    }

    async fn judge(&mut self, directory: &RunDirectory, run: &RunRecord, id: &str) -> Result<(), Failure> {
        let path = directory.job_path(id).map(|path| path.join(JOB_FILE));
        let recorded = path.and_then(std::fs::read).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let Some(recorded) = recorded else {
            self.notes.push(format!("job {id} has no verdict to compare with"));
            return Ok(());
        };
        let Ok(job) = resume::read_job(directory, id) else {
            self.notes.push(format!("job {id} was not set up: its verdict rests on no call of a plugin"));
            return Ok(());
        };
        let records = Records { directory: directory.path(), run, job: &job, recorded: &recorded };
        let judged = replay::judge(&records, &mut self.calls).await.map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot write a temporary file to judge job {id}: {error}"))
        })?;
        match judged {
            Some(judged) => self.jobs.push(judged),
            None => self.notes.push(format!("job {id} never came to its target: its verdict rests on no call of it")),
        }
        Ok(())
    }

    fn differing(&self) -> impl Iterator<Item = (&Replayed, &Divergence)> {
        self.calls.iter().filter_map(|call| match &call.finding {
            Finding::Differs(divergence) => Some((call, divergence.as_ref())),
            Finding::Same | Finding::CutOff => None,
        })
    }

    fn cut_off(&self) -> usize {
        self.calls.iter().filter(|call| call.finding == Finding::CutOff).count()
    }

    fn differs(&self) -> bool {
        self.differing().next().is_some() || self.jobs.iter().any(|job| !job.differences.is_empty())
    }

    fn exit(&self) -> Exit {
        if self.differs() {
            Exit::Diverged
        } else if !self.incomplete.is_empty() {
            Exit::Failure
        } else {
            Exit::Success
        }
    }

    fn host_calls(&self) -> usize {
        self.calls.iter().map(|call| call.host_calls).sum()
    }

    fn print(&self) {
        let palette = style::Palette::of_stderr();
        for (plugin, recorded, here) in &self.strangers {
            eprintln!("{}: plugin `{plugin}` is another build than the recorded one", palette.warn("warning"));
            eprintln!("  recorded {recorded}\n  here     {here}");
        }
        println!("run {}: {} calls of plugins, {} host calls", self.run, self.calls.len(), self.host_calls());
        for job in &self.jobs {
            let judged = &job.judged;
            let performance = judged.performance.as_deref().map(|text| format!(", {text}")).unwrap_or_default();
            let compared = if job.differences.is_empty() { "as recorded" } else { "not as recorded" };
            let line = format!("  {}: {}{performance}: {compared}", job.id, judged.verdict.status());
            println!("{}", printable(&line));
            for (place, was, is) in &job.differences {
                println!("    {}", printable(place));
                println!("      recorded {}\n      replayed {}", short(was), short(is));
            }
            for note in &job.notes {
                println!("    {}", printable(note));
            }
        }
        for note in &self.notes {
            println!("  {}", printable(note));
        }
        if self.cut_off() > 0 {
            println!("  {} calls were ended by the host or cut off, and go as far as recorded", self.cut_off());
        }
        let mut differing = self.differing();
        if let Some((call, divergence)) = differing.next() {
            eprintln!("{}: the replay differs from the recording", palette.bad("error"));
            for line in told(call, divergence) {
                eprintln!("  {line}");
            }
            let others = differing.count();
            if others > 0 {
                eprintln!("  {others} other calls differ too");
            }
        } else if self.differs() {
            eprintln!("{}: the calls are as recorded, and what was made of them is not", palette.bad("error"));
        }
        for why in &self.incomplete {
            eprintln!("{}: {}", palette.bad("error"), printable(why));
        }
        if self.exit() == Exit::Success {
            println!("the same to the last bit, with nothing asked of this machine");
        }
    }

    fn json(&self) -> Value {
        let side = |seen: &Seen| match seen {
            Seen::Call(name, ask) => json!({"call": name, "ask": ask}),
            Seen::End(end) => json!({"end": end}),
            Seen::Words(words) => json!({"words": words}),
        };
        let divergences: Vec<Value> = self
            .differing()
            .map(|(call, divergence)| {
                json!({
                    "plugin": call.call.plugin,
                    "function": call.call.function,
                    "job": call.call.job,
                    "call": call.call.id,
                    "host_call": divergence.number,
                    "recorded": side(&divergence.recorded),
                    "replayed": side(&divergence.replayed),
                })
            })
            .collect();
        let jobs: Vec<Value> = self
            .jobs
            .iter()
            .map(|job| {
                let differences: Vec<Value> = job
                    .differences
                    .iter()
                    .map(|(place, was, is)| json!({"at": place, "recorded": was, "replayed": is}))
                    .collect();
                json!({
                    "job": job.id,
                    "verdict": job.judged.verdict.status(),
                    "performance": job.judged.performance,
                    "differences": differences,
                    "notes": job.notes,
                })
            })
            .collect();
        json!({
            "run": self.run,
            "same": !self.differs(),
            "complete": self.incomplete.is_empty(),
            "calls": self.calls.len(),
            "host_calls": self.host_calls(),
            "cut_off": self.cut_off(),
            "divergences": divergences,
            "jobs": jobs,
            "other_builds": self.strangers.iter().map(|(plugin, recorded, here)| json!({"plugin": plugin, "recorded": recorded, "here": here})).collect::<Vec<_>>(),
            "incomplete": self.incomplete,
            "damaged_lines": self.damaged,
            "notes": self.notes,
        })
    }
}

fn short(value: &Value) -> String {
    shortened(&value.to_string())
}

fn shortened(text: &str) -> String {
    let mut text = printable(text);
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Where two sides part, in lines for a person.
fn told(call: &Replayed, divergence: &Divergence) -> Vec<String> {
    let recorded = &call.call;
    let job = recorded.job.as_deref().map(|job| format!(", job {job}")).unwrap_or_default();
    let place = match divergence.number {
        Some(number) => format!("host call {}", number.saturating_add(1)),
        None => "its end".to_owned(),
    };
    let mut lines = vec![printable(&format!("`{}` of {}{job}: {place}", recorded.function, recorded.plugin))];
    let words = |seen: &Seen| match seen {
        Seen::Call(name, _) => name.clone(),
        Seen::End(Value::Object(end)) => match end.keys().next().map(String::as_str) {
            Some("ok") => "the call ends with an answer".to_owned(),
            Some("error") => "the call ends with an error".to_owned(),
            _ => "the call is ended".to_owned(),
        },
        Seen::End(_) => "the call ends".to_owned(),
        Seen::Words(words) => words.clone(),
    };
    let (was, is) = (words(&divergence.recorded), words(&divergence.replayed));
    let bodies = match (&divergence.recorded, &divergence.replayed) {
        (Seen::Call(was, recorded), Seen::Call(is, replayed)) if was == is => first_difference(recorded, replayed),
        (Seen::End(recorded), Seen::End(replayed)) => first_difference(recorded, replayed),
        _ => None,
    };
    lines.push(printable(&format!("recorded {was}")));
    lines.push(printable(&format!("replayed {is}")));
    if let Some((place, was, is)) = bodies {
        lines.push(format!("at {}", printable(&place)));
        lines.push(format!("  recorded {}", short(&was)));
        lines.push(format!("  replayed {}", short(&is)));
    } else if let (_, Seen::Call(_, ask)) = (&divergence.recorded, &divergence.replayed) {
        lines.push(format!("asks {}", short(ask)));
    }
    if recorded.masked {
        lines.push("a secret was masked in this call's record, which may be the reason".to_owned());
    }
    lines
}
