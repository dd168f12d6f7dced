//! What a person sees while builds and runs go on: messages on stderr, progress where stderr is a terminal, and the
//! models' own output on stdout where it was asked for.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{render, style};
use crate::capability::events::{printable, printable_lines};
use crate::pipeline::event::{Event, Gravity, Listener};

/// Prints events.
#[derive(Debug)]
pub struct Terminal {
    live_output: bool,
    verbose: bool,
    palette: style::Palette,
    progress: Option<MultiProgress>,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Terminal {
    /// A printer for this process's terminal, or for pipes.
    #[must_use]
    pub fn new(live_output: bool, verbose: bool) -> Self {
        let shows_progress = std::io::stderr().is_terminal() && !live_output;
        Self {
            live_output,
            verbose,
            palette: style::Palette::of_stderr(),
            progress: shows_progress.then(MultiProgress::new),
            bars: Mutex::default(),
        }
    }

    fn line(&self, text: &str) {
        match &self.progress {
            // Without this the line and the bars would overwrite each other.
            Some(progress) => {
                let _ = progress.println(text);
            }
            None => eprintln!("{text}"),
        }
    }

    fn begin(&self, of: &str, text: String) {
        let Some(progress) = &self.progress else { return self.line(&text) };
        let bar = progress.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(text);
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).insert(of.to_owned(), bar);
    }

    /// `worth_a_line` also where nothing shows what goes on: whoever reads a log wants to know it.
    fn update(&self, of: &str, text: &str, worth_a_line: bool) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).get(of) {
            bar.set_message(format!("{of}: {text}"));
        } else if self.verbose || worth_a_line {
            self.line(&format!("{of}: {text}"));
        }
    }

    fn end(&self, of: &str, text: &str) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).remove(of) {
            bar.finish_and_clear();
        }
        self.line(text);
    }
}

impl Listener for Terminal {
    fn hear(&self, event: &Event) {
        let palette = self.palette;
        match event {
            Event::BuildStarted { image, model, .. } => {
                self.begin(image, format!("building {} for {}", printable(image), printable(model)))
            }
            Event::BuildEnded { image, seconds, error: None, .. } => {
                self.end(
                    image,
                    &format!(
                        "{} {} in {}",
                        palette.good("built"),
                        printable(image),
                        render::duration(&seconds.to_string())
                    ),
                );
            }
            Event::BuildEnded { image, error: Some(error), .. } => {
                self.end(image, &format!("{} {}: {}", palette.bad("not built"), printable(image), printable(error)));
            }
            Event::JobStarted { job, model, .. } => self.begin(job, format!("running {}", printable(model))),
            Event::JobState { job, phase, reason } => {
                let text =
                    if reason.is_empty() { phase.to_string() } else { format!("{phase} ({})", printable(reason)) };
                // A job may wait for days, and its reason may be one that never passes.
                self.update(job, &text, *phase == "queued" && !reason.is_empty());
            }
            Event::Progress { of, activity, done, total } => {
                let amount = match (done, total) {
                    (Some(done), Some(total)) if *total > 0 => format!(" {}%", done.saturating_mul(100) / total),
                    _ => String::new(),
                };
                self.update(of, &format!("{}{amount}", printable(activity)), false);
            }
            Event::JobEnded { job, model, status, reason, seconds } => {
                let time = seconds
                    .map(|seconds| format!(" in {}", render::duration(&seconds.to_string())))
                    .unwrap_or_default();
                let because = reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
                let word = if status == "FAILURE" { palette.bad(status) } else { palette.good(status) };
                self.end(job, &format!("{word} {}{time}{because}", printable(model)));
            }
            Event::Output { bytes, .. } if self.live_output => {
                let mut out = std::io::stdout().lock();
                // Whoever closed the pipe has read enough; the log has everything.
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            }
            Event::Message { gravity, about, text } => {
                let about = if about.is_empty() { String::new() } else { format!("{}: ", printable(about)) };
                let text = printable_lines(text);
                match gravity {
                    Gravity::Debug if !self.verbose => {}
                    Gravity::Debug | Gravity::Info => self.line(&format!("{about}{text}")),
                    Gravity::Warning => self.line(&format!("{}: {about}{text}", palette.warn("warning"))),
                    Gravity::Error => self.line(&format!("{}: {about}{text}", palette.bad("error"))),
                }
            }
            Event::Output { .. }
            | Event::RunStarted { .. }
            | Event::RunLeft { .. }
            | Event::RunResumed { .. }
            | Event::RunEnded { .. } => {}
        }
    }
}
