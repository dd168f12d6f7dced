//! `maddock run`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{self, Format, Run};
use super::build;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::invocation::{self, Invocation};
use super::setup::Setup;
use super::{performance, render, signals, style, table};
use crate::config::{Effective, Origin};
use crate::pipeline::build::BuildOptions;
use crate::pipeline::card::Card;
use crate::pipeline::event::{Gravity, Stream};
use crate::pipeline::image::Image;
use crate::pipeline::manifest::{Manifest, ManifestImage};
use crate::pipeline::run::{self, Chosen, JobReport, Place, RunOptions, RunReport, TimeLimit, Work};
use crate::pipeline::stage;
use crate::plugin::manifest::Kind;
use crate::results::verdict::Verdict;

/// The target where nothing names one.
const DEFAULT_TARGET: &str = include_str!("../../../presets/default-target");

/// Sections of the context that belong to targets, whether a plugin provides them or not.
const TARGET_SECTIONS: &str = include_str!("../../../presets/target-sections.json");

/// Runs models and records their results.
///
/// # Errors
/// Whatever keeps jobs from beginning. Jobs that fail are no errors but exit 3.
pub async fn run(arguments: Run) -> Outcome {
    let time_limit = time_limit(arguments.timeout)?;
    let mut setup = Setup::new(&arguments.common)?;
    let tags = args::pieces(&arguments.tags);
    let manifest = given_manifest(&arguments, &setup, &tags)?;
    if let (None, Some(tree)) = (&arguments.common.model_dir, manifest.as_ref().and_then(Manifest::tree)) {
        // A tree that is not here any more leaves the working directory, as upstream has it.
        setup.tree = tree.canonicalize().unwrap_or(setup.tree);
    }
    if !arguments.dry_run {
        setup.results = results_directory(&setup, &arguments)?;
        // Results that cannot be written are better known before hours of work.
        writable(&setup.results)?;
    }
    let invocation = Invocation::new(setup, arguments.dry_run, arguments.live_output, arguments.common.verbose)?;
    let stop = signals::stop_token()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot listen to signals: {error}")))?;
    let outcome = phases(&invocation, &arguments, manifest, &tags, time_limit, stop).await;
    if let Err(failure) = &outcome {
        let mut members = Map::new();
        members.insert("error".to_owned(), json!(failure.message));
        invocation.record("run", "failed", members);
    }
    outcome
}

fn time_limit(timeout: i64) -> Result<TimeLimit, Failure> {
    match timeout {
        -1 => Ok(TimeLimit::Default),
        0 => Ok(TimeLimit::Unlimited),
        seconds => u64::try_from(seconds).map(TimeLimit::Seconds).map_err(|_| {
            Failure::new(Exit::Arguments, format!("`--timeout` cannot be {seconds}"))
                .hint("give seconds, 0 for no limit, or -1 for what the model says, else 7200")
        }),
    }
}

/// The manifest to run, where one was given and is there.
fn given_manifest(arguments: &Run, setup: &Setup, tags: &[String]) -> Result<Option<Manifest>, Failure> {
    let file = arguments.manifest_file.as_ref().filter(|file| !file.as_os_str().is_empty());
    match file {
        Some(file) if invocation::absolute(&setup.output, file).exists() => {
            let manifest = Manifest::read(&invocation::absolute(&setup.output, file));
            manifest.map(Some).map_err(|error| Failure::new(Exit::Failure, &error).hint(error.hint.clone()))
        }
        Some(file) if tags.is_empty() => Err(Failure::new(
            Exit::Arguments,
            format!("there is no manifest `{}`, and no tags to build one from", file.display()),
        )
        .hint("select models by `--tags`, or make a manifest by `maddock build`")),
        None if tags.is_empty() => {
            Err(Failure::new(Exit::Arguments, "nothing to run: neither `--tags` nor an existing `--manifest-file`")
                .hint("`maddock discover` lists the models; `--tags all` selects every one"))
        }
        Some(file) => {
            eprintln!(
                "{}: there is no manifest `{}`; building",
                style::Palette::of_stderr().warn("warning"),
                file.display()
            );
            Ok(None)
        }
        None => Ok(None),
    }
}

