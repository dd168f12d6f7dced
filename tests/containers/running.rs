//! `maddock run`: rows, logs, digests, failures, several at once.

use std::process::Command;

use serde_json::json;

use crate::engine;
use crate::scene::Scene;

const PERFORMANCE: &str = "echo 'performance: 12.5 things_per_second'\n";

#[test]
fn tags_are_built_and_run_in_one_go_with_rows_logs_and_digests() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("whole", &format!("echo heard-$((40 + 2))\n{PERFORMANCE}"), &json!({}));
    scene.dockerfile("whole.Dockerfile", "", &format!("RUN echo {} built-$((40 + 2))", scene.name));
    let tag = scene.name.clone();
    scene.maddock(&["run", "--tags", &tag, "-s", "summary.json"]).with(0).says("12.5");

    let key = format!("ci-{model}_whole");
    let digest = engine::inspect("image", &key).expect("the image is there")["Id"].clone();
    let entry = scene.json("build_manifest.json")["built_images"][&key].clone();
    let rows = scene.rows();
    assert_eq!(rows.len(), 1);
    for (column, value) in [
        ("model", model.as_str()),
        ("performance", "12.5"),
        ("metric", "things_per_second"),
        ("status", "SUCCESS"),
        ("docker_image", &key),
        ("docker_file", "docker/whole.Dockerfile"),
        ("base_docker", &scene.image),
        ("docker_sha", entry["docker_sha"].as_str().unwrap()),
        ("launcher", "docker"),
        ("deployment_type", "local"),
        ("nnodes", "1"),
    ] {
        assert_eq!(rows[0][column], value, "{column}");
    }
    assert_eq!(scene.jobs()[0]["image_digest"], digest);
    assert_eq!(scene.jobs()[0]["execution"]["state"], "exited");

    let run_log = scene.text(&format!("{model}_whole.run.live.log"));
    assert!(run_log.contains("heard-42") && run_log.contains("test_duration: "), "{run_log}");
    let combined = scene.text(&format!("{model}_whole.live.log"));
    let (build, run) = combined.split_once("\nRUN PHASE LOG\n").expect("both phases are there");
    assert!(build.contains("built-42") && run.contains("heard-42"), "{combined}");

    let summary = scene.json("summary.json");
    assert_eq!((&summary["overall_success"], &summary["run_phase"]["total_runs"]), (&json!(true), &json!(1)));
    assert_eq!(scene.containers(), Vec::<String>::new(), "nothing is left");

    // And again from the manifest, which stays as it is.
    let before = scene.text("build_manifest.json");
    let ended = scene.maddock(&["run", "-m", "build_manifest.json"]).with(0);
    assert!(!ended.all().contains("heard-42"), "output is shown only where it was asked for");
    assert_eq!((scene.rows().len(), scene.text("build_manifest.json")), (2, before));
    assert_eq!(scene.rows()[1]["docker_sha"], entry["docker_sha"]);
    assert_eq!(scene.jobs()[0]["image_digest"], digest);
    assert_eq!(scene.containers(), Vec::<String>::new(), "nothing is left");
}

#[test]
fn a_failing_script_fails_the_run_and_its_output_is_in_the_log() {
    let Some(mut scene) = Scene::new() else { return };
    let model =
        scene.model("bad", "echo said-$((40 + 2))\necho 'performance: 1 u'\necho broken >&2\nexit 9\n", &json!({}));
    let good = scene.model("good", PERFORMANCE, &json!({}));
    scene.run(&json!({}), &[]).with(3).says("9");
    let log = scene.run_log(&model);
    assert!(log.contains("said-42") && log.contains("broken"), "{log}");
    let rows = scene.rows();
    assert_eq!(
        (&rows[0]["model"], rows[0]["status"].as_str(), rows[0]["performance"].as_str()),
        (&model, "FAILURE", "")
    );
    assert_eq!((&rows[1]["model"], rows[1]["status"].as_str()), (&good, "SUCCESS"), "one failure keeps no other model");
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn a_script_without_a_result_and_one_with_an_error_in_its_log_fail() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("mute", "true\n", &json!({}));
    scene.model("scan", &format!("{PERFORMANCE}echo 'RuntimeError: no'\n"), &json!({}));
    scene.run(&json!({}), &[]).with(3).says("RuntimeError:");
    let rows = scene.rows();
    assert_eq!((rows[0]["status"].as_str(), rows[1]["status"].as_str()), ("FAILURE", "FAILURE"));
    assert_eq!(rows[1]["performance"], "12.5", "the performance is recorded all the same");
}

