//! What is made in the cluster, as files in `golden/`: read them as the cluster's administrator would. `UPDATE_GOLDEN=1 cargo
//! test` writes them anew. Each object is also read into the types of the cluster's own interface and written again: a name
//! that they do not know would be lost on the way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::Path;

use common::{HOSTILE, job, surroundings, variable};
use k8s_openapi::api::batch::v1::Job as TypedJob;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service};
use maddock_sdk::kube::SecretContent;
use maddock_sdk::target::{Job, JobOptions, NodeRole};
use maddock_sdk::types::ErrorKind;
use serde_json::{Value, json};
use target_k8s::plan::{Surroundings, Work, prepare};

fn made(job: &Job) -> Work {
    prepare(job, surroundings()).unwrap()
}

/// The object after the types have read and written it.
fn typed(object: &Value) -> Value {
    let through = |read: Result<Value, serde_json::Error>| read.unwrap_or_else(|error| panic!("{error}: {object:#}"));
    let object = object.clone();
    match object["kind"].as_str().unwrap() {
        "Job" => through(serde_json::from_value::<TypedJob>(object).and_then(serde_json::to_value)),
        "Service" => through(serde_json::from_value::<Service>(object).and_then(serde_json::to_value)),
        "PersistentVolumeClaim" => {
            through(serde_json::from_value::<PersistentVolumeClaim>(object).and_then(serde_json::to_value))
        }
        "ConfigMap" => through(serde_json::from_value::<ConfigMap>(object).and_then(serde_json::to_value)),
        other => panic!("what is a {other}?"),
    }
}

/// Texts of a plan. The contents of the files stand there once, in `one-pod`; elsewhere their names do.
fn texts(job: &Job, with_files: bool) -> String {
    let work = made(job);
    for object in work.objects.iter().chain(&work.collector) {
        assert_eq!(&typed(object), object, "the cluster would drop a part of this");
    }
    let mut all = String::new();
    for artefact in &work.plan().unwrap().artefacts {
        let parsed: Value = serde_yaml_ng::from_str(&artefact.content).unwrap();
        let object = work.objects.iter().find(|object| **object == parsed);
        assert!(object.is_some(), "{} says something else than what is made", artefact.name);
        let mut shown = parsed;
        for (name, value) in shown.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
            // Of each text there is one golden file that has it, here or beside the kit's entry script.
            if !with_files || name.contains("entry") {
                *value = json!("as it is elsewhere");
            }
        }
        all.push_str(&format!("===== {}\n{}", artefact.name, serde_yaml_ng::to_string(&shown).unwrap()));
    }
    if let Some(collector) = &work.collector {
        all.push_str(&format!(
            "===== if results have to be fetched later\n{}",
            serde_yaml_ng::to_string(collector).unwrap()
        ));
    }
    for (name, content) in &work.secrets {
        let content = match content {
            SecretContent::Members(members) => {
                members.iter().map(|member| format!("{} from {}", member.key, member.secret)).collect::<Vec<_>>()
            }
            SecretContent::RegistryLogins(logins) => {
                logins.iter().map(|login| format!("{} from {}", login.registry, login.secret)).collect()
            }
        };
        all.push_str(&format!("===== secret {name}: {}\n", content.join(", ")));
    }
    for warning in &work.warnings {
        all.push_str(&format!("===== warning: {warning}\n"));
    }
    all
}

fn compare(name: &str, now: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, now).unwrap();
        return;
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(now == before, "{} differs; look at it, and write it anew with UPDATE_GOLDEN=1\n{now}", file.display());
}

fn check(name: &str, job: &Job) {
    compare(name, &texts(job, false));
}

fn with_config(mut job: Job, more: Value) -> Job {
    let mut config: Value = serde_json::from_str(&job.config).unwrap();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job.config = config.to_string();
    job
}

/// The Job of a job.
fn object(job: &Job) -> Value {
    made(job).objects.pop().unwrap()
}

fn model(job: &Job) -> Value {
    object(job)["spec"]["template"]["spec"]["containers"][0].clone()
}

