//! `maddock run`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{self, Format, OnInterrupt, Run};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::invocation::{self, Invocation, Talk};
use super::outcome::{self, Done};
use super::render;
use super::setup::Setup;
use super::{background, build};
use super::{performance, signals, style};
use crate::capability::policy::step::Refusal;
use crate::config::{Effective, Origin};
use crate::pipeline::build::BuildOptions;
use crate::pipeline::card::Card;
use crate::pipeline::event::{Gravity, Stream};
use crate::pipeline::image::Image;
use crate::pipeline::keeper::Manner;
use crate::pipeline::manifest::{Manifest, ManifestImage, MergeError};
use crate::pipeline::recorded::Recorded;
use crate::pipeline::resume::{self, Records, RunRecord, TargetRecord};
use crate::pipeline::run::{self, Chosen, Place, Progress, RunOptions, RunReport, TimeLimit, Work};
use crate::pipeline::stage;
use crate::plugin::manifest::Kind;

/// The target where nothing names one.
pub(super) const DEFAULT_TARGET: &str = include_str!("../../../presets/default-target");

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
    let mut invocation = Invocation::new(
        setup,
        arguments.dry_run,
        Talk { live_output: arguments.live_output, verbose: arguments.common.verbose },
    )?;
    let stop = signals::stop_token()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot listen to signals: {error}")))?;
    let outcome = phases(&mut invocation, &arguments, manifest, &tags, time_limit, stop).await;
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
    invocation: &mut Invocation,
    arguments: &Run,
    manifest: Option<Manifest>,
    tags: &[String],
    time_limit: TimeLimit,
    stop: CancellationToken,
) -> Outcome {
    let events = invocation.events.clone();
    let mut effective = invocation.configuration(&arguments.context, arguments.target.as_deref(), false)?;
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
            effective = merged(&manifest, &effective)?;
            let target = choose_for(invocation, arguments, &effective).await?;
            let works = from_manifest(&manifest);
            settle(invocation, &mut effective, &target, Some(&manifest), &cards_of(&works))?;
            (target, works)
        }
        None => {
            let target = choose_for(invocation, arguments, &effective).await?;
            let image = effective.text("MAD_CONTAINER_IMAGE").map(str::to_owned);
            let unknown = if image.is_some() { Exit::Run } else { Exit::Build };
            let cards = signals::unless_stopped(&stop, invocation.select(tags, unknown)).await?;
            settle(invocation, &mut effective, &target, None, &cards)?;
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
                        return Ok(if planned.is_refused() { Exit::Refused } else { planned_exit(&plans) });
                    }
                    planned.allowed()?;
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
        let cards = cards_of(&works);
        let checked = invocation.check_keys(&mut effective, &cards, arguments.context.strict);
        signals::unless_stopped(&stop, checked).await?;
    }

    let options = options(invocation, arguments, time_limit)?;
    if !target.has("local") {
        // What is handed to a queue fails hours later, or not at all.
        check(invocation, &effective, &target, works.clone(), &options, &stop).await?;
    }
    if works.is_empty() {
        events.say(Gravity::Warning, "", "there is nothing to run: the manifest has no images");
    }
    let members = description(&effective, &target, &works);
    if arguments.dry_run {
        let place = place(invocation, &effective, events, &stop);
        let report = run::run(&place, &target, works, &options).await.map_err(|error| of_run(&error))?;
        if let Some(directory) = &arguments.plan_output {
            write_texts(&report, &invocation::absolute(&invocation.setup.output, directory))?;
        }
        print_plans(&report, arguments.common.format);
        return Ok(planned_exit(&report));
    }
    let record = RunRecord {
        v: resume::VERSION,
        run: invocation.directory.id().as_str().to_owned(),
        detached: arguments.detach,
        detaches_when_interrupted: arguments.on_interrupt == OnInterrupt::Detach,
        target: target_record(&target),
        tree: invocation.setup.tree.clone(),
        output: invocation.setup.output.clone(),
        results: invocation.setup.results.clone(),
        first_row: performance::row_count(&options.output),
        options,
        worker: run::is_worker(&invocation.setup.environment),
        config: effective.value().clone(),
        build_failed,
        build_summary,
        summary_output: arguments.summary_output.clone(),
        jobs: Vec::new(),
    };
    let order = background::Order {
        record,
        works,
        said: effective.said(),
        presets: effective.preset(),
        given: arguments.common.given().at(&invocation.setup.output),
        verbose: arguments.common.verbose,
        json: arguments.common.format == Format::Json,
    };
    // On this machine jobs share devices and wait for each other, so somebody has to stay.
    if arguments.detach && target.has("local") {
        invocation.record("run", "detached", members);
        return background::hand_over(invocation, &order, &stop).await;
    }
    let manner = Manner {
        detached: arguments.detach,
        watches: !arguments.detach,
        leaves: arguments.detach || arguments.on_interrupt == OnInterrupt::Detach,
        patient: false,
    };
    attend(invocation, order, &target, Attending { manner, stop, progress: Arc::default(), members }).await
}

