//! How a run ends, or is left, for those who asked: tables, summary, exit code. The same for the process that began the run
//! and for one that finishes it.

use serde_json::{Map, Value, json};

use super::args::Format;
use super::exit::Exit;
use super::failure::Outcome;
use super::invocation::{self, Invocation};
use super::{performance, render, style, table};
use crate::capability::events::printable;
use crate::pipeline::recorded::Recorded;
use crate::pipeline::resume::{JobName, RunRecord};
use crate::results::attendance;

/// Why this process has done with the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// All that was to be done is.
    Ended,
    /// Somebody asked it to stop.
    Interrupted,
}

/// The end of a run all of whose jobs have their verdict, or that was interrupted: records it and prints it.
///
/// # Errors
/// The summary cannot be written where the user wants it.
pub fn conclude(
    invocation: &Invocation,
    run: &RunRecord,
    jobs: &[Recorded],
    done: Done,
    format: Format,
    members: Map<String, Value>,
) -> Outcome {
    let rows = performance::row_count(&run.options.output);
    let summary = summary(jobs, run.first_row, rows);
    if invocation.attendance.is_some() {
        let cancelled = attendance::is_cancel_asked(invocation.directory.path(), None);
        let state = match done {
            _ if cancelled => "cancelled",
            Done::Ended => "ended",
            Done::Interrupted => "interrupted",
        };
        let mut members = members;
        members.insert("summary".to_owned(), summary.clone());
        invocation.record("run", state, members);
    }
    print(run, jobs, &summary, format, &invocation.directory.path().display().to_string());
    let exit = exit_code(jobs, done, run.build_failed);
    if let (Some(path), Some(_)) = (&run.summary_output, &invocation.attendance) {
        let whole = if run.build_summary.is_null() {
            summary
        } else {
            let success = !run.build_failed && exit == Exit::Success;
            json!({"build_phase": run.build_summary, "run_phase": summary, "overall_success": success})
        };
        invocation::write_json(&invocation::absolute(&invocation.setup.output, path), &whole)?;
    }
    Ok(exit)
}

fn print(run: &RunRecord, jobs: &[Recorded], summary: &Value, format: Format, directory: &str) {
    print_results(jobs, format, summary);
    if format == Format::Text {
        performance::print(&run.options.output, run.first_row);
        println!("run {}: {directory}", run.run);
    }
}

/// Jobs go on without this process: says which, and how to see them again.
pub fn say_left(run: &RunRecord, left: &[JobName], unlaunched: &[JobName], format: Format) {
    let id = &run.run;
    let entry = |name: &JobName, state: &str| json!({"job": name.id, "model": name.model, "state": state});
    match format {
        Format::Json => {
            let jobs: Vec<Value> = left
                .iter()
                .map(|name| entry(name, "launched"))
                .chain(unlaunched.iter().map(|name| entry(name, "never launched")))
                .collect();
            println!("{}", render::json(&json!({"run": id, "jobs": jobs})));
        }
        Format::Text => println!("{id}"),
    }
    for name in unlaunched {
        eprintln!("{}: {} was never launched", style::Palette::of_stderr().warn("warning"), printable(&name.model));
    }
    let count = match left.len() {
        1 => "1 job goes on".to_owned(),
        several => format!("{several} jobs go on"),
    };
    eprintln!("{count}; follow by `maddock attach {id}`");
}

/// What the summary file and `run.json` say.
#[must_use]
pub fn summary(jobs: &[Recorded], first_row: usize, rows: usize) -> Value {
    let (failed, fine): (Vec<&Recorded>, Vec<&Recorded>) = jobs.iter().partition(|job| job.failed());
    let successful: Vec<Value> = fine
        .iter()
        .map(|job| {
            json!({
                "model": job.model,
                "image": job.image,
                "status": job.status,
                "performance": job.performance,
                "duration": job.seconds,
            })
        })
        .collect();
    let failures: Vec<Value> = failed
        .iter()
        .map(|job| json!({"model": job.model, "image": job.image, "status": "FAILURE", "error": job.reason}))
        .collect();
    json!({
        "successful_runs": successful,
        "failed_runs": failures,
        "total_runs": jobs.len(),
        "session_start_row": first_row,
        "session_row_count": rows.saturating_sub(first_row),
    })
}

/// The exit code of a run with these jobs.
#[must_use]
pub fn exit_code(jobs: &[Recorded], done: Done, build_failed: bool) -> Exit {
    if done == Done::Interrupted {
        Exit::Interrupted
    } else if jobs.iter().any(|job| job.refused) {
        Exit::Refused
    } else if jobs.iter().any(Recorded::failed) {
        Exit::Run
    } else if build_failed {
        Exit::Build
    } else if jobs.iter().any(|job| !job.reported) {
        Exit::Failure
    } else {
        Exit::Success
    }
}

/// The table of results, or the summary as JSON.
pub fn print_results(jobs: &[Recorded], format: Format, summary: &Value) {
    if format == Format::Json {
        println!("{}", render::json(summary));
        return;
    }
    let palette = style::Palette::of_stdout();
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .enumerate()
        .map(|(index, job)| {
            let status = match job.status.as_str() {
                "SUCCESS" => palette.good("✅ Success"),
                "FAILURE" => palette.bad("❌ Failed"),
                _ => palette.warn("⚠️  SKIPPED"),
            };
            let result = job.reason.clone().or_else(|| job.performance.clone()).unwrap_or_default();
            let seconds = job.seconds.map(|seconds| render::duration(&seconds.to_string())).unwrap_or_default();
            vec![(index + 1).to_string(), status, printable(&job.model), seconds, printable(&result)]
        })
        .collect();
    table::print("⚡ Execution Results", &["Index", "Status", "Model", "Duration", "Result"], &rows);
}