#[test]
fn several_results_are_a_row_each_and_their_file_is_in_the_working_directory() {
    let Some(mut scene) = Scene::new() else { return };
    let file = scene.model_name("multi.csv");
    let script = format!(
        "test \"$MAD_OUTPUT_CSV\" = {file} || exit 8\nprintf 'model,performance,metric,size\\na,1.50,u,7\\nb,2,u,8\\n' > {file}\n"
    );
    let model = scene.model("multi", &script, &json!({"multiple_results": file}));
    scene.run(&json!({}), &[]).with(0);
    let rows = scene.rows();
    let seen: Vec<_> =
        rows.iter().map(|row| ["model", "performance", "size"].map(|column| row[column].clone())).collect();
    let expected =
        [("a", "1.50", "7"), ("b", "2", "8")].map(|(m, p, s)| [format!("{model}_{m}"), p.to_owned(), s.to_owned()]);
    assert_eq!(seen, expected, "numbers are as they were written");
    assert!(scene.text(&file).starts_with("model,performance"));
}

#[test]
fn two_runs_at_once_on_one_image_do_not_collide() {
    let Some(mut scene) = Scene::new() else { return };
    // Each waits for the other: they are there at the same time or not at all.
    let script = format!(
        "touch /shared/$HOSTNAME\nfor _ in $(seq 600); do [ \"$(ls /shared | wc -l)\" -ge 2 ] && break; sleep 0.05; done\n[ \"$(ls /shared | wc -l)\" -ge 2 ] || exit 5\n{PERFORMANCE}"
    );
    scene.model("twin", &script, &json!({}));
    let (one, other) = (scene.start_run(&json!({}), &[]), scene.start_run(&json!({}), &[]));
    one.wait().with(0);
    other.wait().with(0);
    let rows = scene.rows();
    assert_eq!(rows.len(), 2, "both have their row in the one file");
    assert!(rows.iter().all(|row| row["status"] == "SUCCESS"));
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn jobs_of_one_run_go_in_parallel_where_that_is_asked_for() {
    let Some(mut scene) = Scene::new() else { return };
    let script = format!(
        "touch /shared/$MAD_MODEL_NAME\nfor _ in $(seq 600); do [ \"$(ls /shared | wc -l)\" -ge 3 ] && break; sleep 0.05; done\n[ \"$(ls /shared | wc -l)\" -ge 3 ] || exit 5\n{PERFORMANCE}"
    );
    let names = ["one", "two", "three"].map(|part| scene.model(part, &script, &json!({})));
    scene.run(&json!({}), &["--jobs", "3"]).with(0);
    assert_eq!(scene.jobs().iter().map(|job| job["model"].clone()).collect::<Vec<_>>(), names.map(|name| json!(name)));
    assert_eq!(scene.rows().len(), 3);
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn a_model_that_is_not_to_be_run_is_prepared_and_skipped() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("skip", "touch /shared/ran\n", &json!({}));
    scene.run(&json!({}), &["--skip-model-run", "-s", "summary.json"]).with(0).says("SKIPPED");
    assert!(!scene.shared.join("ran").exists());
    assert!(!scene.work.join("perf.csv").exists(), "what was not run has no row");
    let runs = scene.json("summary.json")["successful_runs"].clone();
    assert_eq!((&runs[0]["model"], &runs[0]["status"]), (&json!(model), &json!("SKIPPED")));
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn a_given_image_that_cannot_be_had_is_named() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("none", PERFORMANCE, &json!({}));
    let image = format!("localhost:1/{}:nowhere", scene.name);
    scene
        .run(&json!({"MAD_CONTAINER_IMAGE": image}), &[])
        .with(3)
        .says(&format!("image `{image}` is not on this machine"));
    assert_eq!(scene.rows()[0]["status"], "FAILURE");
}

#[test]
fn a_given_image_and_a_tag_that_nobody_has_is_a_failed_run() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("some", PERFORMANCE, &json!({}));
    let context = scene.context(&json!({}));
    let ended = scene.maddock(&["run", "--tags", "no-such-tag", "-c", &context]).with(3);
    assert!(ended.stderr.contains("no-such-tag"), "{}", ended.stderr);
    // Without the image the build is what fails.
    scene.maddock(&["run", "--tags", "no-such-tag"]).with(2).says("no-such-tag");
}

#[test]
fn some_failed_builds_fail_a_run_whose_models_are_all_well() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("good", PERFORMANCE, &json!({}));
    scene.dockerfile("good.Dockerfile", "", "");
    scene.model("unfit", PERFORMANCE, &json!({}));
    let tag = scene.name.clone();
    scene.maddock(&["run", "--tags", &tag]).with(2);
    assert_eq!((scene.rows().len(), scene.rows()[0]["status"].as_str()), (1, "SUCCESS"));
}

