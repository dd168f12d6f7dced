//! What is handed to the cluster, before its eyes: the golden files of the target and the texts of a dry run are taken by the
//! server, which looks at them as if they were made.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::ground::{GOOD, Ground, NOTHING, said};

/// Has the server look at objects, with every member that it does not know an error.
fn rehearse(ground: &Ground, objects: &[Value]) -> Output {
    let file = ground.root.path().join("objects");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    let file = file.to_string_lossy().into_owned();
    let how = ["create", "--dry-run=server", "--validate=strict", "--output=name"];
    ground.kubectl(&[&how[..], &["--namespace", &ground.namespace, "--filename", &file]].concat())
}

/// The objects of a golden file. Where a context names their namespace, the test's is in its place.
fn objects(file: &Path, namespace: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    // What is no document says of itself in its headline what it is.
    let parts =
        text.split("===== ").filter_map(|part| part.split_once('\n')).filter(|(_, document)| !document.is_empty());
    let mut objects: Vec<Value> = parts.map(|(_, document)| serde_yaml_ng::from_str(document).unwrap()).collect();
    for object in &mut objects {
        if object["metadata"].get("namespace").is_some() {
            object["metadata"]["namespace"] = json!(namespace);
        }
    }
    objects
}

#[test]
fn the_server_takes_every_object_of_the_golden_files() {
    let Some(ground) = Ground::new("golden files", json!({}), GOOD) else { return };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target-k8s/tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        let objects = objects(&file, &ground.namespace);
        let output = rehearse(&ground, &objects);
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "hostile" {
            // A label of a node is no place for such a text, and the server is who knows that.
            let text = said(&output);
            assert!(text.matches("is invalid").count() == 1 && text.contains("nodeSelector"), "{text}");
            continue;
        }
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), objects.len(), "{name}: {}", said(&output));
    }
    assert_eq!(ground.left(), NOTHING);
}

#[test]
fn the_server_takes_what_a_dry_run_writes() {
    let Some(ground) = Ground::new("written plan", json!({}), GOOD) else { return };
    let context = json!({"distributed": {"launcher": "torchrun", "nnodes": 2}});
    let section = json!({"results_storage_size": "1Gi", "nfs_storage_class": "nfs"});
    let mut command = ground.command(section, context);
    let output = command.args(["--dry-run", "--plan-output", "plan"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let place = ground.work().join("plan/0-m");
    let mut names: Vec<String> = std::fs::read_dir(&place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["configmap.yaml", "job.yaml", "persistentvolumeclaim.yaml", "service.yaml"]);
    let place = place.to_string_lossy().into_owned();
    let how = ["create", "--dry-run=server", "--validate=strict", "--filename", &place];
    let taken = ground.kubectl(&[&how[..], &["--namespace", &ground.namespace]].concat());
    assert!(taken.status.success(), "{}", said(&taken));
    assert_eq!(ground.left(), NOTHING);
}
