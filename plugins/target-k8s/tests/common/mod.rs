//! Jobs for tests.

#![allow(dead_code, reason = "each test uses some of it")]

use maddock_sdk::target::{Job, JobOptions, JobPaths, NodeRole, Script, Topology};
use maddock_sdk::types::{Entry, EnvValue, EnvVar, Image};
use serde_json::{Value, json};
use target_k8s::bundle::File;
use target_k8s::plan::Surroundings;

/// Texts that a shell would act on, if it were let.
pub const HOSTILE: &str = "a b'c\"d$(touch pwned)`touch pwned`\\n;&|<>*?[x]{1,2}~!#$HOME\nnext line\ttab ünïcode -e";

/// A variable with a plain value.
pub fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: EnvValue::Text(value.into()) }
}

/// A job of `nodes` nodes with this section.
pub fn job(nodes: u32, section: Value) -> Job {
    let directory = "/runs/r1/jobs/0-dummy";
    let role = |node: u32| NodeRole {
        node,
        name: "worker".into(),
        env: vec![
            Entry { name: "NODE_RANK".into(), value: node.to_string() },
            Entry { name: "MASTER_ADDR".into(), value: "$MADDOCK_MAIN_NODE".into() },
        ],
        command: None,
    };
    Job {
        run_id: "r1".into(),
        id: "0-dummy".into(),
        model: "dummy".into(),
        card: "{}".into(),
        image: Some(Image {
            reference: "ci-dummy_dummy.ubuntu.amd".into(),
            digest: None,
            registry_reference: Some("registry.example.com/ci-dummy:1".into()),
            local: false,
        }),
        topology: Topology {
            nodes,
            processes_per_node: 1,
            gpus_per_node: 0,
            launcher: "torchrun".into(),
            main_port: 29500,
            roles: (0..nodes).map(role).collect(),
        },
        script: Script {
            interpreter: vec!["bash".into()],
            file: "run.sh".into(),
            arguments: Vec::new(),
            encapsulate: String::new(),
            before: Vec::new(),
            after: Vec::new(),
            clone_url: None,
        },
        env: vec![variable("A", "it's"), EnvVar { name: "KEY".into(), value: EnvValue::Secret("env/KEY".into()) }],
        accelerators: None,
        time_limit: Some(7200),
        paths: JobPaths {
            directory: directory.into(),
            workspace: format!("{directory}/workspace"),
            work_directory: "run_directory".into(),
            tree: "/mad".into(),
        },
        profile: String::new(),
        options: JobOptions::empty(),
        collect: vec!["*_output.csv".into(), "perf.csv".into()],
        config: json!({"k8s": section}).to_string(),
        extra: Vec::new(),
    }
}

/// A workspace as the kernel stages it.
pub fn workspace() -> Vec<File> {
    let file = |path: &str, content: &str, mode: u32| File { path: path.into(), bytes: content.into(), mode };
    vec![
        file("w/run_directory/run.sh", "echo \"performance: 1 x\"\n", 0o755),
        file("w/scripts/common/tools.json", "{}\n", 0o644),
    ]
}

/// What this machine has.
pub fn surroundings() -> Surroundings {
    Surroundings { files: workspace(), home: Some("/home/me".into()), login: None }
}
