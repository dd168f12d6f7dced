//! Jobs for tests.

use maddock_sdk::target::{Job, JobOptions, JobPaths, NodeRole, Script, Topology};
use maddock_sdk::types::{Entry, EnvValue, EnvVar};

/// Texts that a shell would act on, if it were let.
pub const HOSTILE: &str = "a b'c\"d$(touch pwned)`touch pwned`\\n;&|<>*?[x]{1,2}~!#$HOME\nnext line\ttab ünïcode -e";

/// A variable with a plain value.
pub fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: EnvValue::Text(value.into()) }
}

/// A job of `nodes` nodes in `directory`, with this section.
pub fn job(directory: &str, nodes: u32, section: &str) -> Job {
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
        image: None,
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
        config: format!(r#"{{"slurm": {section}}}"#),
        extra: Vec::new(),
    }
}

/// The same for a script that runs once and uses `nodes` nodes by itself.
#[allow(dead_code, reason = "not every test has one")]
pub fn once(directory: &str, nodes: u32, section: &str) -> Job {
    let mut job = job(directory, nodes, section);
    job.topology.launcher = "slurm_multi".into();
    job.topology.roles.truncate(1);
    for role in &mut job.topology.roles {
        role.name = "batch".into();
    }
    job
}