/// The directory of the results file, made where it is missing.
fn results_directory(setup: &Setup, arguments: &Run) -> Result<PathBuf, Failure> {
    let output = invocation::absolute(&setup.output, &arguments.output);
    let parent = output.parent().unwrap_or(&setup.output);
    std::fs::create_dir_all(parent).and_then(|()| parent.canonicalize()).map_err(|error| {
        Failure::new(Exit::Failure, format!("results cannot be written to `{}`: {error}", output.display()))
    })
}

fn writable(directory: &Path) -> Result<(), Failure> {
    tempfile::Builder::new().prefix(".maddock-").tempfile_in(directory).map(drop).map_err(|error| {
        Failure::new(Exit::Failure, format!("results cannot be written to `{}`: {error}", directory.display()))
    })
}

async fn phases(
    invocation: &Invocation,
    arguments: &Run,
    manifest: Option<Manifest>,
    tags: &[String],
    time_limit: TimeLimit,
    stop: CancellationToken,
) -> Outcome {
    let events = &invocation.events;
    let mut effective = invocation.configuration(&arguments.context, false)?;
    let idle = [
        (arguments.data_config.is_some(), "--data-config"),
        (arguments.force_mirror_local.is_some(), "--force-mirror-local"),
        (arguments.sys_env_details, "--sys-env-details"),
    ];
    for (_, option) in idle.into_iter().filter(|(given, _)| *given) {
        events.say(Gravity::Warning, "", format!("`{option}` has no effect: what it is for is not in this version"));
    }
    let mut build_summary = Value::Null;
    let mut build_failed = false;
    let mut checked_keys = false;
    let (target, works) = match manifest {
        Some(manifest) => {
            effective = manifest.merged_under(&effective).map_err(|error| Failure::new(Exit::Arguments, &error))?;
            let target = choose(invocation, arguments, &effective).await?;
            (target, from_manifest(&manifest))
        }
        None => {
            let target = choose(invocation, arguments, &effective).await?;
            let image = effective.text("MAD_CONTAINER_IMAGE").map(str::to_owned);
            let unknown = if image.is_some() { Exit::Run } else { Exit::Build };
            let cards = signals::unless_stopped(&stop, invocation.select(tags, unknown)).await?;
            let works = match image {
                _ if !target.runs_images(effective.value()) => {
                    cards.into_iter().map(|card| Work { card, image: None }).collect()
                }
                Some(reference) => cards.into_iter().map(|card| given_image(card, &reference)).collect(),
                None => {
                    signals::unless_stopped(&stop, build_defaults(invocation, &mut effective)).await?;
                    let checked = invocation.check_keys(&mut effective, &cards, arguments.context.strict);
                    signals::unless_stopped(&stop, checked).await?;
                    checked_keys = true;
                    let options = build_options(invocation, arguments);
                    let planning = build::plan(invocation, &effective, &cards, &options);
                    let planned = signals::unless_stopped(&stop, planning).await?;
                    let run_options = self::options(invocation, arguments, time_limit)?;
                    let plans = check(invocation, &effective, &target, planned.works(), &run_options, &stop).await?;
                    if arguments.dry_run {
                        planned.print(arguments.common.format);
                        print_plans(&plans, arguments.common.format);
                        return Ok(exit_code(&plans, false));
                    }
                    let manifest = invocation::absolute(&invocation.setup.output, &arguments.manifest_output);
                    let request =
                        build::Request { options: &options, manifest: &manifest, format: arguments.common.format };
                    let phase = planned.run(invocation, &effective, &request, &stop).await?;
                    build_summary = phase.summary.clone();
                    build_failed = !phase.report.failed.is_empty() || !phase.report.unpushed.is_empty();
                    if phase.report.built.is_empty() {
                        return Ok(if phase.report.refused { Exit::Refused } else { Exit::Build });
                    }
                    phase.works
                }
            };
            (target, works)
        }
    };
    if !checked_keys {
        let cards: Vec<Card> = works.iter().map(|work| work.card.clone()).collect();
        let checked = invocation.check_keys(&mut effective, &cards, arguments.context.strict);
        signals::unless_stopped(&stop, checked).await?;
    }

    let options = options(invocation, arguments, time_limit)?;
    let place = place(invocation, &effective, events.clone(), &stop);
    if works.is_empty() {
        events.say(Gravity::Warning, "", "there is nothing to run: the manifest has no images");
    }
    invocation.record("run", "running", description(&effective, &target, &works));
    let first_row = performance::row_count(&options.output);
    let report = run::run(&place, &target, works.clone(), &options).await.map_err(|error| of_run(&error))?;
    if arguments.dry_run {
        print_plans(&report, arguments.common.format);
        return Ok(exit_code(&report, false));
    }
    let summary = summary(&report, first_row, performance::row_count(&options.output));
    let mut members = description(&effective, &target, &works);
    members.insert("summary".to_owned(), summary.clone());
    invocation.record("run", if report.interrupted { "interrupted" } else { "ended" }, members);
    print_results(&report, arguments.common.format, &summary);
    if arguments.common.format == Format::Text {
        performance::print(&options.output, first_row);
        println!("run {}: {}", invocation.directory.id().as_str(), invocation.directory.path().display());
    }
    if let Some(path) = &arguments.summary_output {
        let whole = if build_summary.is_null() {
            summary
        } else {
            let success = !build_failed && exit_code(&report, build_failed) == Exit::Success;
            json!({"build_phase": build_summary, "run_phase": summary, "overall_success": success})
        };
        invocation::write_json(&invocation::absolute(&invocation.setup.output, path), &whole)?;
    }
    Ok(exit_code(&report, build_failed))
}

