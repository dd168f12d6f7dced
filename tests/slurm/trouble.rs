//! What befalls a cluster while jobs are on it. These tests have a cluster of their own.

use std::os::unix::fs::PermissionsExt as _;

use super::own_cluster::{cluster, with_accounting};
use super::*;

/// Waits for a sign, and has its figure.
fn until_told(signs: &TempDir) -> String {
    let signs = signs.path().display();
    format!(
        "echo begun\ntouch {signs}/begun-$NODE_RANK\nuntil [ -e {signs}/go ]; do sleep 0.2; done\necho \"performance: 42 things_per_second\"\n"
    )
}

/// A directory of programs in front of the search path, with a `squeue` that notes when it was called, for what, and how it
/// ended. The real one does the work.
struct Noted {
    directory: TempDir,
}

impl Noted {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("squeue");
        let text = format!(
            "#!/bin/bash\nbegun=$EPOCHREALTIME\nprintf '%s\\t%s\\n' \"$begun\" \"$*\" >> '{0}/calls'\n\
             PATH=${{PATH#*:}} squeue \"$@\"\ncode=$?\nprintf '%s\\t%s\\n' \"$begun\" \"$code\" >> '{0}/ends'\nexit \"$code\"\n",
            directory.path().display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn path(&self) -> String {
        format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap())
    }

    fn lines(&self, file: &str) -> Vec<(f64, String)> {
        let text = std::fs::read_to_string(self.directory.path().join(file)).unwrap_or_default();
        let pair = |line: &str| line.split_once('\t').map(|(at, what)| (at.parse().unwrap(), what.to_owned()));
        text.lines().filter_map(pair).collect()
    }

    /// Questions about the state of jobs: when, and for which.
    fn questions(&self) -> Vec<(f64, Vec<String>)> {
        let ids = |what: String| {
            let (_, ids) = what.split_once("--jobs=")?;
            Some(ids.split(' ').next().unwrap_or_default().split(',').map(str::to_owned).collect())
        };
        self.lines("calls").into_iter().filter_map(|(at, what)| Some((at, ids(what)?))).collect()
    }

    fn failures(&self) -> usize {
        self.lines("ends").iter().filter(|(_, code)| code != "0").count()
    }
}

fn text<'a>(job: &'a Value, pointer: &str) -> &'a str {
    job.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn a_node_that_dies_under_a_job_is_a_loss_and_a_failed_row() {
    let Some(cluster) = cluster("a node dies") else { return };
    let signs = tempfile::tempdir().unwrap();
    // Both nodes have printed a metric before: that makes no success of it.
    let script = format!("echo \"performance: 42 things_per_second\"\n{}", until_told(&signs));
    let Some(ground) = Ground::new("a node dies", json!({}), &script) else { return };
    let _turn = cluster.with_others();
    let run = cluster.command(&ground, "doomed", json!({"nodes": 2})).spawn().unwrap();
    until("both nodes", || (0..2).all(|rank| signs.path().join(format!("begun-{rank}")).exists()));
    cluster.kill("node4");
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((text(&job, "/execution/state"), text(&job, "/verdict")), ("lost", "FAILURE"), "{job:#}");
    assert!(text(&job, "/reason").contains("lost a node"), "{job:#}");
    let row = &job["rows"][0];
    assert_eq!((&row["status"], &row["performance"]), (&json!("FAILURE"), &Value::Null), "{row:#}");
    assert!(ground.log().contains("begun\n"), "the output so far came back");
    assert!(cluster.queue(&ground).is_empty(), "it was not put into the queue again");
}

#[test]
fn a_job_whose_time_is_over_is_ended_by_the_scheduler_and_told_as_such() {
    let Some(cluster) = cluster("time is over") else { return };
    let signs = tempfile::tempdir().unwrap();
    let script = format!("echo \"performance: 42 things_per_second\"\n{}", until_told(&signs));
    let Some(ground) = Ground::new("time is over", json!({}), &script) else { return };
    let _turn = cluster.with_others();
    let run = cluster.command(&ground, "calm", json!({"nodes": 2})).spawn().unwrap();
    until("both nodes", || (0..2).all(|rank| signs.path().join(format!("begun-{rank}")).exists()));
    let id = ground.wait_for("running on node");
    // The shortest limit is a minute: it is made to be over now.
    cluster.tell(&["update", &format!("jobid={id}"), "endtime=now"]);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((text(&job, "/execution/state"), text(&job, "/verdict")), ("timed-out", "FAILURE"), "{job:#}");
    assert_eq!(text(&job, "/rows/0/status"), "FAILURE");
    assert!(cluster.queue(&ground).is_empty());
}

