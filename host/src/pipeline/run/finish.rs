//! One job to its end, and what is left of it: verdict, rows, logs, and the files that go by the compatible names.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::prepare::Ready;
use super::{JobReport, Outcome, Shared, Work};
use crate::capability::process::supervise::OUTPUT_FILE;
use crate::pipeline::event::{Event, Gravity};
use crate::pipeline::execute::{self, Executed, Order};
use crate::pipeline::image::Image;
use crate::pipeline::job::{self};
use crate::pipeline::record::{self, Judged};
use crate::plugin::PluginError;
use crate::plugin::manifest::Kind;
use crate::results::row::{JobFacts, Row};

impl Shared {
    pub(super) async fn execute(&self, id: &str, work: &Work, ready: &Ready, facts: JobFacts) -> (Judged, bool) {
        let place = &self.place;
        let directory = PathBuf::from(&ready.job.paths.directory);
        let log = directory.join("run.log");
        place.events.emit(&Event::JobStarted { job: id.to_owned(), model: work.card.name.clone(), log: log.clone() });
        let order = Order {
            target: &self.target.plugin,
            features: &self.target.info.features,
            job: &ready.job,
            log: &log,
            events: &place.events,
            stop: place.stop.clone(),
            secrets: place.context.secrets.values().into_iter().map(str::to_owned).collect(),
        };
        let executed = execute::execute(&place.session(), order).await.unwrap_or_else(|error| Executed {
            problems: vec![format!("its log `{}` cannot be opened: {error}", log.display())],
            ..Executed::default()
        });
        for problem in &executed.problems {
            place.events.say(Gravity::Error, id, problem);
        }
        let refused = executed.error.as_ref().is_some_and(PluginError::is_denied);
        let evidence = record::Gathering {
            id,
            card: &work.card,
            config: &place.config,
            tree: &place.context.roots.tree,
            log: &log,
            facts,
            nodes: ready.job.topology.nodes,
            skip_model: self.options.skip_model,
            worker: place
                .environment()
                .get("MAD_COLLECT_METRICS")
                .is_some_and(|value| value.eq_ignore_ascii_case("false")),
        };
        let judged = record::judge(evidence, &executed).await;
        if let Err(error) = record::close_log(&log, &work.card.name, &judged) {
            place.events.say(Gravity::Warning, id, format!("cannot end its log: {error}"));
        }
        // The log has it all, without the secrets that this file may hold.
        let _ = tokio::fs::remove_file(directory.join(OUTPUT_FILE)).await;
        if !self.options.keep_work && !self.options.keep_alive {
            let workspace = job::workspace(&directory);
            let _ = tokio::fs::remove_dir_all(&workspace).await;
        }
        // The nodes' copy of this program.
        let _ = tokio::fs::remove_dir_all(directory.join("bin")).await;
        (judged, refused)
    }

    /// Writes a job's rows, its views, and its part of the run's directory; says what to do where it failed.
    pub(super) async fn finish(&self, id: String, work: Work, image: String, judged: Judged, refused: bool) -> Outcome {
        let place = &self.place;
        if !self.options.dry_run {
            if !judged.rows.is_empty() && place.config.get("skip_perf_collection") != Some(&Value::Bool(true)) {
                self.report(&judged.rows).await;
            }
            self.views(&id, &work, &judged);
        }
        place.events.emit(&Event::JobEnded {
            job: id.clone(),
            model: work.card.name.clone(),
            status: judged.verdict.status(),
            reason: judged.reason.clone(),
            seconds: judged.duration,
        });
        if let Some(hint) = &judged.hint {
            place.events.say(Gravity::Info, &id, format!("hint: {hint}"));
        }
        Outcome::Report(Box::new(JobReport { id, model: work.card.name, image, judged, refused, unplannable: false }))
    }

