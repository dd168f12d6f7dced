//! What is handed in, as files in `golden/`: read them as the cluster's administrator would. `UPDATE_GOLDEN=1 cargo test`
//! writes them anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::Path;

use common::{HOSTILE, job, variable};
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::{Entry, ErrorKind, Image};
use target_slurm::plan::prepare;

/// All texts of a plan, one after the other; the entry script is the kit's and has golden files of its own.
fn texts(job: &Job) -> String {
    let plan = prepare(job, &["common-data".to_owned()]).unwrap().plan();
    let mut all = String::new();
    for artefact in plan.artefacts.iter().filter(|artefact| artefact.name != "entry.sh") {
        all.push_str(&format!("===== {}\n{}", artefact.name, artefact.content));
    }
    for warning in &plan.warnings {
        all.push_str(&format!("===== warning: {warning}\n"));
    }
    all
}

fn check(name: &str, job: &Job) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    let now = texts(job);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &now).unwrap();
        return;
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(now == before, "{} differs; look at it, and write it anew with UPDATE_GOLDEN=1\n{now}", file.display());
}

#[test]
fn one_node() {
    check("one-node", &job("/runs/r1/jobs/0-dummy", 1, r#"{"partition": "cpu"}"#));
}

#[test]
fn two_nodes_with_accelerators() {
    let mut job = job("/runs/r1/jobs/0-dummy", 2, r#"{"partition": "gpu", "nodes": 2, "time": "24:00:00"}"#);
    job.topology.gpus_per_node = 8;
    check("two-nodes", &job);
}

#[test]
fn what_a_job_asks_for_is_told_by_its_keys() {
    let mut job = job("/runs/r1/jobs/0-dummy", 2, r#"{"partition": "gpu", "mem": "64G"}"#);
    job.topology.gpus_per_node = 8;
    let asked = prepare(&job, &[]).unwrap().asked();
    let keys = "`slurm.nodes` 2, `slurm.gpus_per_node` 8, `slurm.partition` `gpu`, `slurm.mem` `64G`";
    assert_eq!(asked, format!("it asks for {keys}; `sinfo -N -o '%N %P %c %m %G'` shows what there is"));
}

#[test]
fn every_directive() {
    let section = r#"{"partition": "gpu", "time": "1-12", "exclusive": false, "account": "proj", "qos": "high",
        "reservation": "res1", "constraint": "mi300&ib", "gres": "gpu:h100:4", "mem": "64G", "nodelist": "node[1-2],node7",
        "exclude": ["node9"], "mail_user": "a@example.com", "mail_type": "END,FAIL", "modules": ["rocm/6.4", "a b"],
        "network_interface": "ib0", "output_dir": "./x"}"#;
    let mut job = job("/runs/r1/jobs/0-dummy", 1, section);
    job.topology.gpus_per_node = 4;
    check("every-directive", &job);
}

#[test]
fn gpus_that_are_asked_for_in_two_ways_are_as_many() {
    let with = |gres: &str, gpus: u32| {
        let mut job = job("/runs/r1/jobs/0-dummy", 1, &format!(r#"{{"partition": "p", "gres": "{gres}"}}"#));
        job.topology.gpus_per_node = gpus;
        prepare(&job, &[]).map(|work| work.batch.gpus_per_node)
    };
    let error = with("gpu:h100:4", 8).unwrap_err();
    assert!(error.message.contains("asks for 4 GPUs on each node, and the job is arranged for 8"), "{error:?}");
    assert!(error.hint.unwrap().contains("`slurm.gpus_per_node: 4`"));
    assert_eq!(with("gpu:h100:3,gpu:a100:1", 4).unwrap(), 0, "they are asked for once");
    assert_eq!(with("license:1", 8).unwrap(), 8, "these are none");
}

#[test]
fn no_time_limit() {
    let mut job = job("/runs/r1/jobs/0-dummy", 1, r#"{"partition": "cpu", "exclusive": false}"#);
    job.time_limit = None;
    check("no-time-limit", &job);
}

#[test]
fn a_limit_that_a_person_or_a_card_says_goes_before_a_preset_s_and_after_one_for_the_cluster() {
    let minutes = |of: &str, seconds: Option<u64>, preset: bool| {
        let section = r#"{"partition": "p", "time": "12:00:00"}"#;
        let mut job = job("/runs/r1/jobs/0-dummy", 1, section);
        job.time_limit = seconds;
        let presets = if preset { r#"{"slurm": {"time": "12:00:00"}}"# } else { r#"{"slurm": {"exclusive": true}}"# };
        let entry = |name: &str, value: &str| Entry { name: name.into(), value: value.into() };
        job.extra = vec![entry("presets", presets), entry("time-limit-of", of)];
        let work = prepare(&job, &[]).unwrap();
        (work.batch.time_limit, work.longest, work.warnings.len())
    };
    assert_eq!(minutes("option", Some(3600), false), (Some(720), false, 0), "it was said for the cluster");
    assert_eq!(
        minutes("option", Some(86_400), false),
        (Some(720), false, 1),
        "and ends the model early, which is told"
    );
    assert_eq!(minutes("option", Some(86_400), true), (Some(1450), false, 0), "`--timeout`");
    assert_eq!(minutes("card", Some(60), true), (Some(11), false, 0));
    assert_eq!(minutes("default", Some(7200), true), (Some(720), false, 0), "nobody says one but the preset");
    assert_eq!(minutes("option", None, true), (None, true, 0), "`--timeout 0`");
    assert_eq!(minutes("option", None, false), (Some(720), false, 0));
}

#[test]
fn hostile_values() {
    let directory = format!("/runs/{}/jobs/0-dummy", HOSTILE.replace('/', "_"));
    // The scheduler takes no control characters; scripts hold whatever there is.
    let line = HOSTILE.replace(['\n', '\t'], " ");
    let section =
        serde_json::json!({"partition": line, "account": line, "modules": [HOSTILE], "network_interface": HOSTILE});
    let mut job = job(&directory, 1, &section.to_string());
    job.model = HOSTILE.into();
    job.env.push(variable("HOSTILE", HOSTILE));
    job.env.push(variable("MINE", "$MADDOCK_MAIN_NODE"));
    job.paths.work_directory = "-w $(id)".into();
    job.collect = vec!["x $(id)*.csv".into(), "../../etc/passwd".into(), "-rf".into()];
    check("hostile", &job);
}

#[test]
fn a_model_s_name_with_a_slash_is_no_directory() {
    let mut job = job("/runs/r1/jobs/0-dummy", 1, r#"{"partition": "cpu"}"#);
    job.model = "primus_pretrain/llama".into();
    let work = prepare(&job, &[]).unwrap();
    assert_eq!(work.batch.name, "maddock-primus_pretrain/llama");
    assert!(work.files.iter().all(|(path, ..)| !path.contains("primus")));
}

#[test]
fn nodes_that_contradict_each_other_are_refused() {
    let error = prepare(&job("/r", 4, r#"{"partition": "p", "nodes": 2}"#), &[]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    assert!(error.message.contains("`slurm.nodes` is 2") && error.hint.is_some(), "{error:?}");
}

/// The same job with an image, as the kernel gives it to a target that runs shares.
fn with_image(nodes: u32, section: &str, registry: Option<&str>) -> Job {
    let mut job = job("/runs/r1/jobs/0-dummy", nodes, section);
    job.image = Some(Image {
        reference: "ci-dummy:1".into(),
        digest: Some("sha256:1d".into()),
        registry_reference: registry.map(str::to_owned),
        local: false,
    });
    let entry = |name: &str, value: &str| Entry { name: name.into(), value: value.into() };
    job.extra = vec![
        entry("share", r#"{"version":1,"output":"/work","job":{"id":"0-dummy"}}"#),
        entry("program", "/runs/r1/jobs/0-dummy/bin/maddock"),
        entry("program-linkage", "static"),
    ];
    job
}

#[test]
fn an_image_of_a_registry_on_two_nodes() {
    let section = r#"{"partition": "gpu", "nodes": 2, "network_interface": "ib0"}"#;
    check("image-registry", &with_image(2, section, Some("localhost:5000/ci-dummy:1")));
}

#[test]
fn an_image_as_an_archive_on_one_node() {
    let section = r#"{"partition": "gpu", "maddock": "/opt/mad dock/bin/maddock", "nodelist": "n1"}"#;
    check("image-archive", &with_image(1, section, None));
}

#[test]
fn an_image_is_refused_where_containers_are_not_wanted_and_where_its_way_cannot_be() {
    let refused = |section: &str| prepare(&with_image(1, section, None), &[]).unwrap_err();
    let error = refused(r#"{"partition": "p", "container": false}"#);
    assert!(error.kind == ErrorKind::InvalidInput && error.message.contains("slurm.container"), "{error:?}");
    let error = refused(r#"{"partition": "p", "image_transfer": "registry"}"#);
    assert!(error.message.contains("in no registry") && error.hint.is_some(), "{error:?}");
    let error = refused(r#"{"partition": "p", "image_transfer": "mail"}"#);
    assert!(error.hint.unwrap().contains("`tar`"));
}

#[test]
fn a_program_that_may_not_start_on_the_nodes_is_told() {
    let mut job = with_image(1, r#"{"partition": "p"}"#, None);
    assert!(prepare(&job, &[]).unwrap().warnings.is_empty());
    job.extra[2].value = "dynamic".into();
    assert!(prepare(&job, &[]).unwrap().warnings[0].contains("C library"));
    job.config = r#"{"slurm": {"partition": "p", "maddock": "/x"}}"#.into();
    assert!(prepare(&job, &[]).unwrap().warnings.is_empty());
}

#[test]
fn secrets_are_in_no_text() {
    let plan = prepare(&job("/r", 1, r#"{"partition": "p"}"#), &[]).unwrap();
    assert_eq!(plan.batch.env.len(), 1, "the secret goes with the call");
    assert!(plan.files.iter().all(|(_, content, _)| !content.contains("KEY=")));
}

#[test]
fn nothing_is_kept_alive() {
    let mut job = job("/r", 1, r#"{"partition": "p"}"#);
    job.options = JobOptions::KEEP_ALIVE;
    let work = prepare(&job, &[]).unwrap();
    assert!(work.warnings.iter().any(|warning| warning.contains("kept alive")));
}