#[test]
fn a_job_for_drained_nodes_waits_and_says_so_until_it_is_taken_away_or_they_come_back() {
    let Some(cluster) = cluster("drained nodes") else { return };
    let _turn = cluster.with_others();
    cluster.tell(&["update", "nodename=node5", "state=drain", "reason=testing"]);

    let Some(ground) = Ground::new("drained nodes", json!({}), GOOD) else { return };
    let run = cluster.command(&ground, "drained", json!({})).spawn().unwrap();
    ground.wait_for("DRAINED");
    assert_eq!(cluster.queue(&ground).len(), 1);
    interrupt(&run);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("DRAINED"), "the reason is shown: {}", said(&output));
    let job = ground.job();
    assert_eq!((text(&job, "/execution/state"), text(&job, "/verdict")), ("cancelled", "FAILURE"), "{job:#}");
    assert_eq!(text(&job, "/rows/0/status"), "FAILURE");
    assert!(cluster.queue(&ground).is_empty());

    let Some(ground) = Ground::new("nodes that come back", json!({}), GOOD) else { return };
    let run = cluster.command(&ground, "drained", json!({})).spawn().unwrap();
    ground.wait_for("DRAINED");
    cluster.tell(&["update", "nodename=node5", "state=resume"]);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(text(&ground.job(), "/rows/0/performance"), "42.5");
    assert!(cluster.queue(&ground).is_empty());

    // A partition that takes nothing is another thing: the scheduler refuses at once.
    cluster.tell(&["update", "partitionname=drained", "state=drain"]);
    let Some(ground) = Ground::new("a drained partition", json!({}), GOOD) else { return };
    let output = cluster.command(&ground, "drained", json!({})).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let job = ground.job();
    assert_eq!((text(&job, "/execution/state"), text(&job, "/verdict")), ("never-started", "FAILURE"), "{job:#}");
    assert_eq!(text(&job, "/rows/0/status"), "FAILURE");
    assert!(cluster.queue(&ground).is_empty());
}

#[test]
fn a_job_goes_on_and_counts_although_the_controller_is_killed_under_it() {
    let Some(cluster) = cluster("the controller is killed") else { return };
    let (signs, noted) = (tempfile::tempdir().unwrap(), Noted::new());
    let Some(ground) = Ground::new("the controller is killed", json!({}), &until_told(&signs)) else { return };
    let _turn = cluster.alone();
    let run = cluster.command(&ground, "calm", json!({"nodes": 2})).env("PATH", noted.path()).spawn().unwrap();
    let id = ground.wait_for("running on node");
    // It would forget what it has not saved yet: that is the scheduler's matter, not ours. A change makes it save.
    let seen = std::time::SystemTime::now();
    let saved = || std::fs::metadata(cluster.saved_jobs()).is_ok_and(|file| file.modified().unwrap() > seen);
    until("both nodes", || (0..2).all(|rank| signs.path().join(format!("begun-{rank}")).exists()));
    cluster.tell(&["update", &format!("jobid={id}"), "jobname=seen"]);
    until("the controller to save its jobs", saved);
    cluster.kill("slurmctld");
    let before = noted.failures();
    until("a question without an answer", || noted.failures() > before);
    // The job ends while nobody is there to take note of it.
    std::fs::write(signs.path().join("go"), "").unwrap();
    cluster.repair();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    assert_eq!((text(&job, "/execution/state"), text(&job, "/verdict")), ("exited", "SUCCESS"), "{job:#}");
    assert_eq!(text(&job, "/rows/0/performance"), "84", "both nodes' rates");
    assert_eq!(ground.log().matches("begun\n").count(), 2, "it ran once");
    let events = std::fs::read_to_string(ground.directory().join("events.jsonl")).unwrap();
    assert!(!events.contains("\"phase\":\"unknown\""), "nobody lost sight of it meanwhile: {events}");
    assert!(cluster.queue(&ground).is_empty());
}

