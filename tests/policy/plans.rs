//! A whole plan is decided before its first effect.

use crate::ground::Ground;

const NO_LAUNCH: &str = "schema = 1\n[[deny]]\nplugin = \"target-process\"\ncalls = [\"process.launch\"]\nreason = \"not on this machine\"\n";

#[test]
fn a_plan_with_a_refused_step_is_never_begun() {
    let ground = Ground::plain();
    ground.user(NO_LAUNCH);
    ground
        .run("process", &[])
        .exits(5)
        .says(&["m: policy refuses plugin `target-process` the call `process.launch`", "not on this machine"]);
    let written: Vec<_> = ground
        .trace()
        .into_iter()
        .filter(|line| {
            line["plugin"] == "target-process"
                && line["call"] != "files.list-directory"
                && line["call"] != "files.stat"
                && line["call"] != "files.read"
        })
        .collect();
    assert!(written.is_empty(), "{written:?}");
    assert!(!ground.work().join("perf.csv").exists());
}

#[test]
fn a_dry_run_says_which_steps_would_be_refused() {
    let ground = Ground::plain();
    ground.run("process", &["--dry-run"]).exits(0);
    ground.user(NO_LAUNCH);
    ground
        .run("process", &["--dry-run"])
        .exits(5)
        .says(&["[process.launch]", "refused: policy refuses plugin `target-process`"]);
}

#[test]
fn a_project_and_the_command_line_cannot_widen() {
    let wide = "schema = 1\n[[allow]]\nplugin = \"target-process\"\ncalls = [\"*\"]\n[[allow]]\nplugin = \"discover-mad\"\ncalls = [\"files.*\"]\nscope.path = [\"/**\"]\n";
    let outside = |ground: &Ground| {
        let file = ground.write("elsewhere.json", "[]");
        std::fs::remove_file(ground.path("tree/models.json")).unwrap();
        std::os::unix::fs::symlink(file, ground.path("tree/models.json")).unwrap();
    };
    let ground = Ground::plain();
    outside(&ground);
    let file = ground.write("work/maddock-policy.toml", wide).display().to_string();
    let refused = ground
        .run("process", &["--policy", &file])
        .exits(5)
        .says(&["policy refuses plugin `discover-mad` the call `files.read`"]);
    // The lines that it tells are for the user's file, and they are enough.
    let hint = refused.stderr.split("add to ").nth(1).unwrap();
    let lines: Vec<&str> = hint.lines().skip(1).map(str::trim_start).collect();
    let lines: Vec<&str> = lines.into_iter().take_while(|line| !line.starts_with("hint") && !line.is_empty()).collect();
    ground.user(&lines.join("\n"));
    let after = ground.run("process", &[]);
    assert_ne!(after.code, Some(5), "{after:?}");
}

#[test]
fn a_build_with_a_refused_step_is_never_begun() {
    let ground = Ground::new(serde_json::json!({"dockerfile": "docker/m"}), "echo 'performance: 5 things'\n");
    ground.write(
        "tree/docker/m.ubuntu.amd.Dockerfile",
        "# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}\nFROM scratch\n",
    );
    ground.user("schema = 1\n[[deny]]\nplugin = \"build-docker\"\ncalls = [\"docker.build-image\"]\nreason = \"built elsewhere\"\n");
    let tree = ground.path("tree").display().to_string();
    let build = ["build", "-t", "t", "--model-dir", &tree];
    ground
        .call(&build)
        .exits(5)
        .says(&["m: policy refuses plugin `build-docker` the call `docker.build-image`", "built elsewhere"]);
    assert!(ground.trace().iter().all(|line| !line["call"].as_str().unwrap().starts_with("docker.")));
    ground
        .call(&[&build[..], &["--dry-run"]].concat())
        .exits(5)
        .says(&["refused: policy refuses plugin `build-docker`"]);
}
