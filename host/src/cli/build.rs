//! `maddock build`, and the build phase of `maddock run`.

use std::collections::BTreeSet;
use std::path::Path;

use maddock_bindings::api::types::WorkPlan;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{self, Build, Format};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::invocation::{self, Invocation, Talk};
use super::render;
use super::setup::Setup;
use super::{signals, style, table};
use crate::capability::events::{printable, printable_lines};
use crate::capability::policy::step::Refusal;
use crate::config::Effective;
use crate::pipeline::build::{self, BuildOptions, BuildReport};
use crate::pipeline::card::Card;
use crate::pipeline::event::Gravity;
use crate::pipeline::image::Image;
use crate::pipeline::manifest::{self, ManifestBuilder};
use crate::pipeline::run::Work;
use crate::plugin::build::BuildPlan;

/// What came of a build phase.
#[derive(Debug)]
pub struct Phase {
    /// Images built, failed and pushed.
    pub report: BuildReport,
    /// The summary object of the manifest.
    pub summary: Value,
    /// What can be run now.
    pub works: Vec<Work>,
}

/// What a build phase is asked.
#[derive(Debug)]
pub struct Request<'a> {
    /// For the builder.
    pub options: &'a BuildOptions,
    /// Where the manifest goes, absolute.
    pub manifest: &'a Path,
    /// How to print.
    pub format: Format,
}

/// Options of the predecessor that exclude each other, and the ones that this version does not have.
fn unsupported(arguments: &Build) -> Result<(), Failure> {
    let (batch, image, compute) =
        (arguments.batch_manifest.is_some(), arguments.use_image.is_some(), arguments.build_on_compute);
    let conflict = [
        (batch && !arguments.tags.is_empty(), "`--batch-manifest` and `--tags` exclude each other"),
        (image && arguments.registry.is_some(), "`--use-image` and `--registry` exclude each other"),
        (image && compute, "`--use-image` and `--build-on-compute` exclude each other"),
        (compute && arguments.registry.is_none(), "`--build-on-compute` needs `--registry`"),
        (batch, "`--batch-manifest` is not in this version"),
        (
            image,
            "`--use-image` is not in this version; `run -c '{\"MAD_CONTAINER_IMAGE\": …}'` runs an image that is there",
        ),
        (compute, "`--build-on-compute` is not in this version"),
    ];
    match conflict.into_iter().find(|(found, _)| *found) {
        Some((_, message)) => Err(Failure::new(Exit::Arguments, message)),
        None => Ok(()),
    }
}

/// Builds the images of selected models.
///
/// # Errors
/// Whatever keeps builds from beginning. Builds that fail are no errors but exit 2.
pub async fn run(arguments: Build) -> Outcome {
    if arguments.context.additional_context_file.is_some() && arguments.context.additional_context.trim() != "{}" {
        return Err(Failure::new(
            Exit::Arguments,
            "`--additional-context` and `--additional-context-file` exclude each other here",
        )
        .hint("put everything into the file"));
    }
    unsupported(&arguments)?;
    let setup = Setup::new(&arguments.common)?;
    let tags = args::pieces(&arguments.tags);
    if tags.is_empty() {
        return Err(Failure::new(Exit::Failure, "No models discovered: no tags were given")
            .hint("`maddock discover` lists the models; `--tags all` selects every one"));
    }
    let invocation = Invocation::new(
        setup,
        arguments.dry_run,
        Talk { live_output: arguments.live_output, verbose: arguments.common.verbose },
    )?;
    let stop = signals::stop_token()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot listen to signals: {error}")))?;
    let outcome = selected(&invocation, &arguments, &tags, &stop).await;
    if let Err(failure) = &outcome {
        let mut members = Map::new();
        members.insert("error".to_owned(), json!(failure.message));
        invocation.record("build", "failed", members);
    }
    outcome
}

async fn selected(invocation: &Invocation, arguments: &Build, tags: &[String], stop: &CancellationToken) -> Outcome {
    let mut effective = invocation.configuration(&arguments.context, None, true)?;
    let cards = signals::unless_stopped(stop, invocation.select(tags, Exit::Build)).await?;
    let chosen = effective.chosen_target().map_err(|error| invocation::of_configuration(&error))?;
    let target = chosen.map_or_else(|| super::run::DEFAULT_TARGET.trim().to_owned(), |chosen| chosen.target);
    invocation.apply_presets(&mut effective, &target, &cards)?;
    let checked = invocation.check_keys(&mut effective, &cards, arguments.context.strict);
    signals::unless_stopped(stop, checked).await?;
    let options = BuildOptions {
        architectures: args::pieces(&arguments.target_archs),
        registry: arguments.registry.clone(),
        no_cache: arguments.clean_docker_cache,
        log_directory: invocation.setup.output.clone(),
    };
    let manifest = invocation::absolute(&invocation.setup.output, &arguments.manifest_output);
    let planned = signals::unless_stopped(stop, plan(invocation, &effective, &cards, &options)).await?;
    if arguments.dry_run {
        planned.print(arguments.common.format);
        return Ok(if planned.is_refused() { Exit::Refused } else { Exit::Success });
    }
    planned.allowed()?;
    let request = Request { options: &options, manifest: &manifest, format: arguments.common.format };
    let phase = planned.run(invocation, &effective, &request, stop).await?;
    let summary = phase.summary;
    let mut members = Map::new();
    members.insert("summary".to_owned(), summary.clone());
    invocation.record("build", if stop.is_cancelled() { "interrupted" } else { "ended" }, members);
    if let Some(path) = &arguments.summary_output {
        invocation::write_json(&invocation::absolute(&invocation.setup.output, path), &summary)?;
    }
    if arguments.common.format == Format::Json {
        println!("{}", render::json(&summary));
    }
    Ok(exit_code(&phase.report, stop.is_cancelled()))
}

