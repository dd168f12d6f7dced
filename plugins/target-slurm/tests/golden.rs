//! What is handed in, as files in `golden/`: read them as the cluster's administrator would. `UPDATE_GOLDEN=1 cargo test`
//! writes them anew.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{HOSTILE, job, variable};
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::{ErrorKind, Image};
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
fn every_directive() {
    let section = r#"{"partition": "gpu", "time": "1-12", "exclusive": false, "account": "proj", "qos": "high",
        "reservation": "res1", "constraint": "mi300&ib", "gres": "gpu:h100:4", "mem": "64G", "nodelist": "node[1-2],node7",
        "exclude": ["node9"], "mail_user": "a@example.com", "mail_type": "END,FAIL", "modules": ["rocm/6.4", "a b"],
        "network_interface": "ib0", "output_dir": "./x"}"#;
    let mut job = job("/runs/r1/jobs/0-dummy", 1, section);
    job.topology.gpus_per_node = 8;
    check("every-directive", &job);
}

#[test]
fn no_time_limit() {
    let mut job = job("/runs/r1/jobs/0-dummy", 1, r#"{"partition": "cpu", "exclusive": false}"#);
    job.time_limit = None;
    check("no-time-limit", &job);
}

#[test]
fn hostile_values() {
    let directory = format!("/runs/{}/jobs/0-dummy", HOSTILE.replace('/', "_"));
    let section = serde_json::json!({"partition": HOSTILE, "account": HOSTILE, "modules": [HOSTILE], "network_interface": HOSTILE});
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

#[test]
fn an_image_is_refused_and_not_left_out_in_silence() {
    let mut job = job("/r", 1, r#"{"partition": "p"}"#);
    job.image = Some(Image { reference: "x:1".into(), digest: None, registry_reference: None, local: false });
    assert_eq!(prepare(&job, &[]).unwrap_err().kind, ErrorKind::Unsupported);
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