/// How a run is attended by this process.
pub(super) struct Attending {
    /// In which manner.
    pub(super) manner: Manner,
    /// Fires when the user wants to stop.
    pub(super) stop: CancellationToken,
    /// How far launching is.
    pub(super) progress: Arc<Progress>,
    /// What `run.json` says of the run.
    pub(super) members: Map<String, Value>,
}

/// Runs the jobs, as long as this process attends them.
pub(super) async fn attend(
    invocation: &Invocation,
    order: background::Order,
    target: &Chosen,
    attending: Attending,
) -> Outcome {
    let background::Order { record, works, said, presets, json, .. } = order;
    let format = if json { Format::Json } else { Format::Text };
    let Attending { manner, stop, progress, members } = attending;
    invocation.record("run", "running", members);
    let records = Arc::new(Records::new(invocation.directory.clone(), invocation.redactor(), record.clone()));
    let place = Place {
        plugins: invocation.setup.plugins.clone(),
        context: invocation.context.clone(),
        directory: invocation.directory.clone(),
        config: Arc::new(record.config.clone()),
        said: Arc::new(said),
        presets: Arc::new(presets),
        events: invocation.events.clone(),
        stop,
        manner,
        records: Some(records.clone()),
        progress,
    };
    let report = run::run(&place, target, works, &record.options).await.map_err(|error| of_run(&error))?;
    let jobs: Vec<Recorded> = report.jobs.iter().map(Recorded::of).collect();
    if report.left.is_empty() {
        let done = if report.interrupted { Done::Interrupted } else { Done::Ended };
        return outcome::conclude(invocation, &records.run(), &jobs, done, format, Map::new());
    }
    invocation.record("run", "detached", Map::new());
    outcome::say_left(&record, &report.left, &report.unlaunched, format);
    let done = if report.interrupted { Done::Interrupted } else { Done::Ended };
    Ok(outcome::exit_code(&jobs, done, record.build_failed))
}

fn target_record(target: &Chosen) -> TargetRecord {
    let identity = &target.plugin.loaded().identity;
    TargetRecord {
        plugin: identity.name.clone(),
        digest: identity.digest.clone(),
        deployment_type: target.info.deployment_type.clone(),
        default_launcher: target.info.default_launcher.clone(),
        features: target.info.features.clone(),
    }
}

