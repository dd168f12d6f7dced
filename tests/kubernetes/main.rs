//! The program against a real cluster, which `KUBECONFIG` names: jobs that end well, that do not, and what is left over. The
//! nodes have the image that `MADDOCK_TEST_KUBE_IMAGE` names, with bash in it. Without either, every test says that it was
//! skipped. What a test asks of the cluster beside the program, it asks by `kubectl`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test fails by panicking, and says what it skips"
)]

mod attempts;
mod detached;
mod disturbed;
mod ground;
mod manifests;
mod own_cluster;
mod rights;
mod trouble;
#[path = "../hazards/values.rs"]
mod values;

use serde_json::json;

use ground::{GOOD, Ground, NOTHING, interrupt, kubectl, said};

#[test]
fn a_job_of_one_pod_ends_well_has_its_row_and_leaves_nothing() {
    let Some(ground) = Ground::new("one pod", json!({}), GOOD) else { return };
    let output = ground.run(json!({}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!((row["performance"].as_str(), row["status"].as_str()), (Some("42.5"), Some("SUCCESS")), "{job:#}");
    assert_eq!(row["deployment_type"].as_str(), Some("kubernetes"));
    assert!(row["machine_name"].as_str().unwrap().starts_with("madengine-m-"), "{job:#}");
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn pods_of_a_job_find_each_other_by_name_and_know_their_ranks() {
    // The first waits for a word of the second, which it gets at the name that all know it by.
    let script = r#"echo "I am $NODE_RANK of $NNODES at $(hostname)"
if [ "$NODE_RANK" = 0 ]; then
  perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalPort => $ENV{MASTER_PORT}, Listen => 1, ReuseAddr => 1) or die $!;
    my $c = $s->accept; print "heard: ", scalar <$c>;'
else
  perl -MIO::Socket::INET -e 'for (1 .. 300) { my $s = IO::Socket::INET->new(PeerAddr => "$ENV{MASTER_ADDR}:$ENV{MASTER_PORT}");
    if ($s) { print $s "hello\n"; exit 0 } select undef, undef, undef, 0.2 } die "nobody at $ENV{MASTER_ADDR}";' || exit 9
fi
echo "n,$NODE_RANK" > x_output.csv
echo "performance: 1$NODE_RANK things_per_second"
"#;
    let Some(ground) = Ground::new("two pods", json!({}), script) else { return };
    let context = json!({"distributed": {"launcher": "torchrun", "nnodes": 2}});
    let output = ground.command(json!({}), context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    assert!(log.contains("heard: hello"), "{log}");
    for rank in 0..2 {
        assert!(log.lines().any(|line| line.starts_with(&format!("I am {rank} of 2 at madengine-m-"))), "{log}");
    }
    let job = ground.job();
    let row = &job["rows"][0];
    assert_eq!(row["performance"].as_str(), Some("21"), "the sum of both nodes' rates: {job:#}");
    assert_eq!(job["evidence"]["nodes"], json!({"expected": 2, "reported": 2}));
    assert_eq!(std::fs::read_to_string(ground.work().join("x_output.csv")).unwrap(), "n,0\n");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_pod_that_fails_makes_the_job_a_failure_although_it_has_a_metric() {
    let script = "echo \"performance: 5 things_per_second\"\necho last words\necho x > a_output.csv\nexit 7\n";
    let Some(ground) = Ground::new("a failing pod", json!({}), script) else { return };
    let output = ground.run(json!({}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(7)), "{job:#}");
    assert_eq!(job["rows"][0]["status"].as_str(), Some("FAILURE"));
    assert!(ground.log().contains("last words"));
    assert!(ground.work().join("a_output.csv").exists(), "results come whatever became of the model");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn one_failing_pod_of_two_ends_the_other() {
    let script = "echo \"performance: 5 things_per_second\"\nif [ \"$NODE_RANK\" = 1 ]; then exit 7; fi\nsleep 600\n";
    let Some(ground) = Ground::new("one of two fails", json!({}), script) else { return };
    let context = json!({"distributed": {"launcher": "torchrun", "nnodes": 2}});
    let output = ground.command(json!({}), context).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((job["verdict"].as_str(), job["execution"]["code"].as_i64()), (Some("FAILURE"), Some(7)), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("node 1"), "{job:#}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_pod_that_no_node_takes_is_told_and_never_started() {
    let Some(ground) = Ground::new("unschedulable", json!({}), GOOD) else { return };
    let output = ground.run(json!({"node_selector": {"no-such": "node"}, "active_deadline_seconds": 30}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert!(ground.wait_for("no node takes the pod").contains("queued"));
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn waiting_for_a_node_may_have_a_limit_of_its_own() {
    let Some(ground) = Ground::new("queue timeout", json!({}), GOOD) else { return };
    let output = ground.run(json!({"node_selector": {"no-such": "node"}, "queue_timeout": 2}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn an_image_that_is_not_there_is_never_started() {
    let Some(mut ground) = Ground::new("bad image", json!({}), GOOD) else { return };
    ground.image = "localhost/no-such-image:1".to_owned();
    let output = ground.run(json!({"start_timeout": 3}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    assert!(job["reason"].as_str().unwrap().contains("mage"), "{job:#}");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_model_s_own_limit_ends_it_and_its_results_come_all_the_same() {
    let script = "echo x > a_output.csv\necho \"performance: 5 things_per_second\"\nsleep 600\n";
    let Some(ground) = Ground::new("time limit", json!({}), script) else { return };
    let output = ground.command(json!({}), json!({})).args(["--timeout", "3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("timed-out"), "{job:#}");
    assert!(ground.work().join("a_output.csv").exists());
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_cluster_s_deadline_is_a_time_that_is_over() {
    let Some(ground) = Ground::new("deadline", json!({}), "echo here\nsleep 600\n") else { return };
    let output = ground.run(json!({"active_deadline_seconds": 60}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("timed-out"), "{job:#}");
    assert!(ground.log().contains("here"));
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_job_that_somebody_else_deletes_is_cancelled_and_no_success() {
    let script = "echo \"performance: 5 things_per_second\"\nsleep 600\n";
    let Some(ground) = Ground::new("deleted from outside", json!({}), script) else { return };
    let mut run = ground.start(json!({}));
    ground.wait_for("\"running\"");
    let jobs = ground.names("job");
    assert_eq!(jobs.len(), 1);
    assert!(kubectl(&["delete", "--namespace", &ground.namespace, &jobs[0], "--wait=false"]).status.success());
    assert_eq!(run.wait().unwrap().code(), Some(3));
    let job = ground.job();
    assert_eq!(
        (job["execution"]["state"].as_str(), job["verdict"].as_str()),
        (Some("cancelled"), Some("FAILURE")),
        "{job:#}"
    );
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn ctrl_c_takes_everything_along_and_a_bystander_of_a_like_name_survives() {
    let Some(ground) = Ground::new("ctrl-c", json!({}), "echo here\nsleep 600\n") else { return };
    ground.bystander();
    let mut run = ground.start(json!({}));
    ground.wait_for("\"running\"");
    interrupt(&run);
    assert_ne!(run.wait().unwrap().code(), Some(0));
    assert_eq!(ground.job()["execution"]["state"].as_str(), Some("cancelled"));
    assert_eq!(ground.left_beside_the_bystander(), NOTHING);
}

#[test]
fn hostile_values_arrive_in_the_pod_as_they_are() {
    let hostile = "a b'c\"d$(touch pwned)`id`\\n;&|<>*?[x]{1,2}~!#$HOME $(HOME) $$ ünï\nnext";
    let script = "printf 'value <%s>\\nother <%s>\\n' \"$HOSTILE\" \"$OTHER\"\nprintf 'argument <%s>\\n' \"$@\"\n\
                  echo \"performance: 1 things_per_second\"\n";
    let Some(ground) = Ground::new("hostile values", json!({"args": "--x='$(id) `id` $HOME' -rf"}), script) else {
        return;
    };
    let context = json!({"docker_env_vars": {"HOSTILE": hostile}, "env_vars": {"OTHER": hostile, "_comment": "x"}});
    let output = ground.command(json!({}), context).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    for expected in [
        format!("value <{hostile}>"),
        format!("other <{hostile}>"),
        "argument <--x=$(id) `id` $HOME>".to_owned(),
        "argument <-rf>".to_owned(),
    ] {
        assert!(log.contains(&expected), "{expected}: {log}");
    }
}

#[test]
fn whatever_names_arguments_and_variables_hold_arrives_in_the_pod_as_it_is() {
    if Ground::new("any values", json!({}), GOOD).is_none() {
        return;
    }
    values::arrive(2, |values| {
        let ground = Ground::new("any values", values.card(), &values::script()).unwrap();
        let output = ground.command(json!({}), json!({"docker_env_vars": values.environment()})).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{values:?}: {}", said(&output));
        assert_eq!(ground.job()["rows"][0]["model"], values.model);
        assert_eq!(ground.left(), NOTHING);
        ground.log_so_far()
    });
}

#[test]
fn results_on_a_claim_are_fetched_also_when_their_pod_did_not_wait() {
    let Some(ground) = Ground::new("a claim of our own", json!({}), GOOD) else { return };
    let output = ground.run(json!({"results_storage_size": "10Mi", "results_wait": 0}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn results_that_nobody_kept_are_said_to_be_missing() {
    let Some(ground) = Ground::new("nobody keeps results", json!({}), GOOD) else { return };
    let output = ground.run(json!({"results_wait": 0}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let brought = ground.work().join("a_output.csv").exists();
    let missing = said(&output).contains("the files of node 0 could not be brought");
    assert_ne!(brought, missing, "{}", said(&output));
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_restricted_profile_runs_as_nobody_of_consequence() {
    let script = "id -u\ntouch /root/x && echo 'too much'\ngrep -h '^CapEff' /proc/self/status\necho x > a_output.csv\n\
                  echo \"performance: 1 things_per_second\"\n";
    let Some(ground) = Ground::new("restricted", json!({}), script) else { return };
    let output = ground.command(json!({}), json!({})).args(["--container-profile", "restricted"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = ground.log();
    assert!(log.contains("1000\n") && !log.contains("too much"), "{log}");
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
    assert!(ground.work().join("a_output.csv").exists());
}

#[test]
fn a_namespace_for_restricted_pods_takes_those_of_the_restricted_profile_and_says_so_of_others() {
    let Some(ground) = Ground::new("pod security", json!({}), GOOD) else { return };
    let label = "pod-security.kubernetes.io/enforce=restricted";
    assert!(ground.kubectl(&["label", "namespace", &ground.namespace, label]).status.success());
    let image = format!("--image={}", ground.image);
    let rehearsal = ["run", "x", &image, "--privileged", "--dry-run=server", "--namespace", &ground.namespace];
    if ground.kubectl(&rehearsal).status.success() {
        println!("skipped: pod security (the cluster is older than that, and takes any pod)");
        return;
    }
    // At once, not when an image or a configuration might have been mended.
    let output = ground.run(json!({"start_timeout": 100_000}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["execution"]["state"].as_str(), Some("never-started"), "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("violates PodSecurity") && reason.contains("--container-profile restricted"), "{reason}");
    // Neither what runs as root in its image nor what needs its powers, and nothing else.
    assert!(!reason.contains("seccompProfile") && !reason.contains("allowPrivilegeEscalation"), "{reason}");
    std::fs::remove_dir_all(ground.work().join(".maddock")).unwrap();
    let output = ground.command(json!({}), json!({})).args(["--container-profile", "restricted"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(ground.work().join("a_output.csv").exists());
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_job_that_the_cluster_deletes_as_soon_as_it_has_ended_has_ended_well() {
    let Some(ground) = Ground::new("deleted after its end", json!({}), GOOD) else { return };
    let output = ground.run(json!({"ttl_seconds_after_finished": 0}));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    assert_eq!(
        (job["verdict"].as_str(), job["execution"]["state"].as_str()),
        (Some("SUCCESS"), Some("exited")),
        "{job:#}"
    );
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_dry_run_prints_the_objects_with_the_files_and_makes_nothing() {
    let Some(ground) = Ground::new("dry run", json!({}), GOOD) else { return };
    let output = ground.command(json!({}), json!({})).arg("--dry-run").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = said(&output);
    for expected in ["kind: Job", "kind: ConfigMap", "activeDeadlineSeconds: ", "rank $NODE_RANK of $NNODES"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn a_namespace_that_is_not_there_is_a_failure_that_says_so() {
    let Some(ground) = Ground::new("no such namespace", json!({}), GOOD) else { return };
    let output = ground.run(json!({"namespace": "no-such-namespace"}));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("no-such-namespace"), "{}", said(&output));
}
