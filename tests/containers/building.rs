//! `maddock build`: names, manifest, Dockerfile selection, logs, failures, architectures, registries.

use serde_json::{Value, json};

use crate::engine;
use crate::scene::{Scene, needed};

fn manifest(scene: &Scene) -> Value {
    scene.json("build_manifest.json")
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
}

fn label(image: &str, name: &str) -> String {
    let found = engine::inspect("image", image).unwrap_or_else(|| panic!("the engine has no image `{image}`"));
    found["Config"]["Labels"][name].as_str().unwrap_or_default().to_owned()
}

/// A model with one plain Dockerfile.
fn plain(scene: &mut Scene, part: &str, rest: &str) -> String {
    let model = scene.model(part, "echo 'performance: 1 u'\n", &json!({}));
    scene.dockerfile(&format!("{part}.Dockerfile"), "", rest);
    model
}

#[test]
fn an_image_has_the_name_and_the_manifest_entry_of_the_contract() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("Scoped/Named", "true\n", &json!({}));
    let rest = "ENV MAD_SYSTEM_GPU_ARCHITECTURE=gfx942\nLABEL is=here";
    scene.dockerfile("Scoped/Named.Ubuntu.amd.Dockerfile", "# CONTEXT {'gpu_vendor': 'AMD'}", rest);
    scene.build(&["-s", "summary.json"]).with(0);

    let manifest = manifest(&scene);
    let key = format!("ci-{}-scoped_named_named.ubuntu.amd", scene.name);
    assert_eq!(keys(&manifest["built_images"]), [key.as_str()]);
    assert_eq!(keys(&manifest["built_models"]), [key.as_str()]);
    let entry = &manifest["built_images"][&key];
    let members =
        "model docker_image dockerfile base_docker docker_sha build_duration build_command log_file gpu_vendor";
    assert_eq!(keys(entry).join(" "), format!("{members} gpu_architecture image_digest"));
    assert_eq!(entry["model"], json!(model));
    assert_eq!(entry["docker_image"], json!(key));
    assert_eq!(entry["dockerfile"], "docker/Scoped/Named.Ubuntu.amd.Dockerfile");
    assert_eq!(entry["base_docker"], json!(scene.image));
    assert_eq!(entry["gpu_vendor"], "AMD");
    assert_eq!(entry["gpu_architecture"], "gfx942");
    assert!(entry["build_duration"].as_f64().unwrap() > 0.0);
    assert!(entry["build_command"].as_str().unwrap().starts_with("docker build "), "{entry}");

    let image = engine::inspect("image", &key).expect("the image is there");
    assert_eq!(entry["image_digest"], image["Id"], "the digest is the engine's own");
    assert_eq!(image["Config"]["Labels"]["is"], "here");
    let base = engine::inspect("image", &scene.image).expect("the base was pulled");
    let known = base["RepoDigests"].to_string();
    let sha = entry["docker_sha"].as_str().unwrap();
    assert!(sha.starts_with("sha256:") && known.contains(sha), "{sha} is none of {known}");

    // By contract the log keeps the case of the model.
    let log = format!("{}_Named.Ubuntu.amd.build.live.log", model.replace('/', "_"));
    assert_eq!(entry["log_file"], json!(log));
    assert!(scene.text(&log).contains(&scene.image), "{}", scene.text(&log));

    let model_entry = &manifest["built_models"][&key];
    assert_eq!((&model_entry["name"], &model_entry["n_gpus"]), (&json!(model), &json!("0")));
    assert_eq!(manifest["summary"]["successful_builds"][0]["docker_image"], json!(key));
    for empty in ["failed_builds", "successful_pushes", "failed_pushes"] {
        assert_eq!(manifest["summary"][empty], json!([]), "{empty}");
    }
    assert_eq!(manifest["context"]["gpu_vendor"], "AMD");
    assert_eq!(manifest["deployment_config"]["target"], "local");
    assert_eq!(manifest["credentials_required"], json!([]));

    let summary = scene.json("summary.json");
    assert_eq!(keys(&summary), keys(&manifest["summary"]));
    assert_eq!(summary["successful_builds"], manifest["summary"]["successful_builds"]);
}

