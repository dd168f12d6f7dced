//! What the suite asks plugins of each kind: something usual, nothing, nonsense, and too much of it.

use serde_json::json;

use crate::pipeline::job::ROLE_OF_ALL;
use crate::plugin::manifest::Kind;
use crate::plugin::{Plugin, PluginError, Session, accelerators, build, jobs, launch, report};
use maddock_bindings::api::types;

/// A text that no plugin should choke on.
const NONSENSE: &str = "\u{0}\u{1b}[2J'\"$(id)`\\\n\u{202e}{{]] ../../etc/passwd";
const NOT_WHOLE: &str =
    "it has neither one role for each node, in order, nor one of the name `batch` for the whole job";
/// How many of something is too many.
const MANY: usize = 10_000;

/// An answer, and whether it keeps to what its kind promises.
#[derive(Debug)]
pub(super) struct Said {
    pub text: String,
    pub fault: Option<String>,
    /// What it says was done, where that takes a call that policy could refuse.
    pub claim: Option<&'static str>,
}

/// One thing to ask.
pub(super) struct Input {
    pub name: String,
    asks: Asks,
}

enum Asks {
    List(String),
    Finalise(Vec<types::Card>),
    ContextKeys(Vec<types::Card>),
    Plan(Box<build::BuildRequest>),
    Build(Box<build::BuildRequest>, Box<build::ImagePlan>),
    Push(Box<build::BuildRequest>, Box<(build::ImagePlan, build::Built)>),
    Arrange(Box<launch::Topology>),
    Detect(String),
    Attach(Box<accelerators::Inventory>, Vec<u32>),
    Report(Box<report::ReportRequest>),
    Describe,
    Job(Box<jobs::Job>),
    Launch(Box<jobs::Job>, Option<types::WorkPlan>),
    Handle(&'static str, String),
    /// Of the handle that a launch answers.
    Launched(&'static str, Box<jobs::Job>, String),
}

/// The inputs of a kind.
pub(super) fn of(kind: Kind, provides: &[String]) -> Vec<Input> {
    let named = |name: &str, asks| Input { name: name.to_owned(), asks };
    let first = provides.first().cloned().unwrap_or_default();
    match kind {
        Kind::Discovery => vec![
            named("an empty tree", Asks::List("/tree".to_owned())),
            named("a tree with a mad name", Asks::List(NONSENSE.to_owned())),
            named("no selected cards", Asks::Finalise(Vec::new())),
            named("one selected card", Asks::Finalise(vec![card("m", &model("m"))])),
            named("a card that is no JSON", Asks::Finalise(vec![card("m", NONSENSE)])),
            named("ten thousand cards", Asks::Finalise(many())),
        ],
        Kind::Builder => vec![
            named("no cards", Asks::ContextKeys(Vec::new())),
            named("one card", Asks::ContextKeys(vec![card("m", &model("m"))])),
            named("a plan of nothing", Asks::Plan(Box::new(request(Vec::new(), "{}")))),
            named("a plan of one image", Asks::Plan(Box::new(request(vec![card("m", &model("m"))], "{}")))),
            named("a plan from nonsense", Asks::Plan(Box::new(request(vec![card(NONSENSE, NONSENSE)], NONSENSE)))),
            named("the image of a plan", Asks::Build(Box::new(one_image()), Box::new(image_plan()))),
            named(
                "the push of an image",
                Asks::Push(Box::new(one_image()), Box::new((image_plan(), built(&image_plan())))),
            ),
        ],
        Kind::Launcher => {
            let names =
                provides.iter().map(|name| named(&format!("`{name}` on two nodes"), arranges(name, 2, 8, "{}")));
            names
                .chain([
                    named("no nodes", arranges(&first, 0, 0, "{}")),
                    named("an unknown launcher", arranges(NONSENSE, 1, 1, "{}")),
                    named("a section that is no JSON", arranges(&first, 1, 1, NONSENSE)),
                    named("a section of another type", arranges(&first, 1, 1, "[null]")),
                    named("four thousand nodes", arranges(&first, 4096, 8, "{}")),
                    named("more processes than numbers", arranges(&first, 2, u32::MAX, "{}")),
                ])
                .collect()
        }
        Kind::Gpu => vec![
            named("a machine without devices", Asks::Detect("{}".to_owned())),
            named("a configuration that is no JSON", Asks::Detect(NONSENSE.to_owned())),
            named("one device", Asks::Attach(Box::new(inventory(&first, 1)), vec![0])),
            named("no device", Asks::Attach(Box::new(inventory(&first, 1)), Vec::new())),
            named("a device that is not there", Asks::Attach(Box::new(inventory(&first, 1)), vec![u32::MAX])),
            named("ten thousand devices", Asks::Attach(Box::new(inventory(&first, 10_000)), (0..10_000).collect())),
        ],
        Kind::Reporter => {
            let formats = provides.iter().map(|format| {
                named(&format!("`{format}` of two rows"), Asks::Report(Box::new(report(format, rows(2, "1.5")))))
            });
            formats
                .chain([
                    named("no rows", Asks::Report(Box::new(report(&first, Vec::new())))),
                    named("an unknown format", Asks::Report(Box::new(report(NONSENSE, rows(1, "1"))))),
                    named("cells of nonsense", Asks::Report(Box::new(report(&first, rows(3, NONSENSE))))),
                    named("ten thousand rows", Asks::Report(Box::new(report(&first, rows(MANY, "1.5"))))),
                ])
                .collect()
        }
        Kind::Target => {
            let mut inputs = vec![
                named("its description", Asks::Describe),
                named("the plan of a job", Asks::Job(Box::new(job(1, "{}")))),
                named("the plan of a job on nine nodes", Asks::Job(Box::new(job(9, "{}")))),
                named("the plan of a job of nonsense", Asks::Job(Box::new(hostile()))),
                named("the start of a job", Asks::Launch(Box::new(job(1, "{}")), None)),
            ];
            for function in ["watch", "status", "logs", "cancel", "collect", "release"] {
                let launched = Asks::Launched(function, Box::new(job(1, "{}")), String::new());
                inputs.push(named(&format!("`{function}` of a job that was started"), launched));
                inputs.push(named(&format!("`{function}` of no handle"), Asks::Handle(function, String::new())));
                inputs.push(named(&format!("`{function}` of nonsense"), Asks::Handle(function, NONSENSE.to_owned())));
            }
            inputs
        }
    }
}

impl Input {
    /// Whether it is about how much a plugin bears: to be asked no oftener than that takes.
    pub(super) fn is_large(&self) -> bool {
        match &self.asks {
            Asks::Finalise(cards) => cards.len() >= MANY,
            Asks::Arrange(topology) => topology.nodes >= 4096,
            Asks::Attach(_, indices) => indices.len() >= MANY,
            Asks::Report(request) => request.rows.len() >= MANY,
            _ => false,
        }
    }

    /// Gets what the question needs of other questions: a plan, an image, a handle. False where there is none of it.
    pub(super) async fn prepare(&mut self, plugin: &Plugin, session: &Session) -> bool {
        match &mut self.asks {
            Asks::Build(request, image) => **image = planned(plugin, session, request).await,
            Asks::Push(request, pushed) => {
                let image = planned(plugin, session, request).await;
                let built = plugin.build_image(session, request, &image).await.unwrap_or_else(|_| built(&image));
                **pushed = (image, built);
            }
            Asks::Launch(job, plan) => *plan = plugin.plan_job(session, job).await.ok(),
            Asks::Launched(_, job, handle) => {
                let Ok(plan) = plugin.plan_job(session, job).await else { return false };
                let Ok(launched) = plugin.launch_job(session, job, &plan).await else { return false };
                *handle = launched;
            }
            _ => {}
        }
        true
    }

    pub(super) async fn call(&self, plugin: &Plugin, session: &Session) -> Result<Said, PluginError> {
        Ok(match &self.asks {
            Asks::List(tree) => said(&plugin.list_models(session, tree).await?, None),
            Asks::Finalise(cards) => {
                let answer = plugin.finalise(session, "/tree", cards).await?;
                let kept = answer.iter().map(|card| &card.name).eq(cards.iter().map(|card| &card.name));
                said(&answer, (!kept).then_some("it changed which cards there are, or their order"))
            }
            Asks::ContextKeys(cards) => said(&plugin.context_keys(session, "/tree", cards).await?, None),
            Asks::Plan(request) => said(&plugin.plan_images(session, request).await?, None),
            Asks::Build(request, image) => said(&plugin.build_image(session, request, image).await?, None),
            Asks::Push(request, pushed) => {
                let (image, built) = pushed.as_ref();
                said(&plugin.push_image(session, request, image, built).await?, None).claims("an image was pushed")
            }
            Asks::Arrange(topology) => {
                let answer = plugin.arrange(session, topology).await?;
                said(&answer, (!is_whole(&answer.roles, topology.nodes)).then_some(NOT_WHOLE))
            }
            Asks::Detect(config) => said(&plugin.detect(session, config).await?, None),
            Asks::Attach(inventory, indices) => {
                let answer = plugin.attach(session, inventory, indices).await?;
                let counted = usize::try_from(answer.count).is_ok_and(|count| count == indices.len());
                said(&answer, (!counted).then_some("it attached another number of devices than was asked for"))
            }
            Asks::Report(request) => {
                let answer = plugin.report(session, request).await?;
                let nameless = answer.iter().any(|produced| produced.path.is_empty());
                let said = said(&answer, nameless.then_some("it produced a file without a path"));
                if answer.is_empty() { said } else { said.claims("files were written") }
            }
            Asks::Describe => said(&plugin.describe_target(session).await?, None),
            Asks::Job(job) => said(&plugin.plan_job(session, job).await?, None),
            Asks::Launch(job, plan) => {
                let plan = match plan {
                    Some(plan) => plan.clone(),
                    None => plugin.plan_job(session, job).await?,
                };
                said(&plugin.launch_job(session, job, &plan).await?, None).claims("a job was started")
            }
            Asks::Handle(function, handle) | Asks::Launched(function, _, handle) => match *function {
                "watch" => said(&plugin.watch_job(session, handle).await?, None),
                "status" => said(&plugin.job_status(session, handle).await?, None),
                "logs" => said(&plugin.job_logs(session, handle).await?, None),
                "cancel" => said(&plugin.cancel_job(session, handle, "a test").await?, None),
                "collect" => said(&plugin.collect_job(session, handle).await?, None),
                _ => said(&plugin.release_job(session, handle).await?, None),
            },
        })
    }
}

/// One role for each node, in order, or the one that runs once for the whole job.
fn is_whole(roles: &[launch::Role], nodes: u32) -> bool {
    let once = matches!(roles, [only] if only.node == 0 && only.name == ROLE_OF_ALL);
    once || roles.iter().map(|role| role.node).eq(0..nodes)
}

fn said(answer: &impl std::fmt::Debug, fault: Option<&str>) -> Said {
    Said { text: format!("{answer:?}"), fault: fault.map(str::to_owned), claim: None }
}

impl Said {
    fn claims(self, claim: &'static str) -> Self {
        Self { claim: Some(claim), ..self }
    }
}

/// The first image that a builder plans. A scripted host has no files, so that many plan none: then one that nobody planned.
async fn planned(plugin: &Plugin, session: &Session, request: &build::BuildRequest) -> build::ImagePlan {
    let plan = plugin.plan_images(session, request).await;
    plan.ok().and_then(|plan| plan.images.into_iter().next()).unwrap_or_else(image_plan)
}

fn image_plan() -> build::ImagePlan {
    build::ImagePlan {
        key: "m".to_owned(),
        model: "m".to_owned(),
        log_file: "m.build.log".to_owned(),
        architecture: None,
        plan: types::WorkPlan { steps: Vec::new(), artefacts: Vec::new(), warnings: Vec::new(), extra: Vec::new() },
        details: "{}".to_owned(),
    }
}

fn built(image: &build::ImagePlan) -> build::Built {
    let made = types::Image { reference: image.key.clone(), digest: None, registry_reference: None, local: true };
    build::Built { image: made, duration: 1.0, manifest_entry: "{}".to_owned() }
}

fn card(name: &str, model: &str) -> types::Card {
    types::Card { name: name.to_owned(), tags: Vec::new(), source: "models.json".to_owned(), model: model.to_owned() }
}

fn model(name: &str) -> String {
    json!({"name": name, "dockerfile": "images/m", "scripts": "scripts/m/run.sh", "n_gpus": "0", "tags": [], "args": ""})
        .to_string()
}

fn many() -> Vec<types::Card> {
    (0..MANY).map(|number| format!("m{number}")).map(|name| card(&name, &model(&name))).collect()
}

fn request(cards: Vec<types::Card>, context: &str) -> build::BuildRequest {
    build::BuildRequest {
        run_id: "r".to_owned(),
        tree: "/tree".to_owned(),
        cards,
        context: context.to_owned(),
        architectures: Vec::new(),
        no_cache: false,
        registry: None,
        log_directory: "/output".to_owned(),
        extra: Vec::new(),
    }
}

fn one_image() -> build::BuildRequest {
    let registry = Some("registry.example.com/team".to_owned());
    build::BuildRequest { registry, ..request(vec![card("m", &model("m"))], "{}") }
}

fn arranges(launcher: &str, nodes: u32, processes: u32, config: &str) -> Asks {
    Asks::Arrange(Box::new(launch::Topology {
        launcher: launcher.to_owned(),
        nodes,
        processes_per_node: processes,
        gpus_per_node: processes.min(8),
        main_address: "node0".to_owned(),
        main_port: 29_500,
        model: "m".to_owned(),
        job: "0-m".to_owned(),
        config: config.to_owned(),
        program: launch::Program { interpreter: vec!["bash".to_owned()], file: "run.sh".to_owned() },
        env: Vec::new(),
        extra: Vec::new(),
    }))
}

fn inventory(vendor: &str, devices: u32) -> accelerators::Inventory {
    let device = |index: u32| accelerators::Device {
        index,
        name: "device".to_owned(),
        architecture: "x1".to_owned(),
        uuid: format!("uuid-{index}"),
        node: format!("/dev/x/{index}"),
        extra: Vec::new(),
    };
    accelerators::Inventory {
        vendor: vendor.to_owned(),
        devices: (0..devices).map(device).collect(),
        runtime_version: "1.0".to_owned(),
        root: "/opt/x".to_owned(),
        variables: Vec::new(),
        warnings: Vec::new(),
        extra: Vec::new(),
    }
}

fn rows(count: usize, number: &str) -> Vec<report::Row> {
    let row = |at: usize| report::Row {
        cells: vec![
            report::Cell { name: "model".to_owned(), value: report::CellValue::Text(format!("m{at}")) },
            report::Cell { name: "performance".to_owned(), value: report::CellValue::Number(number.to_owned()) },
            report::Cell { name: "configs".to_owned(), value: report::CellValue::Structured(number.to_owned()) },
            report::Cell { name: "status".to_owned(), value: report::CellValue::Blank },
        ],
        job: format!("{at}-m"),
        configs: "null".to_owned(),
        shape: "single".to_owned(),
    };
    (0..count).map(row).collect()
}

fn report(format: &str, rows: Vec<report::Row>) -> report::ReportRequest {
    report::ReportRequest {
        format: format.to_owned(),
        rows,
        inputs: vec!["/output/perf.csv".to_owned()],
        output: "/output/perf.csv".to_owned(),
        options: Vec::new(),
    }
}

fn job(nodes: u32, config: &str) -> jobs::Job {
    jobs::Job {
        run_id: "20260101-000000-test".to_owned(),
        id: "0-m".to_owned(),
        model: "m".to_owned(),
        card: model("m"),
        image: Some(types::Image {
            reference: "registry.example.com/m:1".to_owned(),
            digest: Some(format!("sha256:{}", "0".repeat(64))),
            registry_reference: None,
            local: true,
        }),
        topology: jobs::Topology {
            nodes,
            processes_per_node: 1,
            gpus_per_node: 0,
            launcher: "none".to_owned(),
            main_port: 29_500,
            roles: Vec::new(),
        },
        script: jobs::Script {
            interpreter: vec!["bash".to_owned()],
            file: "run.sh".to_owned(),
            arguments: Vec::new(),
            encapsulate: String::new(),
            before: Vec::new(),
            after: Vec::new(),
            clone_url: None,
        },
        env: Vec::new(),
        accelerators: None,
        time_limit: Some(60),
        paths: jobs::JobPaths {
            directory: "/run/jobs/0-m".to_owned(),
            workspace: "/run/jobs/0-m/workspace".to_owned(),
            work_directory: "run_directory".to_owned(),
            tree: "/tree".to_owned(),
        },
        profile: "compatible".to_owned(),
        options: jobs::JobOptions::empty(),
        collect: vec!["*.csv".to_owned()],
        config: config.to_owned(),
        extra: Vec::new(),
    }
}

fn hostile() -> jobs::Job {
    let mut job = job(1, NONSENSE);
    job.card = NONSENSE.to_owned();
    job.model = NONSENSE.to_owned();
    job.script.file = NONSENSE.to_owned();
    job.script.arguments = vec![NONSENSE.to_owned(); 100];
    job.env = vec![types::EnvVar { name: NONSENSE.to_owned(), value: types::EnvValue::Text(NONSENSE.to_owned()) }];
    job.paths.work_directory = "../..".to_owned();
    job.profile = NONSENSE.to_owned();
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_one_for_each_node_in_order_or_one_for_the_whole_job() {
        let role = |node: u32, name: &str| launch::Role { node, name: name.to_owned(), env: Vec::new(), command: None };
        let workers = |nodes: &[u32]| nodes.iter().map(|node| role(*node, "worker")).collect::<Vec<_>>();
        assert!(is_whole(&workers(&[0, 1]), 2));
        assert!(is_whole(&[role(0, "batch")], 2));
        for wrong in [&[][..], &[0], &[1, 0], &[0, 0], &[0, 1, 2]] {
            assert!(!is_whole(&workers(wrong), 2), "{wrong:?}");
        }
        assert!(!is_whole(&[role(1, "batch")], 2));
        assert!(!is_whole(&[role(0, "batch"), role(0, "batch")], 2));
        assert!(!is_whole(&[role(0, "batch"), role(0, "batch"), role(1, "batch")], 2));
    }
}
