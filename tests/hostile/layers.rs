//! Policy itself: layers that would widen what is above them, names that would pass for others, rules that would mean more than
//! they say.

use serde_json::json;

use crate::ground::{Ground, can_have_a_site};
use crate::lair::{Lair, NAME};
use crate::stage::Stage;

const WIDE: &str = "schema = 1\n[[allow]]\nplugin = \"*\"\ncalls = [\"*\"]\nscope.inline-code = [\"**\"]\n";

/// What a plugin may do after its user, project and command line said so.
fn explained(ground: &Ground, words: &[&str]) -> Option<i32> {
    ground.call(&[&["policy", "explain"], words].concat()).code
}

#[test]
fn a_project_grants_nothing() {
    let ground = Ground::plain();
    ground.write("work/maddock-policy.toml", &WIDE.replace("\"*\"\ncalls", "\"target-docker\"\ncalls"));
    assert_eq!(explained(&ground, &["target-docker", "docker.create-container", "privileged=true"]), Some(5));
}

#[test]
fn the_command_line_grants_nothing() {
    let ground = Ground::plain();
    let file =
        ground.write("wide.toml", &WIDE.replace("\"*\"\ncalls", "\"target-docker\"\ncalls")).display().to_string();
    assert_eq!(
        explained(&ground, &["target-docker", "docker.create-container", "privileged=true", "--policy", &file]),
        Some(5)
    );
}

#[test]
fn everybody_is_granted_nothing_by_a_star() {
    let lair = Lair::new().rules("[[allow]]\nplugin = \"target-docker\"\ncalls = [\"*\"]\n");
    lair.order(json!({"do": "files.stat", "path": "/etc"})).denied();
    let stage = Stage::target(json!({}));
    stage.ground.user(WIDE);
    let answer = stage.run(&[]);
    assert!(answer.code == Some(4), "{answer:#?}");
}

#[test]
fn a_name_alone_is_no_grant_to_a_third_party() {
    let stage = Stage::target(json!({"watch": [{"do": "facts.hostname"}]}));
    stage.ground.user("schema = 1\n[[allow]]\nplugin = \"hostile\"\ncalls = [\"*\"]\n");
    stage.run(&[]).exits(4).says(&["a name is no grant"]);
    assert!(stage.ground.trace().is_empty(), "nothing was called");
}

#[test]
fn a_part_of_a_digest_is_no_digest() {
    let stage = Stage::target(json!({}));
    for digest in ["sha256:", "sha256:0", "", "*", "sha256:**"] {
        stage
            .ground
            .user(&format!("schema = 1\n[[allow]]\nplugin = \"hostile\"\ndigest = \"{digest}\"\ncalls = [\"*\"]\n"));
        assert_eq!(stage.run(&[]).code, Some(4), "{digest}");
    }
}

#[test]
fn what_a_built_in_may_is_not_inherited_by_another_digest() {
    use maddock::capability::gate::Identity;
    use maddock::capability::policy::{Policy, Roots};
    let run = std::path::PathBuf::from("/run/of/this");
    let policy = Policy::shipped(Roots { run, ..Roots::default() }).unwrap();
    let asked = [("path", "/run/of/this/x".to_owned())];
    let who = |built_in: bool| Identity {
        name: "target-docker".to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        built_in,
        signer: None,
    };
    assert!(policy.decide(&who(true), "files.write", &asked).is_allowed());
    assert!(!policy.decide(&who(false), "files.write", &asked).is_allowed());
    let kernel = Identity { name: "kernel".to_owned(), ..who(false) };
    assert!(!policy.decide(&kernel, "docker.remove-container", &[("container", "x".to_owned())]).is_allowed());
}

#[test]
fn a_denial_beats_a_grant_of_the_same_file() {
    let lair = Lair::with_files().rules("[[deny]]\nplugin = \"*\"\ncalls = [\"files.write\"]\n");
    lair.order(json!({"do": "files.write", "path": lair.at("run/x"), "bytes": "x"})).denied();
}

#[test]
fn a_denial_by_a_name_holds_for_a_plugin_of_any_digest() {
    let lair = Lair::with_files().rules(&format!("[[deny]]\nplugin = \"{NAME}\"\ncalls = [\"files.*\"]\n"));
    lair.order(json!({"do": "files.stat", "path": lair.at("run")})).denied();
}

#[test]
fn what_is_narrowed_is_not_widened_by_another_grant() {
    let lair = Lair::with_files()
        .rules("[[narrow]]\nplugin = \"*\"\ncalls = [\"files.*\"]\nscope.path = [\"$run/small/**\"]\n")
        .grant(&["files.*"], "");
    lair.order(json!({"do": "files.stat", "path": lair.at("run/other")})).denied();
    lair.order(json!({"do": "files.stat", "path": lair.at("run/small/x")})).ok();
}