    /// Every reporter that answers to `run` gets the rows.
    async fn report(&self, rows: &[Row]) {
        let place = &self.place;
        let entry = |name: &str, value: String| maddock_bindings::api::types::Entry { name: name.to_owned(), value };
        let request = crate::plugin::report::ReportRequest {
            format: "run".to_owned(),
            rows: rows.iter().cloned().map(Into::into).collect(),
            inputs: Vec::new(),
            output: self.options.output.display().to_string(),
            options: vec![
                entry("directory", place.context.roots.output.display().to_string()),
                entry("cleanup", self.options.cleanup.to_string()),
            ],
        };
        let plugins = place
            .plugins
            .catalog()
            .of_kind(Kind::Reporter)
            .filter(|entry| entry.manifest.provides.iter().any(|name| name == "run"));
        for entry in plugins {
            let written = match place.plugins.load(entry) {
                Ok(plugin) => plugin.report(&place.session(), &request).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                let rows = place.directory.path().join("run.json");
                place.events.say(Gravity::Error, "", format!("{error}; the rows are in `{}`", rows.display()));
            }
        }
    }

    fn views(&self, id: &str, work: &Work, judged: &Judged) {
        let place = &self.place;
        let directory = place.directory.path().join("jobs").join(id);
        let log = directory.join("run.log");
        let output = &place.context.roots.output;
        if log.is_file() {
            // Where there is no image, the target's name stands for it.
            let provided = self.target.plugin.loaded().manifest.provides.first().map_or("run", String::as_str);
            let image = work.image.as_ref().map_or(provided, Image::reference);
            let name = crate::results::run_directory::run_log_name(&work.card.name, image);
            if let Err(error) = crate::results::run_directory::publish(&log, output, &name) {
                place.events.say(Gravity::Warning, id, format!("cannot write `{name}`: {error}"));
            }
            if let Some(image) = &work.image {
                self.combined(id, image, &log, &name);
            }
        }
        // Files of one name come from every node; those of the first stand for the job, the others are in its directory.
        for file in judged.files.iter().filter(|file| file.node == 0) {
            if let Some(name) = Path::new(&file.name).file_name().and_then(|name| name.to_str())
                && let Err(error) = crate::results::run_directory::publish(Path::new(&file.path), output, name)
            {
                place.events.say(Gravity::Warning, id, format!("cannot write `{}`: {error}", file.name));
            }
        }
        let summary = json!({
            "job": id,
            "model": work.card.name,
            "image": work.image.as_ref().map(Image::reference),
            // What was run, where that is known: a tag may have moved since the build.
            "image_digest": judged.image_digest.clone().or_else(|| work.image.as_ref()?.image_digest.clone()),
            "execution": judged.execution,
            "evidence": judged.evidence,
            "verdict": judged.verdict.status(),
            "reason": judged.reason,
            "hint": judged.hint,
            "seconds": judged.duration,
            "rows": judged.rows.iter().map(record::row_json).collect::<Vec<_>>(),
        });
        let written = ensure(&directory).and_then(|()| {
            crate::results::run_directory::replace_file(
                &directory.join("job.json"),
                format!("{summary:#}\n").as_bytes(),
            )
        });
        if let Err(error) = written {
            place.events.say(Gravity::Error, id, format!("cannot write `job.json`: {error}"));
        }
    }

    /// Build log and run log in one file, where the build was part of this invocation's tree.
    fn combined(&self, id: &str, image: &Image, log: &Path, name: &str) {
        let output = &self.place.context.roots.output;
        let build = output.join(&image.log_file);
        let base = name.strip_suffix(".run.live.log").unwrap_or(name);
        if image.log_file.is_empty() || image.log_file != format!("{base}.build.live.log") || !build.is_file() {
            return;
        }
        let rule = "=".repeat(80);
        let heading = format!("\n{rule}\nRUN PHASE LOG\n{rule}\n\n");
        let joined = record::join_logs(&build, &heading, log, &output.join(format!("{base}.live.log")));
        if let Err(error) = joined {
            self.place.events.say(Gravity::Warning, id, format!("cannot write `{base}.live.log`: {error}"));
        }
    }
}

/// A job that failed in its setup has no directory yet.
fn ensure(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)
}