fn exit_code(report: &BuildReport, interrupted: bool) -> Exit {
    if interrupted {
        Exit::Interrupted
    } else if report.refused {
        Exit::Refused
    } else if report.failed.is_empty() && report.unpushed.is_empty() {
        Exit::Success
    } else {
        Exit::Build
    }
}

/// A build phase that is planned.
#[derive(Debug)]
pub struct Planned<'a> {
    build: build::Build<'a>,
    plan: BuildPlan,
    /// What policy would refuse, for each image.
    refusals: Vec<Vec<Refusal>>,
    cards: &'a [Card],
}

/// Asks the builder which images the models need.
///
/// # Errors
/// There is no builder, or it fails as a whole.
pub async fn plan<'a>(
    invocation: &'a Invocation,
    effective: &Effective,
    cards: &'a [Card],
    options: &BuildOptions,
) -> Result<Planned<'a>, Failure> {
    let of_plugin = |error: &crate::plugin::PluginError| Failure::of_plugin(Exit::Build, error);
    // The same model may be selected with several sets of arguments: one image serves them all.
    let mut names = BTreeSet::new();
    let models: Vec<Card> = cards.iter().filter(|card| names.insert(card.name.clone())).cloned().collect();
    let build = build::Build::new(
        &invocation.setup.plugins,
        &invocation.session(),
        &invocation.events,
        &invocation.context,
        &models,
        effective.value(),
        options,
    )
    .map_err(|error| of_plugin(&error))?
    .ok_or_else(|| Failure::new(Exit::Build, "no builder plugin is loaded"))?;
    let plan = build.plan().await.map_err(|error| of_plugin(&error))?;
    for warning in &plan.warnings {
        invocation.events.say(Gravity::Warning, "", warning);
    }
    let refusals = plan.images.iter().map(|image| build.refusals(&image.plan)).collect();
    Ok(Planned { build, plan, refusals, cards })
}

impl Planned<'_> {
    /// What could be run if every image were there already.
    #[must_use]
    pub fn works(&self) -> Vec<Work> {
        self.plan.images.iter().flat_map(|image| works(self.cards, &image.model, &image.key, &Value::Null)).collect()
    }

    /// Prints the plan.
    pub fn print(&self, format: Format) {
        print_plans(&self.plan, &self.refusals, format);
    }

    /// Whether policy refuses a step of it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refusals.iter().any(|refusals| !refusals.is_empty())
    }

    /// Goes on only where policy refuses no step of it.
    ///
    /// # Errors
    /// It does: exit 5, with what would allow it.
    pub fn allowed(&self) -> Result<(), Failure> {
        let refused =
            self.plan.images.iter().zip(&self.refusals).find_map(|(image, refusals)| Some((image, refusals.first()?)));
        match refused {
            None => Ok(()),
            Some((image, Refusal { denial, .. })) => {
                let message = format!("{}: {}", printable(&image.model), denial.message);
                Err(Failure::new(Exit::Refused, message).hint(denial.remedy.as_str()))
            }
        }
    }

    /// Builds, pushes, and writes the manifest.
    ///
    /// # Errors
    /// Interrupted, or the manifest cannot be written.
    pub async fn run(
        self,
        invocation: &Invocation,
        effective: &Effective,
        request: &Request<'_>,
        stop: &CancellationToken,
    ) -> Result<Phase, Failure> {
        let Self { build, plan, cards, .. } = self;
        let report = tokio::select! {
            report = build.run(plan) => report,
            () = stop.cancelled() => return Err(Failure::new(Exit::Interrupted, "interrupted while building")),
        };
        let mut builder = assemble(cards, &report, request.options.registry.as_deref());
        // Upstream copies the tree into the working directory; here a later run must know where it is.
        builder.extra(manifest::TREE, json!(invocation.setup.tree));
        builder.write(request.manifest, effective).map_err(|error| Failure::new(Exit::Failure, &error))?;
        if request.format == Format::Text {
            print_report(&report, !request.options.architectures.is_empty());
        }
        let works =
            report.built.iter().flat_map(|built| works(cards, &built.model, &built.key, &built.entry)).collect();
        Ok(Phase { summary: builder.summary(), report, works })
    }
}