#[test]
fn a_job_that_the_controller_forgot_is_judged_by_what_its_nodes_left_where_there_is_no_accounting() {
    let Some(cluster) = cluster("no accounting") else { return };
    let turn = cluster.alone();
    let bad = format!("{GOOD}exit 5\n");
    let grounds: Vec<Ground> =
        [GOOD, bad.as_str()].iter().filter_map(|script| Ground::new("no accounting", json!({}), script)).collect();
    if grounds.is_empty() {
        return;
    }
    let (content, told) = cluster.ask("sacct", &[]);
    assert!(!content, "{told}");
    let kept = std::fs::read_to_string(cluster.configuration()).unwrap();
    std::fs::write(cluster.configuration(), format!("{kept}MinJobAge=2\n")).unwrap();
    cluster.tell(&["reconfigure"]);
    for ground in &grounds {
        let output = cluster.command(ground, "calm", json!({})).arg("--detach").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    for ground in &grounds {
        let id = ground.wait_for("is handed in");
        until("the controller to forget", || !cluster.ask("scontrol", &["show", "job", &id]).0);
    }
    std::fs::write(cluster.configuration(), &kept).unwrap();
    cluster.tell(&["reconfigure"]);
    drop(turn);
    let _turn = cluster.with_others();
    // Nobody waits for an accounting where all nodes have said how it ended.
    let collect = |ground: &Ground| {
        let mut collect = Command::new(MADDOCK);
        collect.args(["collect", "last"]).current_dir(ground.work()).env("SLURM_CONF", cluster.configuration());
        collect.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let collecting: Vec<Child> = grounds.iter().map(collect).collect();
    for ((ground, collecting), (exit, code, verdict)) in
        grounds.iter().zip(collecting).zip([(0, 0, "SUCCESS"), (3, 5, "FAILURE")])
    {
        let output = collecting.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{}", said(&output));
        let events = std::fs::read_to_string(ground.directory().join("events.jsonl")).unwrap();
        assert!(events.contains("it is not in the queue, and no accounting knows it yet"), "{events}");
        assert!(!events.contains("it has left the queue"), "{events}");
        let job = ground.job();
        assert_eq!((job["execution"]["code"].as_i64(), text(&job, "/verdict")), (Some(code), verdict), "{job:#}");
        assert_eq!(text(&job, "/rows/0/status"), verdict);
    }
}

#[test]
fn a_job_that_the_controller_forgot_is_judged_by_the_accounting_where_its_nodes_left_nothing() {
    let Some(cluster) = with_accounting("an accounting") else { return };
    let _turn = cluster.with_others();
    for (end, exit, state, code) in
        [("", 0, "exited", Some(0)), ("exit 5\n", 3, "exited", Some(5)), ("time", 3, "timed-out", None)]
    {
        let signs = tempfile::tempdir().unwrap();
        let late = end == "time";
        let script = if late { until_told(&signs) } else { format!("{GOOD}{end}") };
        let Some(ground) = Ground::new("an accounting", json!({}), &script) else { return };
        let output = cluster.command(&ground, "calm", json!({})).arg("--detach").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let id = ground.wait_for("is handed in");
        if late {
            until("the job", || signs.path().join("begun-0").exists());
            cluster.tell(&["update", &format!("jobid={id}"), "endtime=now"]);
        }
        until("the controller to forget", || !cluster.ask("scontrol", &["show", "job", &id]).0);
        // As where a node is killed outright.
        for file in ["ended", "result"] {
            let _ = std::fs::remove_file(ground.job_directory().join("nodes/0").join(file));
        }
        let mut collect = Command::new(MADDOCK);
        collect.args(["collect", "last"]).current_dir(ground.work()).env("SLURM_CONF", cluster.configuration());
        let output = collect.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{}", said(&output));
        let job = ground.job();
        assert_eq!((text(&job, "/execution/state"), job["execution"]["code"].as_i64()), (state, code), "{job:#}");
        assert_eq!(text(&job, "/rows/0/status"), if exit == 0 { "SUCCESS" } else { "FAILURE" }, "{job:#}");
    }
}

#[test]
fn a_busy_cluster_whose_nodes_cannot_be_listed_lets_a_job_wait_and_not_fail() {
    let Some(cluster) = cluster("a busy cluster") else { return };
    let Some(ground) = Ground::new("a busy cluster", json!({}), GOOD) else { return };
    let _turn = cluster.with_others();
    let arguments =
        ["--parsable", "--partition=busy", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"];
    let (content, others) = cluster.ask("sbatch", &arguments);
    assert!(content, "{others}");
    let broken = tempfile::tempdir().unwrap();
    let sinfo = broken.path().join("sinfo");
    std::fs::write(&sinfo, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&sinfo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", broken.path().display(), std::env::var("PATH").unwrap());
    let mut command = cluster.command(&ground, "busy", json!({"nodes": 2}));
    let run = command.env("PATH", path).spawn().unwrap();
    ground.wait_for("pending: ");
    assert_eq!(cluster.queue(&ground).len(), 1);
    cluster.ask("scancel", &[others.trim()]);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(text(&ground.job(), "/rows/0/performance"), "85.0", "both nodes' rates");
    assert!(cluster.queue(&ground).is_empty());
}

#[test]
fn fifty_jobs_at_once_are_asked_for_together_and_no_more_often_than_one() {
    const MANY: usize = 50;
    let Some(cluster) = cluster("fifty jobs") else { return };
    let (signs, noted) = (tempfile::tempdir().unwrap(), Noted::new());
    let Some(ground) = Ground::new("fifty jobs", json!({}), &until_told(&signs)) else { return };
    let list = ground.root.path().join("tree/models.json");
    let one: Value = serde_json::from_str(&std::fs::read_to_string(&list).unwrap()).unwrap();
    let many: Vec<Value> =
        (0..MANY).map(|number| with(one[0].clone(), json!({"name": format!("m{number}")}))).collect();
    std::fs::write(&list, json!(many).to_string()).unwrap();

    let _turn = cluster.with_others();
    let mut command = cluster.command(&ground, "calm", json!({}));
    command.args(["--jobs", &MANY.to_string()]).env("PATH", noted.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = command.spawn().unwrap();
    until("a question for all", || noted.questions().iter().any(|(_, ids)| ids.len() == MANY));
    assert_eq!(cluster.queue(&ground).len(), MANY);
    std::fs::write(signs.path().join("go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));

    let questions = noted.questions();
    for pair in questions.windows(2) {
        // One poller rests for a second between two questions, however many jobs it asks for.
        assert!(pair[1].0 - pair[0].0 >= 1.0, "{pair:?}");
    }
    let table = std::fs::read_to_string(ground.work().join("perf.csv")).unwrap();
    assert_eq!(table.lines().filter(|line| line.contains("SUCCESS")).count(), MANY, "{table}");
    assert!(cluster.queue(&ground).is_empty());
}

/// A directory with a `scontrol` that has no answer about jobs, in front of the search path. The real one does the rest.
fn mute() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("scontrol");
    let text = "#!/bin/bash\n[ \"$1 $2\" != 'show job' ] || { echo 'scontrol: error: out of order' >&2; exit 1; }\n\
                PATH=${PATH#*:} exec scontrol \"$@\"\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    (directory, path)
}

#[test]
fn a_job_that_cannot_be_ended_is_not_recorded_as_cancelled_and_can_be_ended_later() {
    let script = "echo here\nsleep 600\n";
    let Some(ground) = Ground::new("a job that cannot be ended", json!({}), script) else { return };
    let (_mute, path) = mute();
    let mut command = ground.command(&cpu());
    command.env("PATH", &path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    let id = ground.wait_for("running on node");
    interrupt(&run);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains(&format!("batch job {id} was not ended and may go on")), "{}", said(&output));
    assert!(said(&output).contains(&format!("`scancel {id}`")), "{}", said(&output));
    assert!(!ground.job_directory().join("job.json").exists(), "it has no verdict: {}", said(&output));
    assert!(!ground.queue().is_empty(), "it goes on");

    // To follow it to its own end is not what was asked for either.
    let cancel = |path: Option<&str>| {
        let mut command = Command::new(MADDOCK);
        command.args(["cancel", "last"]).current_dir(ground.work()).stdin(Stdio::null());
        path.map(|path| command.env("PATH", path));
        command.output().unwrap()
    };
    let output = cancel(Some(&path));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&format!("`scancel {id}`")), "{}", said(&output));
    assert!(!ground.queue().is_empty(), "it goes on");

    let output = cancel(None);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(ground.queue(), "");
    assert_eq!(text(&ground.job(), "/execution/state"), "cancelled");
}