fn given_image(card: Card, reference: &str) -> Work {
    let image = Image {
        key: format!("local-{}", card.name.replace('/', "_")),
        docker_image: reference.to_owned(),
        local_image: true,
        dockerfile: "N/A (local image mode)".to_owned(),
        build_duration: Some(0.0),
        ..Image::default()
    };
    Work { card, image: Some(image) }
}

fn from_manifest(manifest: &Manifest) -> Vec<Work> {
    manifest.images().map(|image| Work { card: card_of(&image), image: Some(Image::of_manifest(&image)) }).collect()
}

/// The card that a manifest keeps; which plugin found it does not matter any more.
fn card_of(image: &ManifestImage<'_>) -> Card {
    let mut card = Card {
        name: image.model_name().to_owned(),
        tags: Vec::new(),
        source: String::new(),
        plugin: String::new(),
        model: image.model.clone(),
    };
    card.tags = card.list("tags");
    card
}

/// What a run's own build needs to be chosen: this machine's vendor first, then the defaults of builds.
async fn build_defaults(invocation: &Invocation, effective: &mut Effective) -> Result<(), Failure> {
    let detected = run::detect(&invocation.setup.plugins, &invocation.session(), effective.value(), &invocation.events)
        .await
        .map_err(|error| Failure::of_plugin(Exit::Run, &error))?;
    if let Some(inventory) = detected {
        let origin = Origin::Detected { plugin: inventory.vendor.clone() };
        effective.set_if_absent("gpu_vendor", json!(inventory.vendor), origin.clone());
        if let Some(architecture) = crate::pipeline::job::variable(Some(&inventory), "MAD_SYSTEM_GPU_ARCHITECTURE") {
            effective.set_if_absent("docker_build_arg.MAD_SYSTEM_GPU_ARCHITECTURE", json!(architecture), origin);
        }
    }
    effective.add_build_defaults().map_err(|error| invocation::of_configuration(&error))
}

fn build_options(invocation: &Invocation, arguments: &Run) -> BuildOptions {
    BuildOptions {
        architectures: Vec::new(),
        registry: arguments.registry.clone(),
        no_cache: arguments.clean_docker_cache,
        log_directory: invocation.setup.output.clone(),
    }
}

/// Plans every job before the first effect: what can never run is refused by name now, not after its image was built.
async fn check(
    invocation: &Invocation,
    effective: &Effective,
    target: &Chosen,
    works: Vec<Work>,
    options: &RunOptions,
    stop: &CancellationToken,
) -> Result<RunReport, Failure> {
    let place = place(invocation, effective, Stream::default(), stop);
    let options = RunOptions { dry_run: true, jobs: 1, ..options.clone() };
    let report = run::run(&place, target, works, &options).await.map_err(|error| of_run(&error))?;
    match report.jobs.iter().find(|job| job.unplannable) {
        None => Ok(report),
        Some(job) => {
            let exit = if job.refused { Exit::Refused } else { Exit::Arguments };
            let reason = job.judged.reason.as_deref().unwrap_or_default();
            Err(Failure::new(exit, format!("{}: {reason}", job.model)).maybe_hint(job.judged.hint.clone()))
        }
    }
}