#[test]
fn headers_choose_the_dockerfiles_and_one_that_cannot_be_read_is_left_out_alone() {
    let Some(mut scene) = Scene::new() else { return };
    scene.model("pick", "true\n", &json!({}));
    let mark = "LABEL built=yes";
    scene.dockerfile("pick.fits.Dockerfile", "# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}", mark);
    scene.dockerfile("pick.other.Dockerfile", "# CONTEXT {'gpu_vendor': 'NVIDIA'}", mark);
    scene.dockerfile("pick.unheard.Dockerfile", "# CONTEXT {'nobody_has_this': 'x'}", mark);
    scene.dockerfile("pick.without.Dockerfile", "", mark);
    scene.dockerfile("pick.broken.Dockerfile", "# CONTEXT {'gpu_vendor': true}", mark);
    scene.dockerfile("pick.mine.Dockerfile", "# CONTEXT {'flavour': 'sweet'}", mark);
    scene.dockerfile("pick.yours.Dockerfile", "# CONTEXT {'flavour': 'sour'}", mark);

    let ended = scene.build(&["-c", "{'flavour': 'sweet'}"]).with(0).says("pick.broken.Dockerfile");
    assert!(!ended.stderr.contains("unknown"), "a key of a header is a known key: {}", ended.stderr);

    let key = |part: &str| format!("ci-{}-pick_pick.{part}", scene.name);
    assert_eq!(
        keys(&manifest(&scene)["built_images"]),
        [key("fits"), key("mine"), key("unheard"), key("without")],
        "{}",
        ended.stderr
    );
}

#[test]
fn a_model_that_no_dockerfile_fits_is_a_failed_build() {
    let Some(mut scene) = Scene::new() else { return };
    let model = scene.model("unfit", "true\n", &json!({}));
    scene.dockerfile("unfit.Dockerfile", "# CONTEXT {'gpu_vendor': 'NVIDIA'}", "");
    scene.build(&[]).with(2).says("All builds failed").says("docker/unfit.");
    let manifest = manifest(&scene);
    assert_eq!((keys(&manifest["built_images"]), keys(&manifest["built_models"])), (Vec::new(), Vec::new()));
    assert_eq!(manifest["summary"]["failed_builds"][0]["model"], json!(model));
}

#[test]
fn some_builds_that_fail_are_told_and_the_rest_is_in_the_manifest() {
    let Some(mut scene) = Scene::new() else { return };
    let good = plain(&mut scene, "good", "LABEL is=good");
    let bad = plain(&mut scene, "bad", "RUN echo heard-$((40 + 2)) && exit 7");
    scene.build(&["-s", "summary.json"]).with(2).says("Partial success: 1 built, 1 failed").says("heard-42");

    let manifest = manifest(&scene);
    assert_eq!(keys(&manifest["built_images"]), [format!("ci-{good}_good")]);
    let failed = &manifest["summary"]["failed_builds"];
    assert_eq!((failed.as_array().unwrap().len(), &failed[0]["model"]), (1, &json!(bad)));
    assert!(failed[0]["error"].as_str().unwrap().contains('7'), "{failed}");
    assert_eq!(&scene.json("summary.json")["failed_builds"], failed);
    let log = scene.text(&format!("{bad}_bad.build.live.log"));
    assert!(log.contains("heard-42"), "the log of a failed build has the builder's output: {log}");
}

#[test]
fn live_output_shows_the_builder_and_the_log_has_it_too() {
    let Some(mut scene) = Scene::new() else { return };
    let model = plain(&mut scene, "live", "RUN echo heard-$((40 + 3))");
    scene.build(&["--live-output", "--clean-docker-cache"]).with(0).says("heard-43");
    assert!(scene.text(&format!("{model}_live.build.live.log")).contains("heard-43"));
}

#[test]
fn each_architecture_has_an_image_with_its_suffix_and_its_argument() {
    let Some(mut scene) = Scene::new() else { return };
    let model = plain(&mut scene, "arch", "ARG MAD_SYSTEM_GPU_ARCHITECTURE\nLABEL arch=$MAD_SYSTEM_GPU_ARCHITECTURE");
    let ended = scene.build(&["--target-archs", "gfx90a,gfx942"]).with(0).says("GPU Architecture");
    let manifest = manifest(&scene);
    let images = ["gfx90a", "gfx942"].map(|arch| (arch, format!("ci-{model}_arch_{arch}")));
    for (arch, key) in &images {
        assert_eq!(manifest["built_images"][key]["gpu_architecture"], json!(arch), "{}", ended.stdout);
        assert_eq!(label(key, "arch"), *arch);
        assert!(ended.stdout.contains(arch));
    }
    assert_eq!(manifest["built_images"].as_object().unwrap().len(), 2);

    // The context settles it for all.
    let context = "{'docker_build_arg': {'MAD_SYSTEM_GPU_ARCHITECTURE': 'gfx1100'}}";
    scene.build(&["--target-archs", "gfx90a", "-c", context]).with(0).says("ignored");
    assert_eq!(label(&format!("ci-{model}_arch"), "arch"), "gfx1100");
}