fn variables(job: &Job) -> Vec<(String, String)> {
    let env = model(job)["env"].as_array().unwrap().clone();
    let plain = |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["value"].as_str()?.to_owned()));
    env.iter().filter_map(plain).collect()
}

#[test]
fn one_pod() {
    let mut job = job(1, json!({}));
    job.topology.roles.truncate(0);
    compare("one-pod", &texts(&job, true));
}

#[test]
fn two_pods() {
    compare("two-pods", &texts(&job(2, json!({})), true));
}

#[test]
fn two_pods_with_accelerators() {
    let section = json!({"memory": "64Gi", "memory_limit": "128Gi", "cpu": "16", "cpu_limit": "32", "host_ipc": true});
    let mut job = job(2, section);
    job.topology.gpus_per_node = 8;
    check("two-pods-amd", &job);
}

#[test]
fn one_accelerator_of_another_vendor() {
    let mut job = with_config(
        job(1, json!({"memory": "16Gi", "memory_limit": "32Gi", "cpu": 8, "cpu_limit": 16})),
        json!({"gpu_vendor": "NVIDIA", "env_vars": {"_comment": "no variable", "NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": 12}}),
    );
    job.topology.gpus_per_node = 1;
    check("nvidia", &job);
}

#[test]
fn profilers_look_into_other_processes() {
    check("profiler", &with_config(job(1, json!({})), json!({"tools": [{"name": "rocprof"}]})));
}

#[test]
fn profilers_without_the_privilege() {
    let job =
        with_config(job(1, json!({"allow_privileged_profiling": false})), json!({"tools": [{"name": "rocprof"}]}));
    check("profiler-unprivileged", &job);
}

#[test]
fn the_restricted_profile() {
    let mut job = with_config(job(2, json!({"host_ipc": true})), json!({"tools": [{"name": "rocprof"}]}));
    job.profile = "restricted".into();
    check("restricted", &job);
}

#[test]
fn the_restricted_profile_as_a_given_user() {
    let mut job = job(1, json!({"run_as_user": 4711}));
    job.profile = "restricted".into();
    check("restricted-user", &job);
}

/// What the Pod Security level *restricted* asks of a pod, rule by rule, as <https://kubernetes.io/docs/concepts/security/pod-security-standards/>
/// has them: each with what the pod says against it.
fn against_restricted(pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |what: &str, holds: bool| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    for member in ["hostNetwork", "hostPID", "hostIPC"] {
        rule(member, pod[member] != true);
    }
    let kinds =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let of_a_kind = |name: &String| name == "name" || kinds.contains(&name.as_str());
        rule("volumes", volume.as_object().unwrap().keys().all(of_a_kind));
    }
    let around = &pod["securityContext"];
    rule("sysctls", around["sysctls"].is_null());
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| pod[*list].as_array().into_iter().flatten()) {
        let own = &container["securityContext"];
        // A container's own word counts before the pod's.
        let said = |member: &str| if own[member].is_null() { around[member].clone() } else { own[member].clone() };
        rule("privileged", own["privileged"] != true);
        rule("allowPrivilegeEscalation", own["allowPrivilegeEscalation"] == false);
        rule(
            "capabilities.drop",
            own["capabilities"]["drop"].as_array().is_some_and(|all| all.contains(&json!("ALL"))),
        );
        let added = own["capabilities"]["add"].as_array().into_iter().flatten();
        rule("capabilities.add", added.into_iter().all(|name| name == "NET_BIND_SERVICE"));
        rule("runAsNonRoot", said("runAsNonRoot") == true);
        rule("runAsUser", said("runAsUser") != 0);
        rule(
            "seccompProfile",
            ["RuntimeDefault", "Localhost"].iter().any(|kind| said("seccompProfile")["type"] == *kind),
        );
        rule("appArmorProfile", said("appArmorProfile").is_null());
        rule("seLinuxOptions", said("seLinuxOptions").is_null());
        rule("procMount", own["procMount"].is_null());
        rule("windowsOptions", said("windowsOptions").is_null());
        let ports = container["ports"].as_array().into_iter().flatten();
        rule("hostPort", ports.into_iter().all(|port| port["hostPort"].is_null()));
    }
    wrong
}