fn place(invocation: &Invocation, effective: &Effective, events: Stream, stop: &CancellationToken) -> Place {
    Place {
        plugins: invocation.setup.plugins.clone(),
        context: invocation.context.clone(),
        directory: invocation.directory.clone(),
        config: Arc::new(effective.value().clone()),
        events,
        stop: stop.clone(),
    }
}

fn of_run(error: &run::RunError) -> Failure {
    match error {
        run::RunError::Plugin(error) => Failure::of_plugin(Exit::Run, error),
        _ => Failure::new(Exit::Run, error),
    }
}

/// The target: by option, by the configuration, or the default.
async fn choose(invocation: &Invocation, arguments: &Run, effective: &Effective) -> Result<Chosen, Failure> {
    let plugins = &invocation.setup.plugins;
    let configured =
        effective.chosen_target().map_err(|error| invocation::of_configuration(&error))?.map(|chosen| chosen.target);
    without_target(invocation, effective)?;
    let name = arguments.target.clone().or(configured).unwrap_or_else(|| DEFAULT_TARGET.trim().to_owned());
    let plugin = plugins
        .providing(Kind::Target, &name)
        .map_err(|error| Failure::of_plugin(Exit::Run, &error))?
        .ok_or_else(|| {
            let known = plugins.catalog().provided(Kind::Target);
            Failure::new(Exit::Arguments, format!("there is no target `{name}`"))
                .hint(format!("the targets are {}", crate::config::nearest::listed(&known, "and")))
        })?;
    Chosen::new(plugin, &invocation.session()).await.map_err(|error| Failure::of_plugin(Exit::Run, &error))
}

/// A section for a target that no plugin provides must not end as a run somewhere else.
fn without_target(invocation: &Invocation, effective: &Effective) -> Result<(), Failure> {
    let sections: Vec<String> = serde_json::from_str(TARGET_SECTIONS)
        .map_err(|error| Failure::new(Exit::Failure, format!("shipped target sections: {error}")))?;
    let catalog = invocation.setup.plugins.catalog();
    let orphan = sections.iter().find(|section| {
        effective.get(section.as_str()).is_some() && catalog.providing(Kind::Target, section).is_none()
    });
    match orphan {
        None => Ok(()),
        Some(section) => Err(Failure::new(
            Exit::Arguments,
            format!("the context has a section `{section}`, and no target plugin answers to it"),
        )
        .hint(format!(
            "take it out, or load a plugin that does by `--plugin FILE`; the targets are {}",
            crate::config::nearest::listed(&catalog.provided(Kind::Target), "and")
        ))),
    }
}

fn options(invocation: &Invocation, arguments: &Run, time_limit: TimeLimit) -> Result<RunOptions, Failure> {
    let named = invocation::absolute(&invocation.setup.tree, &arguments.tools_config);
    let tools = if named.is_file() {
        read_json(&named)?
    } else if arguments.tools_config == Path::new("./scripts/common/tools.json") {
        serde_json::from_str(stage::TOOLS)
            .map_err(|error| Failure::new(Exit::Failure, format!("shipped tools: {error}")))?
    } else {
        return Err(Failure::new(Exit::Arguments, format!("there is no tools file `{}`", named.display())));
    };
    Ok(RunOptions {
        jobs: usize::from(arguments.jobs),
        time_limit,
        keep_alive: arguments.keep_alive,
        keep_work: arguments.keep_model_dir,
        skip_model: arguments.skip_model_run,
        profile: arguments.container_profile.clone().unwrap_or_default(),
        any_architecture: arguments.disable_skip_gpu_arch,
        deprecated_too: arguments.ignore_deprecated,
        tools,
        output: results_file(invocation, arguments),
        cleanup: arguments.cleanup_perf,
        dry_run: arguments.dry_run,
    })
}

