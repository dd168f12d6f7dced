//! `maddock build`, and the build phase of `maddock run`.

use std::path::Path;

use maddock_bindings::api::types::WorkPlan;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{self, Build, Format};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::invocation::{self, Invocation};
use super::setup::Setup;
use super::{signals, style, table};
use crate::capability::events::printable;
use crate::config::Effective;
use crate::pipeline::build::{self, BuildOptions, BuildReport};
use crate::pipeline::card::Card;
use crate::pipeline::event::Gravity;
use crate::pipeline::image::Image;
use crate::pipeline::manifest::{self, ManifestBuilder};
use crate::pipeline::run::Work;

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
    /// Print plans and build nothing.
    pub dry_run: bool,
    /// How to print.
    pub format: Format,
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
    let setup = Setup::new(&arguments.common)?;
    let tags = args::pieces(&arguments.tags);
    if tags.is_empty() {
        return Err(Failure::new(Exit::Failure, "No models discovered: no tags were given")
            .hint("`maddock discover` lists the models; `--tags all` selects every one"));
    }
    let invocation = Invocation::new(setup, arguments.dry_run, arguments.live_output, arguments.common.verbose)?;
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
    let mut effective = invocation.configuration(&arguments.context, true)?;
    let cards = signals::unless_stopped(stop, invocation.select(tags, Exit::Build)).await?;
    let checked = invocation.check_keys(&mut effective, &cards, arguments.context.strict);
    signals::unless_stopped(stop, checked).await?;
    let options = BuildOptions {
        architectures: args::pieces(&arguments.target_archs),
        registry: arguments.registry.clone(),
        no_cache: arguments.clean_docker_cache,
        log_directory: invocation.setup.output.clone(),
    };
    let manifest = invocation::absolute(&invocation.setup.output, &arguments.manifest_output);
    let request =
        Request { options: &options, manifest: &manifest, dry_run: arguments.dry_run, format: arguments.common.format };
    let phase = phase(invocation, &effective, &cards, &request, stop).await?;
    if arguments.dry_run {
        return Ok(Exit::Success);
    }
    let summary = phase.summary;
    let mut members = Map::new();
    members.insert("summary".to_owned(), summary.clone());
    invocation.record("build", if stop.is_cancelled() { "interrupted" } else { "ended" }, members);
    if let Some(path) = &arguments.summary_output {
        invocation::write_json(&invocation::absolute(&invocation.setup.output, path), &summary)?;
    }
    if arguments.common.format == Format::Json {
        println!("{summary:#}");
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

/// Plans, builds, pushes, and writes the manifest.
///
/// # Errors
/// There is no builder, it fails as a whole, or the manifest cannot be written.
pub async fn phase(
    invocation: &Invocation,
    effective: &Effective,
    cards: &[Card],
    request: &Request<'_>,
    stop: &CancellationToken,
) -> Result<Phase, Failure> {
    let of_plugin = |error: &crate::plugin::PluginError| Failure::of_plugin(Exit::Build, error);
    let session = invocation.session();
    let build = build::Build::new(
        &invocation.setup.plugins,
        &session,
        &invocation.events,
        &invocation.context,
        cards,
        effective.value(),
        request.options,
    )
    .map_err(|error| of_plugin(&error))?
    .ok_or_else(|| Failure::new(Exit::Build, "no builder plugin is loaded"))?;
    let plan = build.plan().await.map_err(|error| of_plugin(&error))?;
    for warning in &plan.warnings {
        invocation.events.say(Gravity::Warning, "", warning);
    }
    if request.dry_run {
        print_plans(&plan, request.format);
        return Ok(Phase { report: BuildReport::default(), summary: Value::Null, works: Vec::new() });
    }
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
    let works = report
        .built
        .iter()
        .flat_map(|built| {
            // The same model may be selected with several sets of arguments: one image serves them all.
            let image = Image::of_entry(&built.key, &built.entry);
            cards
                .iter()
                .filter(|card| card.name == built.model)
                .map(move |card| Work { card: card.clone(), image: Some(image.clone()) })
        })
        .collect();
    Ok(Phase { summary: builder.summary(), report, works })
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
            eprintln!("{}: {}: {}", palette.note("hint"), failed.model, printable(hint));
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

fn print_plans(plan: &crate::plugin::build::BuildPlan, format: Format) {
    if format == Format::Json {
        let images: Value = plan
            .images
            .iter()
            .map(|image| json!({"image": image.key, "model": image.model, "plan": super::run::plan_json(&image.plan)}))
            .collect();
        println!("{images:#}");
        return;
    }
    let palette = style::Palette::of_stdout();
    for image in &plan.images {
        println!("{}", palette.strong(&format!("plan of image {} for {}", image.key, image.model)));
        print_plan(&image.plan);
    }
    for problem in &plan.problems {
        println!("{} {}: {}", palette.bad("cannot build"), problem.model, printable(&problem.error.message));
    }
}

/// Prints the steps and texts of a plan.
pub(super) fn print_plan(plan: &WorkPlan) {
    for step in &plan.steps {
        println!("  {}  [{}]", printable(&step.summary), step.call);
        for entry in &step.scope {
            println!("      {}: {}", printable(&entry.name), printable(&entry.value));
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