/// One image and every selection of its model.
fn works(cards: &[Card], model: &str, key: &str, entry: &Value) -> Vec<Work> {
    let image = Image::of_entry(key, entry);
    let of_model = cards.iter().filter(|card| card.name == model);
    of_model.map(|card| Work { card: card.clone(), image: Some(image.clone()) }).collect()
}

fn assemble(cards: &[Card], report: &BuildReport, registry: Option<&str>) -> ManifestBuilder {
    let mut builder = ManifestBuilder::default();
    for built in &report.built {
        if let Some(card) = cards.iter().find(|card| card.name == built.model) {
            builder.image(&built.key, built.entry.clone(), card);
        }
    }
    for pushed in &report.pushed {
        builder.pushed(&pushed.key, registry.unwrap_or_default(), &pushed.reference, Some(&pushed.digest));
    }
    for (key, error) in &report.unpushed {
        builder.push_failed(key, error);
    }
    for failed in &report.failed {
        builder.problem(&failed.model, failed.architecture.as_deref(), &failed.error);
    }
    builder
}

fn print_report(report: &BuildReport, architectures: bool) {
    let palette = style::Palette::of_stdout();
    let architecture = |entry: &Value| {
        let named =
            ["gpu_architecture", "architecture"].iter().find_map(|name| entry.get(*name).and_then(Value::as_str));
        named.filter(|text| !text.is_empty()).unwrap_or("N/A").to_owned()
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for built in &report.built {
        let mut row = vec![palette.good("✅ Success"), built.model.clone()];
        if architectures {
            row.push(architecture(&built.entry));
        }
        row.push(built.key.clone());
        rows.push(row);
    }
    for failed in &report.failed {
        let mut row = vec![palette.bad("❌ Failed"), failed.model.clone()];
        if architectures {
            row.push(failed.architecture.clone().unwrap_or_else(|| "N/A".to_owned()));
        }
        row.push(printable(failed.error.lines().next().unwrap_or_default()));
        rows.push(row);
    }
    if rows.is_empty() {
        rows.push(vec!["ℹ️ No items".to_owned()]);
    }
    for (index, row) in rows.iter_mut().enumerate() {
        row.insert(0, (index + 1).to_string());
    }
    let mut header = vec!["Index", "Status", "Model"];
    if architectures {
        header.push("GPU Architecture");
    }
    header.push("Image");
    table::print("⚡ Build Results", &header, &rows);
    for (image, error) in &report.unpushed {
        eprintln!("{}: {image} was not pushed: {}", palette.bad("error"), printable(error));
    }
    for failed in &report.failed {
        if let Some(hint) = &failed.hint {
            eprintln!("{}: {}: {}", palette.note("hint"), failed.model, printable_lines(hint));
        }
    }
    println!("{}", closing(report.built.len(), report.failed.len()));
}

fn closing(built: usize, failed: usize) -> String {
    match (built, failed) {
        (0, 0) => "Nothing was built".to_owned(),
        (_, 0) => format!("All builds succeeded: {built} built"),
        (0, _) => "All builds failed".to_owned(),
        _ => format!("Partial success: {built} built, {failed} failed"),
    }
}

fn print_plans(plan: &BuildPlan, refusals: &[Vec<Refusal>], format: Format) {
    if format == Format::Json {
        let images: Value = plan
            .images
            .iter()
            .zip(refusals)
            .map(|(image, refusals)| json!({"image": image.key, "model": image.model, "plan": super::run::plan_json(&image.plan, refusals)}))
            .collect();
        println!("{}", render::json(&images));
        return;
    }
    let palette = style::Palette::of_stdout();
    for (image, refusals) in plan.images.iter().zip(refusals) {
        println!("{}", palette.strong(&format!("plan of image {} for {}", image.key, image.model)));
        print_plan(&image.plan, refusals);
    }
    for problem in &plan.problems {
        println!("{} {}: {}", palette.bad("cannot build"), problem.model, printable(&problem.error.message));
    }
}

/// Prints the steps and texts of a plan, and what policy would refuse of it.
pub(super) fn print_plan(plan: &WorkPlan, refusals: &[Refusal]) {
    let palette = style::Palette::of_stdout();
    for (number, step) in plan.steps.iter().enumerate() {
        println!("  {}  [{}]", printable(&step.summary), printable(&step.call));
        for entry in &step.scope {
            println!("      {}: {}", printable(&entry.name), printable(&entry.value));
        }
        for Refusal { denial, .. } in refusals.iter().filter(|refusal| refusal.step == number) {
            println!("      {}: {}", palette.bad("refused"), denial.message);
            for line in denial.remedy.lines() {
                println!("        {line}");
            }
        }
    }
    for artefact in &plan.artefacts {
        println!("  --- {}", printable(&artefact.name));
        for line in artefact.content.lines() {
            println!("  | {}", printable(line));
        }
    }
    for warning in &plan.warnings {
        println!("  warning: {}", printable(warning));
    }
}