/// The results file under the resolved name of its directory, as policy knows it.
fn results_file(invocation: &Invocation, arguments: &Run) -> PathBuf {
    match arguments.output.file_name() {
        Some(name) if !invocation.setup.results.as_os_str().is_empty() => invocation.setup.results.join(name),
        _ => invocation::absolute(&invocation.setup.output, &arguments.output),
    }
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Arguments, format!("cannot read `{}`: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(Exit::Arguments, format!("`{}` is not JSON: {error}", path.display())))
}

fn description(effective: &Effective, target: &Chosen, works: &[Work]) -> Map<String, Value> {
    let origins: Map<String, Value> =
        effective.leaves().map(|(path, _, origin)| (path.to_string(), Value::String(origin.to_string()))).collect();
    let mut members = Map::new();
    members.insert("target".to_owned(), json!(target.plugin.name()));
    members.insert("models".to_owned(), works.iter().map(|work| work.card.name.clone()).collect());
    members.insert("configuration".to_owned(), effective.value().clone());
    members.insert("origins".to_owned(), Value::Object(origins));
    members
}

fn summary(report: &RunReport, first_row: usize, rows: usize) -> Value {
    let (failed, fine): (Vec<&JobReport>, Vec<&JobReport>) =
        report.jobs.iter().partition(|job| matches!(job.judged.verdict, Verdict::Failure(_)));
    let successful: Vec<Value> = fine
        .iter()
        .map(|job| {
            json!({
                "model": job.model,
                "image": job.image,
                "status": job.judged.verdict.status(),
                "performance": job.judged.performance,
                "duration": job.judged.duration,
            })
        })
        .collect();
    let failures: Vec<Value> = failed
        .iter()
        .map(|job| json!({"model": job.model, "image": job.image, "status": "FAILURE", "error": job.judged.reason}))
        .collect();
    json!({
        "successful_runs": successful,
        "failed_runs": failures,
        "total_runs": report.jobs.len(),
        "session_start_row": first_row,
        "session_row_count": rows.saturating_sub(first_row),
    })
}

fn exit_code(report: &RunReport, build_failed: bool) -> Exit {
    let failed = report.jobs.iter().any(|job| matches!(job.judged.verdict, Verdict::Failure(_)));
    if report.interrupted {
        Exit::Interrupted
    } else if report.jobs.iter().any(|job| job.refused) {
        Exit::Refused
    } else if failed {
        Exit::Run
    } else if build_failed {
        Exit::Build
    } else {
        Exit::Success
    }
}

fn print_results(report: &RunReport, format: Format, summary: &Value) {
    if format == Format::Json {
        println!("{summary:#}");
        return;
    }
    let palette = style::Palette::of_stdout();
    let rows: Vec<Vec<String>> = report
        .jobs
        .iter()
        .enumerate()
        .map(|(index, job)| {
            let status = match &job.judged.verdict {
                Verdict::Success => palette.good("✅ Success"),
                Verdict::Failure(_) => palette.bad("❌ Failed"),
                Verdict::Skipped => palette.warn("⚠️  SKIPPED"),
            };
            let result = job.judged.reason.clone().or_else(|| job.judged.performance.clone()).unwrap_or_default();
            let seconds = job.judged.duration.map(|seconds| render::duration(&seconds.to_string())).unwrap_or_default();
            vec![
                (index + 1).to_string(),
                status,
                job.model.clone(),
                seconds,
                crate::capability::events::printable(&result),
            ]
        })
        .collect();
    table::print("⚡ Execution Results", &["Index", "Status", "Model", "Duration", "Result"], &rows);
}

fn print_plans(report: &RunReport, format: Format) {
    if format == Format::Json {
        let plans: Value =
            report.plans.iter().map(|(model, plan)| json!({"model": model, "plan": plan_json(plan)})).collect();
        println!("{plans:#}");
        return;
    }
    let palette = style::Palette::of_stdout();
    for (model, plan) in &report.plans {
        println!("{}", palette.strong(&format!("plan of {model}")));
        build::print_plan(plan);
    }
    for job in &report.jobs {
        println!("{}: {}", job.model, job.judged.reason.as_deref().unwrap_or_default());
    }
}

/// A plan as machine-readable output has it.
pub(super) fn plan_json(plan: &maddock_bindings::api::types::WorkPlan) -> Value {
    let entries = |entries: &[maddock_bindings::api::types::Entry]| -> Value {
        entries.iter().map(|entry| json!({"name": entry.name, "value": entry.value})).collect()
    };
    json!({
        "steps": plan.steps.iter().map(|step| json!({"summary": step.summary, "call": step.call, "scope": entries(&step.scope)})).collect::<Vec<_>>(),
        "artefacts": plan.artefacts.iter().map(|a| json!({"name": a.name, "media_type": a.media_type, "content": a.content})).collect::<Vec<_>>(),
        "warnings": plan.warnings,
    })
}