/// The exit code of a dry run.
fn planned_exit(report: &RunReport) -> Exit {
    if report.plans.iter().any(|plan| !plan.refusals.is_empty()) {
        return Exit::Refused;
    }
    let jobs: Vec<Recorded> = report.jobs.iter().map(Recorded::of).collect();
    let done = if report.interrupted { Done::Interrupted } else { Done::Ended };
    outcome::exit_code(&jobs, done, false)
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

pub(super) fn from_manifest(manifest: &Manifest) -> Vec<Work> {
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

pub(super) fn cards_of(works: &[Work]) -> Vec<Card> {
    works.iter().map(|work| work.card.clone()).collect()
}

/// A manifest under what this invocation was given.
pub(super) fn merged(manifest: &Manifest, effective: &Effective) -> Result<Effective, Failure> {
    manifest.merged_under(effective).map_err(|error| of_merging(&error))
}

fn of_merging(error: &MergeError) -> Failure {
    match error {
        MergeError::Config(error) => invocation::of_configuration(error),
        MergeError::Layout(error) => Failure::new(Exit::Arguments, error),
    }
}

/// The rest of the configuration, now that the target is known: what a manifest says about a machine that is not this one,
/// and the presets.
pub(super) fn settle(
    invocation: &Invocation,
    effective: &mut Effective,
    target: &Chosen,
    manifest: Option<&Manifest>,
    cards: &[Card],
) -> Result<(), Failure> {
    if let Some(manifest) = manifest.filter(|_| !target.has("local")) {
        manifest.describe_elsewhere(effective).map_err(|error| of_merging(&error))?;
    }
    let provides = &target.plugin.loaded().manifest.provides;
    let name = provides.first().map_or_else(|| target.plugin.name(), String::as_str).to_owned();
    invocation.apply_presets(effective, &name, cards)
}

/// What a run's own build needs to be chosen: this machine's vendor first, then the defaults of builds.
pub(super) async fn build_defaults(invocation: &Invocation, effective: &mut Effective) -> Result<(), Failure> {
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
    let asked_for = options.dry_run;
    let cannot = |error| Failure::new(Exit::Failure, format!("cannot write the run's directory: {error}"));
    let (_scratch, place) = place.aside().map_err(cannot)?;
    let options = RunOptions { dry_run: true, jobs: 1, ..options.clone() };
    let report = run::run(&place, target, works, &options).await.map_err(|error| of_run(&error))?;
    if let (false, Some((model, denial))) =
        (asked_for, report.plans.iter().find_map(|plan| Some((&plan.model, &plan.refusals.first()?.denial))))
    {
        return Err(Failure::new(Exit::Refused, format!("{model}: {}", denial.message)).hint(denial.remedy.as_str()));
    }
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
        said: Arc::new(effective.said()),
        presets: Arc::new(effective.preset()),
        events,
        stop: stop.clone(),
        manner: Manner::ATTACHED,
        records: None,
        progress: Arc::default(),
    }
}

pub(super) fn of_run(error: &run::RunError) -> Failure {
    match error {
        run::RunError::Plugin(error) => Failure::of_plugin(Exit::Run, error),
        run::RunError::Refused { remedy, .. } => Failure::new(Exit::Refused, error).hint(remedy),
        _ => Failure::new(Exit::Run, error),
    }
}

/// The target: by option, by the configuration, or the default.
pub(super) async fn choose(invocation: &Invocation, effective: &Effective) -> Result<Chosen, Failure> {
    let plugins = &invocation.setup.plugins;
    let configured =
        effective.chosen_target().map_err(|error| invocation::of_configuration(&error))?.map(|chosen| chosen.target);
    without_target(invocation, effective)?;
    let name = configured.unwrap_or_else(|| DEFAULT_TARGET.trim().to_owned());
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

/// The same for jobs that may have to outlive this command.
async fn choose_for(invocation: &Invocation, arguments: &Run, effective: &Effective) -> Result<Chosen, Failure> {
    let target = choose(invocation, effective).await?;
    let detaches =
        [(arguments.detach, "--detach"), (arguments.on_interrupt == OnInterrupt::Detach, "--on-interrupt detach")];
    match detaches.into_iter().find(|(asked, _)| *asked && !target.has("detach")) {
        None => Ok(target),
        Some((_, option)) => Err(Failure::new(
            Exit::Arguments,
            format!("`{option}`: jobs of `{}` cannot outlive this command", target.plugin.name()),
        )
        .hint("leave the option out, or choose a target that can by `--target`")),
    }
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
    let origins: Map<String, Value> = effective
        .leaves()
        .map(|(path, _, origin)| (path.to_string(), Value::String(effective.source(path, origin))))
        .collect();
    let mut members = Map::new();
    members.insert("target".to_owned(), json!(target.plugin.name()));
    members.insert("models".to_owned(), works.iter().map(|work| work.card.name.clone()).collect());
    members.insert("configuration".to_owned(), effective.value().clone());
    members.insert("origins".to_owned(), Value::Object(origins));
    members
}

/// Writes the texts of plans as they are, so that others can be given them: a directory for each job.
fn write_texts(report: &RunReport, directory: &Path) -> Result<(), Failure> {
    for run::Planned { id, plan, .. } in &report.plans {
        let place = directory.join(id);
        let cannot = |path: &Path, cause: &dyn std::fmt::Display| {
            let message = format!("the plan cannot be written to `{}`: {cause}", path.display());
            Failure::new(Exit::Failure, message)
        };
        std::fs::create_dir_all(&place).map_err(|error| cannot(&place, &error))?;
        for artefact in &plan.artefacts {
            // A plugin says what it is called, and not where it lies.
            if Path::new(&artefact.name).file_name() != Some(std::ffi::OsStr::new(&artefact.name)) {
                return Err(cannot(&place, &format!("`{}` is no name of a file", artefact.name.escape_debug())));
            }
            let file = place.join(&artefact.name);
            std::fs::write(&file, &artefact.content).map_err(|error| cannot(&file, &error))?;
        }
    }
    Ok(())
}

fn print_plans(report: &RunReport, format: Format) {
    if format == Format::Json {
        let plans: Value = report
            .plans
            .iter()
            .map(|planned| json!({"model": planned.model, "plan": plan_json(&planned.plan, &planned.refusals)}))
            .collect();
        println!("{}", render::json(&plans));
        return;
    }
    let palette = style::Palette::of_stdout();
    for run::Planned { model, plan, refusals, .. } in &report.plans {
        println!("{}", palette.strong(&format!("plan of {model}")));
        build::print_plan(plan, refusals);
    }
    for job in &report.jobs {
        println!("{}: {}", job.model, job.judged.reason.as_deref().unwrap_or_default());
    }
}

/// A plan as machine-readable output has it.
pub(super) fn plan_json(plan: &maddock_bindings::api::types::WorkPlan, refusals: &[Refusal]) -> Value {
    let refusals: Vec<Value> = refusals
        .iter()
        .map(|Refusal { step, denial }| json!({"step": step, "message": denial.message, "rule": &*denial.rule, "remedy": denial.remedy}))
        .collect();
    let entries = |entries: &[maddock_bindings::api::types::Entry]| -> Value {
        entries.iter().map(|entry| json!({"name": entry.name, "value": entry.value})).collect()
    };
    json!({
        "steps": plan.steps.iter().map(|step| json!({"summary": step.summary, "call": step.call, "scope": entries(&step.scope)})).collect::<Vec<_>>(),
        "artefacts": plan.artefacts.iter().map(|a| json!({"name": a.name, "media_type": a.media_type, "content": a.content})).collect::<Vec<_>>(),
        "warnings": plan.warnings,
        "refused": refusals,
    })
}