/// The pods of the Jobs of a golden file.
fn golden_pods(name: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(file).unwrap();
    let documents = text.split("===== ").filter_map(|part| part.split_once('\n')).map(|(_, document)| document);
    let objects = documents.filter_map(|document| serde_yaml_ng::from_str::<Value>(document).ok());
    objects.filter(|object| object["kind"] == "Job").map(|job| job["spec"]["template"]["spec"].clone()).collect()
}

#[test]
fn the_restricted_profile_keeps_every_rule_of_the_restricted_pod_security_level() {
    for name in ["restricted", "restricted-user"] {
        let pods = golden_pods(name);
        assert!(!pods.is_empty());
        for pod in pods {
            assert_eq!(against_restricted(&pod), [""; 0], "{name}");
        }
    }
    // A collector is a pod, too.
    let mut job = job(1, json!({"results_storage_size": "1Gi"}));
    job.profile = "restricted".into();
    assert_eq!(against_restricted(&made(&job).collector.unwrap()["spec"]["template"]["spec"]), [""; 0]);
}

#[test]
fn without_accelerators_and_profilers_pods_break_no_rule_that_ordinary_images_can_keep() {
    let pod = &golden_pods("one-pod")[0];
    let mut wrong = against_restricted(pod);
    wrong.sort();
    wrong.dedup();
    assert_eq!(wrong, ["capabilities.drop", "runAsNonRoot"], "what root in an image lives by");
    for name in ["two-pods-amd", "profiler", "profiler-unprivileged"] {
        assert!(against_restricted(&golden_pods(name)[0]).contains(&"seccompProfile".to_owned()), "{name}");
    }
}

#[test]
fn placed_on_certain_nodes() {
    let section = json!({"node_selector": {"_comment": "x", "accelerator": "mi300", "rack": 7}, "tolerations": [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    ], "service_account": "trainer", "namespace": "team-a", "context": "lab", "kubeconfig": "~/lab.config"});
    check("placed", &job(1, section));
}

#[test]
fn a_claim_that_is_made_for_results() {
    check("own-claim", &job(2, json!({"results_storage_size": "20Gi", "nfs_storage_class": "nfs"})));
}

