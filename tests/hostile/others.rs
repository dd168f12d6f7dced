//! Containers of other runs, with a real engine.

use std::process::Command;

use serde_json::{Value, json};

use crate::lair::{Lair, needed};

fn docker(words: &[&str]) -> String {
    let output = Command::new("docker").args(words).output().unwrap();
    assert!(output.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A container that is somebody else's, which runs; it goes away with this.
struct Stranger {
    id: String,
    name: String,
}

impl Stranger {
    fn new(lair: &Lair, labels: &[&str]) -> Option<Self> {
        let image = needed("MADDOCK_TEST_IMAGE_SMALL")?;
        docker(&["pull", "--quiet", &image]);
        let name = format!("stranger-{}", lair.run);
        let mut words = vec!["run", "--detach", "--name", &name];
        labels.iter().for_each(|label| words.extend(["--label", label]));
        words.extend([image.as_str(), "sleep", "600"]);
        Some(Self { id: docker(&words), name: name.clone() })
    }

    fn runs(&self) -> bool {
        docker(&["inspect", "--format", "{{.State.Running}}", &self.id]) == "true"
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.id]).output();
    }
}

fn lair() -> Lair {
    Lair::new().grant(&["docker.*"], "").in_this_environment()
}

/// Tries a call on a container of another run, by id, by name and by a short id.
#[track_caller]
fn refused(labels: &[&str], call: &str, more: Value) {
    refused_by(&lair(), labels, call, more);
}

#[track_caller]
fn refused_by(lair: &Lair, labels: &[&str], call: &str, more: Value) {
    let Some(stranger) = Stranger::new(lair, labels) else { return };
    for id in [stranger.id.as_str(), stranger.name.as_str(), &stranger.id[..12]] {
        let mut order = json!({"do": call, "id": id});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lair.order(order).denied().says("is not this run's");
    }
    assert!(stranger.runs());
}

#[test]
fn a_container_that_is_nobody_s_is_not_removed() {
    refused(&[], "docker.remove-container", json!({}));
}

#[test]
fn a_container_of_another_run_is_not_removed() {
    refused(&["maddock.run=another"], "docker.remove-container", json!({}));
}

#[test]
fn a_container_of_another_run_is_not_stopped() {
    refused(&["maddock.run=another"], "docker.stop-container", json!({}));
}

#[test]
fn a_container_of_another_run_is_not_looked_into() {
    refused(&["maddock.run=another"], "docker.inspect-container", json!({}));
}

#[test]
fn the_output_of_another_run_s_container_is_not_followed() {
    refused(&["maddock.run=another"], "docker.follow-container", json!({}));
}

#[test]
fn nothing_is_copied_out_of_another_run_s_container() {
    let lair = lair();
    let into = lair.at("run/x");
    refused_by(&lair, &["maddock.run=another"], "docker.copy-out", json!({"path": "/etc/passwd", "destination": into}));
}

#[test]
fn a_container_of_another_run_is_not_started() {
    refused(&["maddock.run=another"], "docker.start-container", json!({}));
}

#[test]
fn a_run_without_a_name_owns_no_container() {
    let mut lair = lair();
    let Some(stranger) = Stranger::new(&lair, &["maddock.run="]) else { return };
    lair.run = String::new();
    let told = lair.order(json!({"do": "docker.remove-container", "id": stranger.id}));
    assert!(matches!(told.kind(), "denied" | "unsupported"), "{}", told.0);
    assert!(stranger.runs());
}

#[test]
fn nobody_finds_containers_of_another_run() {
    let lair = lair();
    let Some(stranger) = Stranger::new(&lair, &["maddock.run=another", "mine=yes"]) else { return };
    for labels in [json!([]), json!([["maddock.run", "another"]]), json!([["mine", "yes"]]), json!([["", ""]])] {
        let told = lair.order(json!({"do": "docker.find-containers", "labels": labels}));
        assert!(!told.0.to_string().contains(&stranger.id), "{}", told.0);
    }
}

#[test]
fn nobody_makes_a_container_in_the_name_of_another_run() {
    let lair = lair();
    let Some(image) = needed("MADDOCK_TEST_IMAGE_SMALL") else { return };
    docker(&["pull", "--quiet", &image]);
    for label in
        ["maddock.run", "maddock.job", "maddock.plugin", "maddock.container", "maddock.owner", "maddock.directory"]
    {
        let name = format!("forged-{}", lair.run);
        let told = lair.order(
            json!({"do": "docker.create-container", "name": name, "image": image, "labels": [[label, "another"]]}),
        );
        let made = Command::new("docker").args(["rm", "--force", &name]).output().unwrap();
        told.is("invalid-input").says("set by the host");
        assert!(!String::from_utf8_lossy(&made.stdout).contains(&name));
    }
}