#[test]
fn build_arguments_of_the_context_arrive_as_they_are_written() {
    let Some(mut scene) = Scene::new() else { return };
    let rest = "ARG TRICKY\nARG COUNT\nARG YES\nLABEL tricky=$TRICKY count=$COUNT yes=$YES";
    let model = plain(&mut scene, "args", rest);
    let tricky = "a b $HOME $(id) `id` \"q\" 'p' \\";
    let context = json!({"docker_build_arg": {"TRICKY": tricky, "COUNT": 7, "YES": true}}).to_string();
    scene.build(&["-c", &context]).with(0);
    let image = format!("ci-{model}_args");
    assert_eq!((label(&image, "tricky").as_str(), label(&image, "count").as_str()), (tricky, "7"));
    assert_eq!(label(&image, "yes"), "True", "upstream's text of it");
}

#[test]
fn a_pushed_image_is_known_by_its_name_in_the_registry() {
    let Some(registry) = needed("MADDOCK_TEST_REGISTRY") else { return };
    let Some(mut scene) = Scene::new() else { return };
    let model = plain(&mut scene, "push", "LABEL is=pushed");
    scene.build(&["--registry", &registry]).with(0);
    let manifest = manifest(&scene);
    let key = format!("ci-{model}_push");
    let there = format!("{registry}/{key}");
    let entry = &manifest["built_images"][&key];
    assert_eq!((&entry["registry_image"], &entry["registry"]), (&json!(there), &json!(registry)), "{entry}");
    assert_eq!(manifest["built_models"][&key]["env_vars"]["DOCKER_IMAGE_NAME"], json!(there));
    assert_eq!(manifest["summary"]["successful_pushes"].as_array().unwrap().len(), 1);

    // It is run from there, also where the engine does not have it any more.
    for image in scene.images() {
        engine::said(&["rmi", "--force", &image]);
    }
    scene.maddock(&["run", "-m", "build_manifest.json"]).with(0);
    assert_eq!(scene.rows()[0]["docker_image"], there);
}

#[test]
fn a_push_that_fails_is_recorded_and_fails_the_build() {
    let Some(mut scene) = Scene::new() else { return };
    let model = plain(&mut scene, "lost", "LABEL is=lost");
    scene.build(&["--registry", "localhost:1", "-s", "summary.json"]).with(2).says("was not pushed");
    let manifest = manifest(&scene);
    let key = format!("ci-{model}_lost");
    let entry = &manifest["built_images"][&key];
    assert!(entry["push_error"].as_str().is_some_and(|error| !error.is_empty()), "{entry}");
    assert_eq!(entry.get("registry_image"), None);
    assert_eq!(manifest["summary"]["failed_pushes"].as_array().unwrap().len(), 1, "{}", manifest["summary"]);
    assert_eq!(scene.json("summary.json")["failed_pushes"], manifest["summary"]["failed_pushes"]);
    // It was built all the same.
    scene.maddock(&["run", "-m", "build_manifest.json"]).with(0);
}

#[test]
fn a_directory_beside_the_dockerfiles_is_the_context_of_the_name_tools() {
    let Some(mut scene) = Scene::new() else { return };
    let version = engine::said(&["version", "--format", "{{.Server.Version}}"]);
    let old = version.split('.').next().unwrap().parse::<u32>().unwrap() < 23;
    let rest =
        format!("COPY here.txt /here\nCOPY --from=tools tool.txt /tool\nRUN cat /here /tool && echo {}", scene.name);
    let model = plain(&mut scene, "ctx", &rest);
    std::fs::create_dir_all(scene.tree.join("docker/common")).unwrap();
    std::fs::write(scene.tree.join("docker/here.txt"), "from-the-directory\n").unwrap();
    std::fs::write(scene.tree.join("docker/common/tool.txt"), "from-the-tools\n").unwrap();
    if old {
        // It takes the name for that of an image; a person is told why.
        scene.build(&[]).with(2).says("`tools` is not passed on");
        return;
    }
    scene.build(&[]).with(0);
    let log = scene.text(&format!("{model}_ctx.build.live.log"));
    assert!(log.contains("from-the-directory") && log.contains("from-the-tools"), "{log}");
}

#[test]
fn a_policy_about_images_holds_for_what_a_dockerfile_builds_from() {
    let Some(mut scene) = Scene::new() else { return };
    plain(&mut scene, "from", "COPY --from=evil.example/tools:1 /a /b");
    let registry = scene.image.split('/').next().unwrap().to_owned();
    let policy = scene.work.join("one-registry.toml");
    let rule =
        format!("schema = 1\n[[narrow]]\nplugin = \"*\"\ncalls = [\"docker.*\"]\nscope.image = [\"{registry}/**\"]\n");
    std::fs::write(&policy, rule).unwrap();
    let policy = policy.to_str().unwrap();
    let ended = scene.build(&["--policy", policy]);
    let said = ended.all();
    assert!(said.contains("from.Dockerfile:") && said.contains("image `evil.example/tools:1`"), "{said}");
    scene.dockerfile("from.Dockerfile", "", "LABEL is=ours");
    scene.build(&["--policy", policy]).with(0);
}