#[test]
fn an_image_without_bash_is_said_to_have_none() {
    let Some(small) = crate::scene::needed("MADDOCK_TEST_IMAGE_SMALL") else { return };
    let Some(mut scene) = Scene::new() else { return };
    scene.model("plain", PERFORMANCE, &json!({}));
    scene.run(&json!({"MAD_CONTAINER_IMAGE": small}), &[]).with(3).says("has no `bash`");
    assert_eq!(scene.containers(), Vec::<String>::new(), "one that did not start is removed");
}

#[test]
fn a_dry_run_makes_no_container_and_says_what_it_would_make() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("dry", "touch /shared/ran\n", &json!({}));
    scene.run(&json!({}), &["--dry-run"]).with(0).says(&model).says("docker.create-container");
    assert_eq!(std::fs::read_dir(&scene.work).unwrap().count(), 0, "nothing was written");
    assert!(!scene.shared.join("ran").exists());
}

#[test]
fn output_comes_while_the_model_runs() {
    let Some(mut scene) = Scene::new() else { return };
    let script = format!(
        "echo first-$((40 + 2))\nfor _ in $(seq 600); do [ -e /shared/go ] && break; sleep 0.05; done\n[ -e /shared/go ] || exit 5\n{PERFORMANCE}"
    );
    scene.model("flow", &script, &json!({}));
    let going = scene.start_run(&json!({}), &[]);
    let log = scene.heard("first-42");
    assert!(!log.contains("performance:"), "{log}");
    std::fs::write(scene.shared.join("go"), "").unwrap();
    going.wait().with(0);
}

#[test]
fn the_digest_of_a_given_image_is_that_of_what_was_run() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("given", PERFORMANCE, &json!({}));
    scene.run(&json!({}), &[]).with(0);
    let image = engine::inspect("image", &scene.image).expect("the image is there");
    assert_eq!(scene.jobs()[0]["image_digest"], image["Id"]);
}

#[test]
fn every_outcome_of_the_example_tree_is_what_its_readme_says() {
    let Some(scene) = Scene::new() else { return };
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/mad");
    let context = scene.context(&json!({}));
    let arguments = ["run", "--model-dir", tree, "--tags", "all-outcomes", "--jobs", "2", "-c", &context];
    scene.maddock(&arguments).with(3);
    let readme = std::fs::read_to_string(format!("{tree}/README.md")).unwrap();
    let jobs = scene.jobs();
    assert_eq!(jobs.len(), 12);
    for job in jobs {
        let name = job["model"].as_str().unwrap();
        let line = readme.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
        let ends = line.unwrap_or_else(|| panic!("no line of `{name}`")).rsplit('|').nth(1).unwrap().trim();
        let verdict = job["verdict"].as_str().unwrap().to_lowercase();
        assert!(ends.starts_with(&verdict), "{name}: {verdict}, not {ends}: {job}");
    }
    assert_eq!(scene.containers(), Vec::<String>::new());
}

#[test]
fn a_repository_is_cloned_in_the_container_and_its_commit_is_in_the_row() {
    let Some(mut scene) = Scene::new() else { return };
    let repository = scene.shared.join("upstream");
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("value"), "31\n").unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"];
        let output =
            Command::new("git").current_dir(&repository).args(identity).args(arguments).output().expect("git is there");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let script = "test \"${PWD##*/}\" = upstream || exit 4\necho \"performance: $(cat value) u\"\n";
    scene.model("clone", script, &json!({"url": "file:///shared/upstream/"}));
    // The repository may be another user's, as the tests are of whoever runs them.
    let trust = json!({"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"});
    scene.run(&json!({"docker_env_vars": trust}), &[]).with(0);
    let row = scene.rows().remove(0);
    assert_eq!((row["performance"].as_str(), &row["git_commit"]), ("31", &git(&["rev-parse", "HEAD"])));
}

#[test]
fn a_model_that_needs_more_memory_than_it_may_have_is_told_so() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "exec python3 -c 'print(len(bytearray(300 << 20)))'\n";
    scene.model("big", script, &json!({"additional_docker_run_options": "--memory 64m"}));
    let ended = scene.run(&json!({}), &[]);
    // Where the engine cannot limit swap, the model may end well.
    if engine::said(&["info", "--format", "{{.MemoryLimit}} {{.SwapLimit}}"]) == "true true" {
        ended.with(3).says("memory");
    }
}
