//! One job to its end, and what is left of it: verdict, rows, logs, and the files that go by the compatible names.

use std::path::Path;

use serde_json::Value;

use super::prepare::Ready;
use super::{JobReport, Outcome, Shared, Work};
use crate::capability::process::supervise::OUTPUT_FILE;
use crate::pipeline::collected;
use crate::pipeline::event::{Event, Gravity};
use crate::pipeline::execute::{self, Begin, Executed, Order};
use crate::pipeline::image::Image;
use crate::pipeline::job::{self};
use crate::pipeline::keeper::Keeper;
use crate::pipeline::record::{self, Judged};
use crate::pipeline::recorded::Entry;
use crate::pipeline::resume::JobRecord;
use crate::plugin::PluginError;
use crate::plugin::manifest::Kind;
use crate::results::row::{JobFacts, Row};
use crate::results::run_directory::JOB_FILE;

/// What became of a job that was to be executed.
pub(super) enum Execution {
    /// It is over; whether policy refused something that it needed.
    Judged(Box<Judged>, bool),
    /// It goes on without this process.
    Left,
    /// It was to be launched when this process was told to leave.
    Unlaunched,
}

impl Shared {
    pub(super) async fn execute(&self, work: &Work, ready: &Ready, facts: JobFacts) -> Execution {
        let job = &ready.job;
        let record = JobRecord {
            nodes: job.topology.nodes,
            reporting_nodes: job::reporting_nodes(job),
            replicas: job::is_replicated(job),
            time_limit: job.time_limit,
            collect: job.collect.clone(),
            secrets: ready.secrets.clone(),
            ..JobRecord::planned(&job.id, work, facts)
        };
        self.conclude(record, Begin::Launch(job)).await
    }

    /// A job to its verdict, whether it begins here or was launched by another process.
    pub(super) async fn conclude(&self, record: JobRecord, begin: Begin<'_>) -> Execution {
        let place = &self.place;
        let (id, work) = (record.id.as_str(), &record.work);
        let launches = matches!(begin, Begin::Launch(_));
        let directory = place.directory.path().join("jobs").join(id);
        let log = directory.join("run.log");
        place.events.emit(&Event::JobStarted { job: id.to_owned(), model: work.card.name.clone(), log: log.clone() });
        let keeper = match self.keeper(&record, launches) {
            Ok(keeper) => keeper,
            Err(error) => {
                let executed = Executed { problems: vec![error], ..Executed::default() };
                return self.judge(&record, &log, executed).await;
            }
        };
        let order = Order {
            target: &self.target.plugin,
            features: &self.target.info.features,
            id,
            nodes: record.nodes,
            time_limit: record.time_limit,
            keep_alive: self.options.keep_alive,
            log: &log,
            events: &place.events,
            stop: place.stop.clone(),
            keeper: Some(&keeper),
            secrets: place.context.secrets.values().into_iter().map(str::to_owned).collect(),
        };
        let executed = execute::execute(&place.session(), order, begin).await.unwrap_or_else(|error| Executed {
            problems: vec![format!("its log `{}` cannot be opened: {error}", log.display())],
            ..Executed::default()
        });
        for problem in &executed.problems {
            place.events.say(Gravity::Error, id, problem);
        }
        if executed.left {
            return Execution::Left;
        }
        if executed.interrupted && executed.ending.is_none() && executed.collection.is_none() && keeper.leaves() {
            // Its launch was cut off; it has its verdict with those that are left.
            return Execution::Unlaunched;
        }
        self.judge(&record, &log, executed).await
    }

    /// Who sees to it that another process can go on; everything that it needs is written before the launch.
    fn keeper(&self, record: &JobRecord, launches: bool) -> Result<Keeper, String> {
        let place = &self.place;
        let records = place.records.clone().ok_or_else(|| "nothing is kept of it".to_owned())?;
        if launches {
            records
                .write_job(record)
                .map_err(|error| format!("what a later process needs cannot be written: {error}"))?;
        }
        Ok(Keeper {
            records,
            job: record.clone(),
            context: place.context.clone(),
            manner: place.manner,
            progress: place.progress.clone(),
        })
    }