#[test]
fn the_name_of_another_run_s_container_is_not_taken() {
    let lair = lair();
    let Some(stranger) = Stranger::new(&lair, &["maddock.run=another"]) else { return };
    let image = needed("MADDOCK_TEST_IMAGE_SMALL").unwrap();
    lair.order(json!({"do": "docker.create-container", "name": stranger.name, "image": image})).is("conflict");
    assert!(stranger.runs());
}

#[test]
fn no_namespace_of_another_run_s_container_is_joined() {
    let lair = lair();
    let Some(stranger) = Stranger::new(&lair, &["maddock.run=another"]) else { return };
    let image = needed("MADDOCK_TEST_IMAGE_SMALL").unwrap();
    let join = format!("container:{}", stranger.id);
    for change in [json!({"network": join}), json!({"ipc": join}), json!({"extra": [["pid", join]]})] {
        let mut order = json!({"do": "docker.create-container", "name": format!("joins-{}", lair.run), "image": image});
        order.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        lair.order(order).is("unsupported");
    }
}

#[test]
fn a_link_in_a_container_leads_nowhere_on_this_machine() {
    let lair = lair();
    let Some(image) = needed("MADDOCK_TEST_IMAGE_SMALL") else { return };
    docker(&["pull", "--quiet", &image]);
    // A directory that is a link out of the destination, and a file below it: whoever follows it writes outside.
    let script = format!(
        "mkdir -p /out/a /stage/way && ln -s {0} /out/way && ln -s {0}/secret /out/file && ln -s /etc/passwd /out/a/passwd && echo evil > /out/a/x; sleep 300",
        lair.at("outside")
    );
    let name = format!("links-{}", lair.run);
    let spec = json!({"do": "docker.create-container", "name": name, "image": image, "command": ["sh", "-c", script]});
    let id = lair.order(spec).ok().trim_matches('"').to_owned();
    lair.order(json!({"do": "docker.start-container", "id": id})).ok();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
    while !Command::new("docker").args(["exec", &id, "test", "-e", "/out/a/x"]).status().unwrap().success() {
        assert!(std::time::Instant::now() < deadline);
    }
    let told =
        lair.order(json!({"do": "docker.copy-out", "id": id, "path": "/out", "destination": lair.at("run/got")}));
    docker(&["rm", "--force", &id]);
    let file = std::fs::read_to_string(lair.root().join("run/got/out/a/passwd")).unwrap_or_default();
    assert!(!file.contains("root:"), "{}", told.0);
    let secret = std::fs::read_to_string(lair.root().join("run/got/out/file")).unwrap_or_default();
    assert!(!secret.contains(crate::lair::SECRET), "{}", told.0);
    assert_eq!(std::fs::read_dir(lair.root().join("outside")).unwrap().count(), 1, "{}", told.0);
}

/// Whoever commits a container of ours has an image with our labels, and containers of it that are none of ours.
#[test]
fn a_container_of_a_committed_image_is_not_taken_for_ours() {
    let lair = lair();
    let Some(image) = needed("MADDOCK_TEST_IMAGE_SMALL") else { return };
    docker(&["pull", "--quiet", &image]);
    let [ours, heir, committed] = ["ours", "heir", "committed"].map(|word| format!("{word}-{}", lair.run));
    let spec = json!({"do": "docker.create-container", "name": ours, "image": image, "command": ["true"]});
    let id = lair.order(spec).ok().trim_matches('"').to_owned();
    docker(&["commit", &id, &committed]);
    let stranger =
        Stranger { id: docker(&["run", "--detach", "--name", &heir, &committed, "sleep", "600"]), name: heir };
    let told = [
        lair.order(json!({"do": "docker.remove-container", "id": stranger.id})),
        lair.order(json!({"do": "docker.stop-container", "id": stranger.name})),
        lair.order(json!({"do": "docker.follow-container", "id": stranger.id})),
    ];
    let found = lair.order(json!({"do": "docker.find-containers", "labels": []}));
    let runs = stranger.runs();
    let removed = lair.order(json!({"do": "docker.remove-container", "id": id}));
    drop(stranger);
    docker(&["image", "rm", "--force", &committed]);
    told.iter().for_each(|told| {
        told.denied().says("its labels are those of its image");
    });
    assert!(runs);
    assert!(found.0.to_string().contains(&ours) && !found.0.to_string().contains("heir-"), "{}", found.0);
    removed.ok();
}
