//! Jobs by an account that may do what the documentation prints, and no more, or less than that.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::ground::{GOOD, Ground, NOTHING, kubectl, said, until};

const MANUAL: &str = include_str!("../../docs/targets/kubernetes.md");

/// The Role of the documentation, as it stands there.
fn role() -> String {
    let (_, from) = MANUAL.split_once("```yaml\n").unwrap();
    let (role, _) = from.split_once("```").unwrap();
    assert!(role.contains("kind: Role\n") && !MANUAL.contains("ClusterRole\n"), "{role}");
    role.to_owned()
}

/// An account with this Role, and connections that are its.
fn account(ground: &Ground, role: &str) -> PathBuf {
    ground.apply_text(role);
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "runner-token", "annotations": {"kubernetes.io/service-account.name": "runner"}}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "runner"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maddock"},
            "subjects": [{"kind": "ServiceAccount", "name": "runner", "namespace": ground.namespace}]}),
    ] {
        ground.apply(&object);
    }
    let token = || {
        let template =
            "--output=go-template={{if .data}}{{if .data.token}}{{.data.token | base64decode}}{{end}}{{end}}";
        let output = kubectl(&["get", "secret", "runner-token", "--namespace", &ground.namespace, template]);
        Some(String::from_utf8(output.stdout).unwrap()).filter(|token| !token.is_empty())
    };
    let token = until("the account's token", token);
    let mut file: Value =
        serde_json::from_slice(&kubectl(&["config", "view", "--raw", "--output=json"]).stdout).unwrap();
    for user in file["users"].as_array_mut().unwrap() {
        user["user"] = json!({"token": token});
    }
    let path = ground.root.path().join("connections of the account");
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

/// What is left beside what belongs to the account.
fn left(ground: &Ground) -> Vec<String> {
    ground.left().into_iter().filter(|name| !name.contains("/runner-")).collect()
}

#[test]
fn the_rights_that_the_manual_prints_are_enough_for_pods_secrets_and_services() {
    let script = format!("[ \"$MAD_SECRETS_WORD\" = 'a secret' ] || exit 9\n{GOOD}");
    let Some(ground) = Ground::new("the manual's rights", json!({}), &script) else { return };
    let connections = account(&ground, &role());
    let context = json!({"distributed": {"launcher": "torchrun", "nnodes": 2}});
    let mut command = ground.command(json!({}), context);
    let output = command.env("KUBECONFIG", &connections).env("MAD_SECRETS_WORD", "a secret").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(ground.job()["verdict"].as_str(), Some("SUCCESS"));
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert!(!said(&output).contains("orbidden"), "{}", said(&output));
    assert_eq!(left(&ground), NOTHING);
}

#[test]
fn the_rights_that_the_manual_prints_are_enough_for_a_claim() {
    let Some(ground) = Ground::new("the manual's rights and a claim", json!({}), GOOD) else { return };
    let connections = account(&ground, &role());
    let mut command = ground.command(json!({"results_storage_size": "10Mi", "results_wait": 0}), json!({}));
    let output = command.env("KUBECONFIG", &connections).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(ground.work().join("a_output.csv")).unwrap(), "x,1\n");
    assert_eq!(left(&ground), NOTHING);
}

#[test]
fn an_account_that_may_not_list_nodes_gets_a_warning_and_the_job_is_made() {
    let Some(ground) = Ground::new("no list of nodes", json!({"n_gpus": "1"}), GOOD) else { return };
    let connections = account(&ground, &role());
    let section = json!({"gpu_count": 1, "gpu_resource_name": "example.com/no-such-device", "queue_timeout": 2});
    let mut command = ground.command(section, json!({"gpu_vendor": "AMD"}));
    let output = command.env("KUBECONFIG", &connections).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let events = ground.wait_for("whether nodes have `example.com/no-such-device` is not known");
    assert!(events.contains("no node takes the pod"), "it was made all the same: {events}");
    assert_eq!(ground.job()["execution"]["state"].as_str(), Some("never-started"));
    assert_eq!(left(&ground), NOTHING);
}

#[test]
fn one_right_that_lacks_keeps_nothing_else_from_being_taken_away() {
    let claims = "- apiGroups: [\"\"]\n  resources: [\"persistentvolumeclaims\"]\n  verbs: [\"create\", \"get\", \"list\", \"delete\"]\n";
    let role = role();
    assert!(role.contains(claims), "{role}");
    let Some(ground) = Ground::new("no list of claims", json!({}), GOOD) else { return };
    let connections = account(&ground, &role.replace(claims, ""));
    let mut command = ground.command(json!({}), json!({}));
    let output = command.env("KUBECONFIG", &connections).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(left(&ground), NOTHING);
    let text = said(&output);
    assert!(text.contains("cannot list what there is of kind PersistentVolumeClaim"), "{text}");
}

#[test]
fn without_exec_the_metric_counts_and_the_files_are_said_to_be_missing() {
    let exec = "- apiGroups: [\"\"]\n  resources: [\"pods/exec\"]\n  verbs: [\"create\", \"get\"]\n";
    let role = role();
    assert!(role.contains(exec), "{role}");
    let Some(ground) = Ground::new("no exec", json!({}), GOOD) else { return };
    let connections = account(&ground, &role.replace(exec, ""));
    let mut command = ground.command(json!({"results_wait": 5}), json!({}));
    let output = command.env("KUBECONFIG", &connections).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let job = ground.job();
    assert_eq!(job["rows"][0]["performance"].as_str(), Some("42.5"), "{job:#}");
    let text = said(&output);
    assert!(text.contains("the files of node 0 could not be brought") && text.contains("`pods/exec`"), "{text}");
    assert!(!ground.work().join("a_output.csv").exists());
    assert_eq!(left(&ground), NOTHING);
}
