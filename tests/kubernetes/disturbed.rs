//! Jobs in a cluster that loses a part of itself: its API server, a pod, a node. Each is a real one.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::ground::{Ground, NOTHING, PATIENCE, interrupt, said, until};
use crate::own_cluster::{Cluster, cluster};

/// The word of a model that runs, and the way to tell it to go on: the API server is not needed for either.
struct Model {
    listener: TcpListener,
}

impl Model {
    fn of(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind((cluster.here(), 0)).unwrap();
        // A model that never begins must not keep the test for ever.
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// Says that it runs, waits for the word, measures, and closes what it says it by.
    fn script(&self) -> String {
        let address = self.listener.local_addr().unwrap();
        format!(
            "exec 3<>/dev/tcp/{}/{}\necho hello\necho begun >&3\nread -r _ <&3\n\
             for i in $(seq 200); do echo \"line $i.\"; done\necho x,1 > a_output.csv\n\
             echo 'performance: 42 things_per_second'\nexec 3>&-\n",
            address.ip(),
            address.port()
        )
    }

    fn begun(&self) -> std::net::TcpStream {
        let stream = until("the model's word", || self.listener.accept().ok().map(|(stream, _)| stream));
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn start(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn state(job: &Value) -> Option<&str> {
    job["execution"]["state"].as_str()
}

#[test]
fn a_job_whose_api_server_is_killed_and_started_again_has_its_verdict_row_and_files_and_leaves_nothing() {
    let Some(cluster) = cluster("API server killed") else { return };
    let _turn = cluster.alone();
    let model = Model::of(cluster);
    let ground = cluster.ground(json!({}), &model.script());
    ground.bystander();
    let run = start(ground.command(json!({}), json!({})));
    let mut word = model.begun();
    ground.wait_for("\"running\"");
    until("its output", || ground.log_so_far().contains("hello").then_some(()));
    let server = cluster.kill("kube-apiserver");
    // It goes on and ends while nobody can see it.
    word.write_all(b"go\n").unwrap();
    word.read_to_end(&mut Vec::new()).unwrap();
    cluster.revive("kube-apiserver", &server);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!((row["performance"].as_str(), row["status"].as_str()), (Some("42"), Some("SUCCESS")), "{job:#}");
    assert_eq!(state(&job), Some("exited"), "{job:#}");
    let log = ground.log();
    let missing: Vec<u32> = (1..=200).filter(|line| log.matches(&format!("line {line}.\n")).count() != 1).collect();
    assert!(missing.is_empty() && log.matches("hello\n").count() == 1, "whole and once: {missing:?}\n{log}");
    assert!(ground.work().join("a_output.csv").exists());
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn an_interruption_while_the_api_server_is_dead_takes_the_job_away_when_it_is_back() {
    let Some(cluster) = cluster("interrupted without an API server") else { return };
    let _turn = cluster.alone();
    let model = Model::of(cluster);
    let ground = cluster.ground(json!({}), &model.script());
    ground.bystander();
    let run = start(ground.command(json!({}), json!({})));
    let _word = model.begun();
    ground.wait_for("\"running\"");
    let server = cluster.kill("kube-apiserver");
    interrupt(&run);
    cluster.revive("kube-apiserver", &server);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert_eq!(state(&ground.job()), Some("cancelled"));
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn a_pod_that_its_node_evicts_is_lost_and_says_why() {
    let Some(cluster) = cluster("evicted by the node") else { return };
    let _turn = cluster.with_others();
    // More than the size that its shared memory may have.
    let script = "echo 'performance: 5 things_per_second'\nhead -c 20M /dev/zero > /dev/shm/x\nexec sleep 600\n";
    let ground = cluster.ground(json!({}), script);
    let output = ground.run(json!({}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((state(&job), job["verdict"].as_str()), (Some("lost"), Some("FAILURE")), "{job:#}");
    assert_eq!(job["rows"][0]["status"].as_str(), Some("FAILURE"), "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("Evicted") && reason.contains("exceeds the limit \"8Mi\""), "{reason}");
    assert_eq!(ground.left(), NOTHING);
}

/// Asks for the eviction of a job's pod, as a drain does.
fn evict(ground: &Ground, pod: &str) {
    let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": ground.namespace}});
    let file = ground.root.path().join("eviction");
    std::fs::write(&file, eviction.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", ground.namespace);
    let output = ground.kubectl(&["create", "--raw", &path, "--filename", &file.to_string_lossy()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_pod_that_is_evicted_for_a_drain_is_named_and_what_comes_after_it_has_a_deadline_that_holds() {
    let Some(cluster) = cluster("evicted for a drain") else { return };
    let _turn = cluster.with_others();
    let model = Model::of(cluster);
    let ground = cluster.ground(json!({}), &model.script());
    let run = start(ground.command(json!({"active_deadline_seconds": 120}), json!({})));
    let _first = model.begun();
    let pod = ground.pod().trim_start_matches("pod/").to_owned();
    evict(&ground, &pod);
    // The cluster makes another in its place, and never thinks of the deadline again: who follows the job does.
    let _second = model.begun();
    let taken = format!("pod {pod} was taken away from {}", cluster.node());
    ground.wait_for(&taken);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((state(&job), job["verdict"].as_str()), (Some("timed-out"), Some("FAILURE")), "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("deadline of 120 s") && reason.contains(&taken), "{reason}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_node_that_is_cut_off_is_named_and_its_job_ends_at_its_deadline_and_goes_when_the_node_is_back() {
    let Some(cluster) = cluster("node lost") else { return };
    let _turn = cluster.alone();
    // A node is given up sooner than by default.
    let manager = cluster.kill("kube-controller-manager");
    let sooner = [&manager[..], &["--node-monitor-grace-period=8s".to_owned()]].concat();
    cluster.revive("kube-controller-manager", &sooner);
    let model = Model::of(cluster);
    let ground = cluster.ground(json!({}), &model.script());
    ground.bystander();
    let run = start(ground.command(json!({"active_deadline_seconds": 120}), json!({})));
    let _word = model.begun();
    ground.wait_for("\"running\"");
    let cut = cluster.cut_off();
    let silent = format!("node {} does not answer", cluster.node());
    ground.wait_for(&silent);
    // Nobody can say what became of it: its deadline is what ends it.
    ground.wait_for("DeadlineExceeded");
    drop(cut);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((state(&job), job["verdict"].as_str()), (Some("timed-out"), Some("FAILURE")), "{job:#}");
    assert_eq!(job["rows"][0]["status"].as_str(), Some("FAILURE"), "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("reached its deadline") && reason.contains(&silent), "{reason}");
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
    // Others have the cluster as it was: a busy machine answers late.
    cluster.kill("kube-controller-manager");
    cluster.revive("kube-controller-manager", &manager);
}
