//! Secrets reach the build and the container that need them, and nothing that stays.

use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::engine;
use crate::scene::Scene;

const VALUE: &str = "s3cr3t-value-that-nobody-prints";

/// Every file below a directory that has the value in it.
fn holders(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_site_secret_reaches_the_build_and_the_container_and_stays_nowhere() {
    let Some(mut scene) = Scene::new() else { return };
    scene.set("MAD_SECRETS_X", VALUE);
    let script = "printf %s \"$MAD_SECRETS_X\" | sha256sum > /shared/seen\necho \"it is $MAD_SECRETS_X\"\necho 'performance: 1 u'\n";
    let model = scene.model("keep", script, &json!({}));
    let rest = "RUN --mount=type=secret,id=MAD_SECRETS_X sha256sum < /run/secrets/MAD_SECRETS_X > /seen && cat /seen";
    scene.dockerfile("keep.Dockerfile", "", rest);
    let hash = hex::encode(Sha256::digest(VALUE));

    let ended = scene.build(&["--live-output", "--clean-docker-cache"]).with(0);
    assert!(!ended.all().contains(VALUE));
    let log = scene.text(&format!("{model}_keep.build.live.log"));
    assert!(log.contains(&hash), "the build had the secret: {log}");

    let image = format!("ci-{model}_keep");
    for look in [engine::said(&["history", "--no-trunc", &image]), engine::said(&["image", "inspect", &image])] {
        assert!(!look.contains(VALUE), "{look}");
    }
    let saved = scene.work.join("saved");
    std::fs::create_dir(&saved).unwrap();
    engine::said(&["save", "-o", saved.join("image.tar").to_str().unwrap(), &image]);
    assert_eq!(holders(&saved), Vec::<String>::new(), "no layer and no configuration has it");
    std::fs::remove_dir_all(saved).unwrap();
    assert_eq!(scene.json("build_manifest.json")["context"]["docker_env_vars"].get("MAD_SECRETS_X"), None);

    let context = scene.context(&json!({}));
    let ended = scene.maddock(&["run", "-m", "build_manifest.json", "-c", &context, "--live-output"]).with(0);
    assert!(scene.left("seen").contains(&hash), "the container had the secret");
    assert!(!ended.all().contains(VALUE), "{}", ended.all());
    // Manifest, logs, trace, run.json, rows: all that there is in the working directory.
    assert_eq!(holders(&scene.work), Vec::<String>::new());
}

#[test]
fn a_dockerfile_that_wants_a_secret_as_an_argument_does_not_get_it_unasked() {
    let Some(mut scene) = Scene::new() else { return };
    scene.set("MAD_SECRETS_X", VALUE);
    let rest = format!("ARG MAD_SECRETS_X=nothing\nRUN echo {} \"it is $MAD_SECRETS_X\"", scene.name);
    let model = scene.model("old", "true\n", &json!({}));
    scene.dockerfile("old.Dockerfile", "", &rest);
    scene.build(&[]).with(0).says("MAD_SECRETS_X").says("cred_build_args");
    let log = scene.text(&format!("{model}_old.build.live.log"));
    assert!(log.contains("it is nothing"), "{log}");

    // Who asks for it gets it, and it is in no file all the same.
    let model = scene.model("asked", "true\n", &json!({"cred_build_args": true}));
    let rest =
        "ARG MAD_SECRETS_X=nothing\nRUN printf %s \"$MAD_SECRETS_X\" | sha256sum && echo \"it is $MAD_SECRETS_X\"";
    scene.dockerfile("asked.Dockerfile", "", rest);
    scene.build(&["--live-output", "--clean-docker-cache"]).with(0);
    let log = scene.text(&format!("{model}_asked.build.live.log"));
    assert!(log.contains(&hex::encode(Sha256::digest(VALUE))), "{log}");
    assert_eq!(holders(&scene.work), Vec::<String>::new());
}

#[test]
fn a_credential_of_the_card_is_in_variables_of_the_container_and_in_no_file() {
    let Some(mut scene) = Scene::new() else { return };
    let script = "printf %s \"$SITE_TOKEN\" | sha256sum > /shared/seen\necho 'performance: 1 u'\n";
    scene.model("cred", script, &json!({"cred": "SITE"}));
    std::fs::write(scene.tree.join("credential.json"), json!({"SITE": {"token": VALUE}}).to_string()).unwrap();
    scene.run(&json!({}), &[]).with(0);
    assert!(scene.left("seen").contains(&hex::encode(Sha256::digest(VALUE))));
    assert_eq!(holders(&scene.work), Vec::<String>::new());
}

#[test]
fn a_site_may_refuse_secrets_as_build_arguments_and_leave_them_as_mounts() {
    let Some(mut scene) = Scene::new() else { return };
    scene.set("MAD_SECRETS_X", VALUE);
    scene.model("asked", "true\n", &json!({"cred_build_args": true}));
    scene.dockerfile("asked.Dockerfile", "", "ARG MAD_SECRETS_X=nothing\nRUN true");
    let policy = scene.work.join("mounts-only.toml");
    let rule = "schema = 1\n[[narrow]]\nplugin = \"*\"\ncalls = [\"docker.build-image\"]\nscope.secret-argument = []\n";
    std::fs::write(&policy, rule).unwrap();
    let policy = policy.to_str().unwrap();
    let ended = scene.build(&["--policy", policy]);
    assert!(ended.all().contains("secret-argument `MAD_SECRETS_X`"), "{}", ended.all());
    scene.dockerfile(
        "asked.Dockerfile",
        "",
        "RUN --mount=type=secret,id=MAD_SECRETS_X test -s /run/secrets/MAD_SECRETS_X",
    );
    scene.build(&["--policy", policy]).with(0);
}
