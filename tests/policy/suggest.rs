//! From a run to the policy that allows it and nothing more.

use serde_json::json;

use crate::ground::{Answer, Ground, needed};

/// The rule of a suggestion that has this line, taken out.
fn without(policy: &str, line: &str) -> String {
    let rules: Vec<&str> = policy.split("\n[[allow]]").collect();
    let kept: Vec<&str> = rules.iter().copied().filter(|rule| !rule.contains(line)).collect();
    assert_eq!(kept.len() + 1, rules.len(), "`{line}` is not in one rule of {policy}");
    kept.join("\n[[allow]]")
}

/// Runs, takes what `suggest` says, runs under only that, and once without one rule of it.
fn passes_under_its_own_policy_only(ground: &Ground, target: &str, words: &[&str], needed: &str) {
    ground.run(target, words).exits(0);
    let run = ground.runs().pop().unwrap();
    let suggested = ground.call(&["policy", "suggest", &run]).exits(0).stdout;
    // Without a name it is the last run, as everywhere.
    assert_eq!(ground.call(&["policy", "suggest"]).exits(0).stdout, suggested);
    let file = ground.write("least.toml", &suggested).display().to_string();
    ground.call(&["policy", "check", &file]).exits(0);
    let words = [words, &["--policy", &file]].concat();
    ground.run(target, &words).exits(0);
    ground.write("least.toml", &without(&suggested, needed));
    ground.run(target, &words).exits(5).says(&["allows only what it lists"]);
}

#[test]
fn a_process_run_passes_under_what_it_suggests_and_not_under_less() {
    passes_under_its_own_policy_only(&Ground::plain(), "process", &[], "calls = [\"process.launch\"]");
}

#[test]
fn a_container_run_passes_under_what_it_suggests_and_not_under_less() {
    let Some(image) = needed("MADDOCK_TEST_IMAGE") else { return };
    let context = json!({"MAD_CONTAINER_IMAGE": image}).to_string();
    let pulled = std::process::Command::new("docker").args(["pull", "--quiet", &image]).output().unwrap();
    assert!(pulled.status.success(), "{pulled:?}");
    passes_under_its_own_policy_only(
        &Ground::plain(),
        "docker",
        &["-c", &context],
        "calls = [\"docker.create-container\"]",
    );
}

/// The lines that a refusal says would allow the call: TOML as it stands, in no line wider than a terminal of 80 columns.
#[track_caller]
fn lines_of(answer: &Answer) -> String {
    let (_, after) = answer.stderr.split_once("adds to ").or_else(|| answer.stderr.split_once("add to ")).unwrap();
    let lines: Vec<&str> = after
        .lines()
        .skip(1)
        .map(str::trim_start)
        .take_while(|line| line.starts_with(['[', 'p', 'c', 's', 'd']))
        .collect();
    assert!(lines.iter().any(|line| line.starts_with("[[allow]]")), "{answer:#?}");
    assert!(lines.iter().filter(|line| !line.starts_with("scope.")).all(|line| line.len() <= 78), "{lines:#?}");
    lines.join("\n")
}

/// One capability is a few calls at most, for a few kinds of things.
const REFUSALS: usize = 8;

/// The same with one capability taken away, and given back by the lines of the refusal.
fn passes_again_with_the_lines_of_the_refusal(ground: &Ground, target: &str, words: &[&str], needed: &str) {
    ground.run(target, words).exits(0);
    let run = ground.runs().pop().unwrap();
    let suggested = ground.call(&["policy", "suggest", &run]).exits(0).stdout;
    let file = ground.write("least.toml", &suggested).display().to_string();
    ground.call(&["policy", "check", &file]).exits(0);
    let words = [words, &["--policy", &file]].concat();
    ground.run(target, &words).exits(0);
    let less = without(&suggested, needed);
    ground.write("least.toml", &less);
    ground.run(target, &words).exits(5).says(&["allows only what it lists"]);
    // A plan's steps are refused one after the other, and each refusal says the lines for what it is about.
    let mut more = less;
    for _ in 0..REFUSALS {
        let answer = ground.run(target, &words);
        if answer.code == Some(0) {
            return;
        }
        let refused = answer.exits(5);
        more = format!("{more}\n{}\n", lines_of(&refused));
        ground.write("least.toml", &more);
    }
    panic!("the lines of {REFUSALS} refusals do not allow it:\n{more}");
}

#[test]
fn a_batch_job_passes_under_what_it_suggests_and_not_under_less() {
    if needed("SLURM_CONF").is_none() {
        return;
    }
    let context =
        json!({"slurm": {"partition": "cpu", "nodes": 1, "time": "00:05:00", "container": false}}).to_string();
    let ground = Ground::plain().with("COLUMNS", "80");
    passes_again_with_the_lines_of_the_refusal(&ground, "slurm", &["-c", &context], "calls = [\"slurm.submit\"]");
}

/// A namespace that goes away with this.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("policy-{}-{:?}", std::process::id(), std::thread::current().id());
        let name: String = name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let made = std::process::Command::new("kubectl").args(["create", "namespace", &name]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl").args(["delete", "namespace", &self.0, "--wait=false"]).output();
    }
}

#[test]
fn a_job_in_a_cluster_passes_under_what_it_suggests_and_not_under_less() {
    let (Some(_), Some(image)) = (needed("KUBECONFIG"), needed("MADDOCK_TEST_KUBE_IMAGE")) else { return };
    let namespace = Namespace::new();
    let section = json!({"namespace": namespace.0, "image_pull_policy": "IfNotPresent", "memory": "64Mi", "cpu": "20m", "shm_size": "8Mi"});
    let context = json!({"k8s": section, "MAD_CONTAINER_IMAGE": image}).to_string();
    let ground = Ground::plain().with("COLUMNS", "80");
    passes_again_with_the_lines_of_the_refusal(&ground, "k8s", &["-c", &context], "\"kube.create\"]");
}

#[test]
fn a_run_that_there_is_not_is_told_with_those_there_are() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    let last = ground.runs().pop().unwrap();
    ground.call(&["policy", "suggest", "nothing"]).exits(4).says(&["there is no run `nothing`", &last]);
}