    async fn judge(&self, record: &JobRecord, log: &Path, mut executed: Executed) -> Execution {
        let place = &self.place;
        let (id, work) = (record.id.as_str(), &record.work);
        if let Some(collection) = &mut executed.collection {
            let directory = place.directory.path().join("jobs").join(id);
            for problem in collected::keep_own(collection, &directory, &record.collect, &self.options.output) {
                place.events.say(Gravity::Warning, id, problem);
            }
        }
        let refused = executed.error.as_ref().is_some_and(PluginError::is_denied);
        let evidence = record::Gathering {
            id,
            card: &work.card,
            config: &place.config,
            tree: &place.context.roots.tree,
            log,
            facts: record.facts.clone(),
            nodes: record.reporting_nodes,
            replicas: record.replicas,
            skip_model: self.options.skip_model,
            worker: self.worker,
        };
        let judged = record::judge(evidence, &executed).await;
        if let Err(error) = record::close_log(log, &work.card.name, &judged) {
            place.events.say(Gravity::Warning, id, format!("cannot end its log: {error}"));
        }
        let directory = place.directory.path().join("jobs").join(id);
        // The log has it all, without the secrets that this file may hold.
        let _ = tokio::fs::remove_file(directory.join(OUTPUT_FILE)).await;
        if !self.options.keep_work && !self.options.keep_alive {
            let workspace = job::workspace(&directory);
            let _ = tokio::fs::remove_dir_all(&workspace).await;
        }
        // The nodes' copy of this program.
        let _ = tokio::fs::remove_dir_all(directory.join("bin")).await;
        Execution::Judged(Box::new(judged), refused)
    }

    /// Writes a job's rows, its views, and its part of the run's directory; says what to do where it failed.
    pub(super) async fn finish(&self, id: String, work: Work, image: String, judged: Judged, refused: bool) -> Outcome {
        let place = &self.place;
        let mut refused = refused;
        let mut reported = true;
        if !self.options.dry_run {
            // Its verdict first: whoever finds it does not record the job again, whatever happens from here on.
            self.record(&id, &work, &judged, refused, false);
            if !judged.rows.is_empty() && place.config.get("skip_perf_collection") != Some(&Value::Bool(true)) {
                let errors = self.report(&id, &judged.rows).await;
                reported = errors.is_empty();
                refused |= errors.iter().any(PluginError::is_denied);
            }
            self.views(&id, &work, &judged);
            self.record(&id, &work, &judged, refused, reported);
        }
        place.events.emit(&Event::JobEnded {
            job: id.clone(),
            model: work.card.name.clone(),
            status: judged.verdict.status().into(),
            reason: judged.reason.clone(),
            seconds: judged.duration,
        });
        if let Some(hint) = &judged.hint {
            place.events.say(Gravity::Info, &id, format!("hint: {hint}"));
        }
        let model = work.card.name;
        Outcome::Report(Box::new(JobReport { id, model, image, judged, refused, unplannable: false, reported }))
    }

    /// Every reporter that answers to `run` gets the rows. Answers what went wrong, which is said.
    async fn report(&self, id: &str, rows: &[Row]) -> Vec<PluginError> {
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
        let mut errors = Vec::new();
        for entry in plugins {
            let written = match place.plugins.load(entry) {
                Ok(plugin) => plugin.report(&place.session(), &request).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                let rows = place.directory.path().join("jobs").join(id).join(JOB_FILE);
                place.events.say(Gravity::Error, id, format!("{error}; its rows are in `{}`", rows.display()));
                errors.push(error);
            }
        }
        errors
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
    }

    fn record(&self, id: &str, work: &Work, judged: &Judged, refused: bool, reported: bool) {
        let entry = Entry {
            id,
            model: &work.card.name,
            image: work.image.as_ref().map(Image::reference),
            digest: work.image.as_ref().and_then(|image| image.image_digest.as_deref()),
            judged,
            refused,
        };
        if let Err(error) = entry.write(&self.place.directory, reported) {
            self.place.events.say(Gravity::Error, id, format!("cannot write `{JOB_FILE}`: {error}"));
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