#[test]
fn two_rules_do_not_add_up_to_one_call() {
    let lair = Lair::new()
        .grant(&["files.copy", "files.read"], "scope.path = [\"$run/**\"]\nscope.source = [\"$run/**\"]")
        .grant(&["files.copy", "files.read"], "scope.path = [\"$output/**\"]\nscope.source = [\"$output/**\"]");
    lair.write("output/x", "x");
    lair.order(json!({"do": "files.copy", "source": lair.at("output/x"), "path": lair.at("run/x")})).denied();
}

#[test]
fn a_directory_that_an_invocation_does_not_have_allows_nothing() {
    let lair = Lair::new().grant(&["files.*"], "scope.path = [\"$results/**\"]");
    for path in ["/", "/etc/passwd", "/x"] {
        lair.order(json!({"do": "files.stat", "path": path})).denied();
    }
}

#[test]
fn a_wildcard_within_a_segment_is_an_error_and_no_wildcard() {
    let ground = Ground::plain();
    for pattern in ["$run/job*", "/etc/pass*d", "$run/**/x", "**/x"] {
        let file = ground.write("p.toml", &format!("schema = 1\n[[allow]]\nplugin = \"target-process\"\ncalls = [\"files.read\"]\nscope.path = [\"{pattern}\"]\n"));
        ground.call(&["policy", "check", &file.display().to_string()]).exits(4);
    }
}

#[test]
fn a_word_that_nobody_knows_stops_everything_instead_of_being_left_out() {
    for text in [
        "schema = 1\n[[deny]]\nplugin = \"*\"\ncalls = [\"files.raed\"]\n",
        "schema = 1\n[[deny]]\nplugin = \"*\"\ncalls = [\"files.read\"]\nscope.pth = [\"/**\"]\n",
        "schema = 1\n[[denyy]]\nplugin = \"*\"\ncalls = [\"files.read\"]\n",
        "schema = 2\n",
        "only_listed = true\n",
        "schema = 1\nonly_listed = \"yes\"\n",
    ] {
        let ground = Ground::plain();
        ground.user(text);
        assert_eq!(ground.run("process", &[]).code, Some(4), "{text}");
        assert!(ground.trace().is_empty(), "nothing was called");
    }
}

#[test]
fn a_user_s_file_that_others_can_write_or_that_is_no_file_stops_everything() {
    let ground = Ground::plain();
    ground.user("schema = 1\n");
    ground.mode("config/maddock/policy.toml", 0o622);
    ground.run("process", &[]).exits(5);
    let path = ground.path("config/maddock/policy.toml");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    ground.run("process", &[]).exits(5);
    std::fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600), 0).unwrap();
    ground.run("process", &[]).exits(5);
}

#[test]
fn a_policy_without_end_is_not_read_whole() {
    let ground = Ground::plain();
    let file = ground.write("huge.toml", "schema = 1\n");
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 33).unwrap();
    ground.run("process", &["--policy", &file.display().to_string()]).exits(5).says(&["longer than"]);
}

#[test]
fn a_deep_policy_is_refused_in_a_sentence() {
    let ground = Ground::plain();
    let file = ground.write("deep.toml", &format!("schema = 1\nx = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000)));
    let answer = ground.run("process", &["--policy", &file.display().to_string()]);
    assert!(answer.code == Some(4) && answer.stderr.len() < 5000, "{:?} {}", answer.code, answer.stderr.len());
}

#[test]
fn a_user_says_nothing_that_is_for_a_site_to_say() {
    let ground = Ground::plain();
    ground.user("schema = 1\nusers_may_grant = true\n");
    ground.run("process", &[]).exits(4).says(&["is for a site to say"]);
}

#[test]
fn below_a_site_a_user_grants_nothing() {
    if !can_have_a_site() {
        return;
    }
    let stage = Stage::target(
        json!({"watch": [{"do": "facts.hostname"}, {"do": "events.output", "bytes": "performance: 5 things\n"}]}),
    );
    let granted = format!("schema = 1\n{}", stage.granted(&["facts.hostname"], ""));
    stage.ground.user(&granted);
    let allowed = |stage: &Stage| {
        stage.ground.trace().iter().any(|line| line["call"] == "facts.hostname" && line["verdict"] == "allowed")
    };
    stage.run(&[]).exits(0);
    assert!(allowed(&stage), "without a site the user decides");
    let stage = stage.below("schema = 1\n");
    std::fs::remove_dir_all(stage.ground.work().join(".maddock")).unwrap();
    stage.run(&[]);
    assert!(!allowed(&stage), "below a site the user does not");
}

#[test]
fn limits_of_a_lower_layer_only_tighten() {
    let lair = Lair::new()
        .rules("[[limits]]\nplugin = \"*\"\nlog = \"1000 GiB\"\nhost-calls = 1000000000\n")
        .limited(|ceilings| ceilings.log = 1 << 16);
    let said = lair.end(json!([{"do": "events.log", "bytes": "x", "times": 1000, "again": 1000}]));
    assert!(said.contains("told more than 65536 bytes"), "{said}");
}