#[test]
fn a_domain_of_the_cluster_makes_the_first_pod_s_name_a_full_one() {
    let work = made(&job(2, json!({"cluster_domain": "lab.example"})));
    let text = work.objects[0]["data"].to_string();
    let expected = format!("MADDOCK_MAIN_NODE={0}-0.{0}.$MAD_K8S_NAMESPACE.svc.lab.example", work.name);
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn claims_for_data_and_results() {
    check(
        "claims",
        &job(2, json!({"data_pvc": "imagenet", "results_pvc": "results", "results_wait": 30, "shm_size": "2Gi"})),
    );
}

#[test]
fn limits_are_raised_to_what_is_asked_for() {
    check("raised-limits", &job(1, json!({"memory": "256Gi", "memory_limit": "128Gi", "cpu": 64, "cpu_limit": "32"})));
}

#[test]
fn shared_memory_is_never_more_than_memory() {
    check("small", &job(1, json!({"memory": "64Mi", "cpu": "50m", "image_pull_policy": "IfNotPresent"})));
}

#[test]
fn secrets_from_this_machine() {
    let here = Surroundings { login: Some("credential/registry.example.com".into()), ..surroundings() };
    let work = prepare(&job(1, json!({"secrets": {"image_pull_secret_names": ["extra"]}})), here).unwrap();
    assert_eq!(work.secrets.len(), 2, "a login and the variables");
    let pod = &work.objects.last().unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": format!("{}-registry-pull", work.name)}, {"name": "extra"}]));
}

#[test]
fn secrets_that_the_cluster_has() {
    let secrets = json!({"strategy": "existing", "image_pull_secret_names": ["pull"], "runtime_secret_name": "mine"});
    check("existing-secrets", &job(1, json!({ "secrets": secrets })));
}

#[test]
fn no_secrets() {
    check("no-secrets", &job(1, json!({"secrets": {"strategy": "omit"}})));
}

#[test]
fn retries_and_times() {
    let section = json!({"backoff_limit": 3, "ttl_seconds_after_finished": 600, "queue_timeout": 3600});
    check("retries", &job(1, section));
    let object = object(&job(1, json!({"queue_timeout": 3600})));
    assert_eq!(object["spec"]["activeDeadlineSeconds"], 7200 + 600 + 3600);
    assert_eq!(object["spec"]["backoffLimit"], 0);
}

#[test]
fn results_wait_longer_where_nobody_may_be_there() {
    let kept = |section: Value, options: JobOptions, may_be_left: bool| {
        let mut job = job(1, section);
        job.options = options;
        if may_be_left {
            job.extra.push(maddock_sdk::types::Entry { name: "may-be-left".into(), value: "true".into() });
        }
        let work = made(&job);
        let files = work.objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let mut files = files["data"].as_object().unwrap().iter();
        let (_, keeper) = files.find(|(name, _)| name.ends_with("keeper.sh")).unwrap();
        let (_, left) = keeper.as_str().unwrap().split_once("maddock_left=").unwrap();
        left.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let claim = || json!({"results_pvc": "mine"});
    for (section, options, may_be_left, seconds) in [
        (json!({}), JobOptions::empty(), false, 120),
        (json!({}), JobOptions::empty(), true, 600),
        (json!({}), JobOptions::DETACH, true, 600),
        (json!({"results_wait": 5}), JobOptions::empty(), true, 5),
        (claim(), JobOptions::empty(), true, 120),
        (claim(), JobOptions::DETACH, true, 0),
    ] {
        assert_eq!(kept(section.clone(), options, may_be_left), seconds, "{section} {options:?} {may_be_left}");
    }
}

#[test]
fn no_time_limit() {
    let mut job = job(1, json!({}));
    job.time_limit = None;
    check("no-time-limit", &job);
    assert_eq!(object(&job)["spec"].get("activeDeadlineSeconds"), None);
}

#[test]
fn scripts_that_differ_from_node_to_node() {
    let mut job = job(3, json!({}));
    for (role, name) in job.topology.roles.iter_mut().zip(["balancer", "prefill", "decode"]) {
        role.command = Some(vec!["python3".into(), "-m".into(), name.into()]);
    }
    check("three-commands", &job);
    let work = made(&job);
    let keys: Vec<String> = work.objects[0]["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.iter().filter(|key| key.contains("entry")).count(), 3, "{keys:?}");
}

#[test]
fn hostile_values() {
    let section = json!({"node_selector": {"a": HOSTILE}});
    let mut job = with_config(job(2, section), json!({"env_vars": {"FROM_CONTEXT": HOSTILE}}));
    job.model = format!("--{HOSTILE}");
    job.env.push(variable("HOSTILE", HOSTILE));
    job.env.push(variable("EXPANDED", "$(HOME) $(MAD_K8S_POD_NAME) $$"));
    job.env.push(variable("MINE", "$MADDOCK_MAIN_NODE"));
    job.script.arguments = vec![HOSTILE.into(), "-rf".into()];
    job.paths.work_directory = "-w $(id)".into();
    job.collect = vec!["x $(id)*.csv".into(), "../../etc/passwd".into(), "-rf".into()];
    compare("hostile", &texts(&job, true));
}

#[test]
fn a_variable_of_the_job_wins_over_one_of_the_context_and_both_over_the_launcher() {
    let mut job = with_config(job(2, json!({})), json!({"env_vars": {"A": "context", "NODE_RANK": "mine"}}));
    job.env = vec![variable("A", "job")];
    assert!(variables(&job).contains(&("A".into(), "job".into())));
    let work = made(&job);
    let data = work.objects[0]["data"].as_object().unwrap();
    let (_, roles) = data.iter().find(|(key, _)| key.ends_with("roles.sh")).unwrap();
    assert!(!roles.as_str().unwrap().contains("NODE_RANK"), "{roles}");
    // What only the nodes know is set by the entry script.
    let (_, entry) = data.iter().find(|(key, _)| key.ends_with("entry.sh")).unwrap();
    assert!(entry.as_str().unwrap().contains("MASTER_ADDR"), "{entry}");
}

#[test]
fn a_script_that_needs_a_scheduler_s_commands_is_refused() {
    let mut job = job(2, json!({}));
    job.topology.roles = vec![NodeRole { node: 0, name: "batch".into(), env: Vec::new(), command: None }];
    let error = prepare(&job, surroundings()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    assert!(error.message.contains("batch scheduler"), "{}", error.message);
}

#[test]
fn pods_find_the_first_by_a_name_that_its_service_gives_it() {
    let job = job(2, json!({}));
    let work = made(&job);
    let kinds: Vec<&str> = work.objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ConfigMap", "Service", "Job"]);
    let (service, object) = (&work.objects[1], &work.objects[2]);
    assert_eq!(object["spec"]["template"]["spec"]["subdomain"], service["metadata"]["name"]);
    assert_eq!(service["spec"]["selector"]["job-name"], object["metadata"]["name"]);
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
}

#[test]
fn an_image_of_this_machine_only_is_refused_unless_the_nodes_have_it() {
    let mut job = job(1, json!({}));
    let image = job.image.as_mut().unwrap();
    image.registry_reference = None;
    let error = prepare(&job, surroundings()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    assert!(error.hint.unwrap().contains("--registry"));
    job.config = json!({"k8s": {"image_pull_policy": "IfNotPresent"}}).to_string();
    assert_eq!(model(&job)["image"], "ci-dummy_dummy.ubuntu.amd");
    job.config = json!({}).to_string();
    job.image.as_mut().unwrap().local = true;
    assert_eq!(model(&job)["image"], "ci-dummy_dummy.ubuntu.amd", "a name that the user gave is taken as it is");
    job.image = None;
    assert_eq!(prepare(&job, surroundings()).unwrap_err().kind, ErrorKind::InvalidInput);
}

#[test]
fn secrets_are_in_no_text() {
    let job = job(1, json!({}));
    let work = made(&job);
    let reference = model(&job)["env"].as_array().unwrap().iter().find(|entry| entry["name"] == "KEY").unwrap().clone();
    assert_eq!(reference["valueFrom"]["secretKeyRef"]["name"], json!(format!("{}-runtime", work.name)));
    assert!(work.objects.iter().all(|object| !object.to_string().contains("env/KEY")));
}

#[test]
fn a_place_of_connections_is_absolute() {
    for (written, expected) in [
        ("", ""),
        ("~/.kube/config", "/home/me/.kube/config"),
        ("~/lab", "/home/me/lab"),
        ("/etc/k8s.conf", "/etc/k8s.conf"),
    ] {
        assert_eq!(made(&job(1, json!({ "kubeconfig": written }))).connection.kubeconfig, expected);
    }
    let error = prepare(&job(1, json!({"kubeconfig": "lab.config"})), surroundings()).unwrap_err();
    assert!(error.details.iter().any(|detail| detail.value == "k8s.kubeconfig"));
}

#[test]
fn nothing_is_kept_alive() {
    let mut job = job(1, json!({}));
    job.options = JobOptions::KEEP_ALIVE;
    assert!(made(&job).warnings.iter().any(|warning| warning.contains("kept alive")));
}

#[test]
fn what_a_tree_puts_where_our_scripts_lie_does_not_replace_them() {
    let mut here = surroundings();
    here.files.push(target_k8s::bundle::File {
        path: "w/.maddock/entry.sh".into(),
        bytes: b"evil".to_vec(),
        mode: 0o755,
    });
    let work = prepare(&job(1, json!({})), here).unwrap();
    assert!(!work.objects[0].to_string().contains("evil"));
}
