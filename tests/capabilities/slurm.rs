//! The host's batch calls against a real cluster, which `SLURM_CONF` names. Without one they are skipped, with a line.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use maddock::capability::slurm::Slurm;
use maddock::capability::testing::Setting;
use maddock::plugin::{Environment, State};
use maddock_bindings::api::slurm::{Batch, Host, Job, JobState, Seen};
use maddock_bindings::api::types::ErrorKind;

/// Everything that a test waits for comes long before this.
const PATIENCE: Duration = Duration::from_secs(240);

/// A state that plays a plugin of the run `test`, for a job of its own; none where there is no cluster.
fn cluster(test: &str, run: &Path) -> Option<State> {
    if std::env::var_os("SLURM_CONF").is_none() {
        println!("skipped: {test} (SLURM_CONF is not set)");
        return None;
    }
    let mut setting = Setting::in_directory(run);
    setting.environment = Environment::of_process();
    let mut state = setting.state().unwrap();
    state.job = Some(format!("{test}-{}", std::process::id()));
    Some(state)
}

fn directory() -> (tempfile::TempDir, std::path::PathBuf) {
    // On the file system that the nodes of the cluster share.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    (directory, path)
}

fn batch(run: &Path, script: &str) -> Batch {
    let file = |name: &str| run.join(name).display().to_string();
    Batch {
        name: "maddock test".into(),
        script: format!("#!/bin/bash\n{script}\n"),
        partition: "cpu".into(),
        nodes: 1,
        tasks_per_node: 1,
        gpus_per_node: 0,
        gres: String::new(),
        time_limit: Some(5),
        account: String::new(),
        qos: String::new(),
        reservation: String::new(),
        constraint: String::new(),
        nodelist: Vec::new(),
        exclude: Vec::new(),
        memory: "100M".into(),
        exclusive: false,
        requeue: false,
        mail_user: String::new(),
        mail_type: Vec::new(),
        output: file("out %j.log"),
        error_output: file("err.log"),
        directory: run.display().to_string(),
        env: Vec::new(),
        extra: Vec::new(),
    }
}

async fn ended(state: &mut State, id: &str) -> Job {
    let deadline = Instant::now() + PATIENCE;
    let mut change = 0;
    while Instant::now() < deadline {
        let seen = vec![Seen { id: id.to_owned(), change }];
        for job in state.next_change(seen, 5_000).await.unwrap().unwrap() {
            change = job.change;
            if job.ended {
                return job;
            }
        }
    }
    panic!("batch job {id} did not end");
}

#[tokio::test]
async fn a_cluster_is_described() {
    let (_kept, run) = directory();
    let Some(mut state) = cluster("a_cluster_is_described", &run) else { return };
    let cluster = state.describe_cluster().await.unwrap().unwrap();
    assert!(cluster.version.starts_with(|first: char| first.is_ascii_digit()), "{}", cluster.version);
    assert!(cluster.partitions.iter().any(|partition| partition.is_default));
    assert!(cluster.nodes.len() >= 2, "{:?}", cluster.nodes);
}

#[tokio::test]
async fn a_job_runs_and_its_exit_code_is_told() {
    let (_kept, run) = directory();
    let Some(mut state) = cluster("a_job_runs", &run) else { return };
    let id = state.submit(batch(&run, "echo here; exit 7")).await.unwrap().unwrap();
    let job = ended(&mut state, &id).await;
    assert!(matches!(job.state, JobState::Failed), "{job:?}");
    assert_eq!((job.exit_code, job.signal), (Some(7), None));
    assert_eq!(job.owner, format!("test/{}", state.job.clone().unwrap()));
    assert_eq!(std::fs::read_to_string(run.join("out %j.log")).unwrap(), "here\n");
}

#[tokio::test]
async fn an_own_job_is_found_and_ended_and_a_stranger_s_is_not() {
    let (_kept, run) = directory();
    let Some(mut state) = cluster("an_own_job_is_ended", &run) else { return };
    let id = state.submit(batch(&run, "sleep 600")).await.unwrap().unwrap();
    let name = state.job.clone();
    let found = state.find(name.clone()).await.unwrap().unwrap();
    assert_eq!(found.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);

    let by_hand = std::process::Command::new("sbatch")
        .args(["--parsable", "--output=/dev/null", "--comment=mine", "--mem=100", "--wrap=sleep 600"])
        .output()
        .unwrap();
    let stranger = String::from_utf8(by_hand.stdout).unwrap().trim().to_owned();
    let refused = state.cancel(stranger.clone()).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Conflict), "{refused:?}");
    let there = state.query(vec![stranger.clone()]).await.unwrap().unwrap();
    assert!(!there[0].ended, "{there:?}");
    std::process::Command::new("scancel").arg(&stranger).status().unwrap();

    state.cancel(id.clone()).await.unwrap().unwrap();
    let job = ended(&mut state, &id).await;
    assert!(matches!(job.state, JobState::Cancelled), "{job:?}");
    state.cancel(id).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_id_that_is_none_ends_nothing() {
    let (_kept, run) = directory();
    let Some(mut state) = cluster("an_id_that_is_none", &run) else { return };
    for id in ["", " ", "-u", "--user=root", "1,2", "1_0", "all"] {
        let refused = state.cancel(id.to_owned()).await.unwrap().unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::InvalidInput), "{id}: {refused:?}");
    }
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_refused_with_the_scheduler_s_words() {
    let (_kept, run) = directory();
    let Some(mut state) = cluster("no_such_partition", &run) else { return };
    let mut wrong = batch(&run, "true");
    wrong.partition = "no-such-partition".into();
    let refused = state.submit(wrong).await.unwrap().unwrap_err();
    assert!(refused.message.contains("partition"), "{refused:?}");
}

#[tokio::test]
async fn a_job_that_nobody_knows_is_lost_sight_of() {
    let (_kept, run) = directory();
    let Some(mut state) = cluster("a_job_that_nobody_knows", &run) else { return };
    let jobs = state.query(vec!["99999999".into()]).await.unwrap().unwrap();
    assert!(matches!(jobs[0].state, JobState::LostSight), "{jobs:?}");
}

#[test]
fn the_family_is_named_as_its_interface() {
    use maddock::capability::gate::Capability;
    assert_eq!(Slurm::NAME, "slurm");
}
