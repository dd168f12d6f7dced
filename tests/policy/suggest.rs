//! From a run to the policy that allows it and nothing more.

use serde_json::json;

use crate::ground::{Ground, needed};

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

#[test]
fn a_run_that_there_is_not_is_told_with_the_last_one() {
    let ground = Ground::plain();
    ground.run("process", &[]).exits(0);
    let last = ground.runs().pop().unwrap();
    ground.call(&["policy", "suggest", "nothing"]).exits(4).says(&[&format!("the last run here is `{last}`")]);
}
