//! The host's cluster calls against a real API server, which `KUBECONFIG` names: its nodes must have the image
//! `localhost/busybox:1`. Without one they are skipped, with a line.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

#[path = "kube/proxy.rs"]
mod proxy;
#[path = "kube/scene.rs"]
mod scene;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use maddock_bindings::api::kube::{Host, JobState, RegistryLogin, SecretContent, SecretMember, Snapshot};
use maddock_bindings::api::types::ErrorKind;
use scene::{Scene, ended, job, job_with, logs_of, object_ref, until};
use serde_json::{Value, json};

macro_rules! scene {
    ($name:literal) => {
        match Scene::new($name).await {
            Some(scene) => scene,
            None => return,
        }
    };
}

#[tokio::test]
async fn a_server_is_described_and_a_namespace_that_is_not_there_is_told() {
    let scene = scene!("describe");
    let mut state = scene.state();
    let server = state.describe_server(scene.connection()).await.unwrap().unwrap();
    assert!(server.version.starts_with('v'), "{server:?}");
    assert_eq!(server.namespace, scene.namespace);
    let mut nowhere = scene.connection();
    nowhere.namespace = "no-such-namespace".into();
    let refused = state.describe_server(nowhere).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::NotFound), "{refused:?}");
    let nodes = state.list_nodes(scene.connection()).await.unwrap().unwrap();
    assert!(nodes.iter().any(|node| node.ready && node.allocatable.iter().any(|entry| entry.name == "cpu")));
}

#[tokio::test]
async fn a_context_that_is_not_there_is_told_with_those_that_are() {
    let scene = scene!("context");
    let mut state = scene.state();
    let mut wrong = scene.connection();
    wrong.context = "no-such-context".into();
    let refused = state.describe_server(wrong).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::NotFound), "{refused:?}");
    let hint = refused.hint.unwrap();
    assert!(hint.starts_with("it has `"), "{hint}");
}

#[tokio::test]
async fn what_the_cluster_forbids_is_told_as_its_own_refusal() {
    let scene = scene!("forbidden");
    let mut state = scene.state();
    let connection = scene.connection_as("nobody-in-particular");
    let refused = state.list_nodes(connection.clone()).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Failed), "{refused:?}");
    assert!(refused.details.iter().any(|entry| entry.name == "reason" && entry.value == "Forbidden"), "{refused:?}");
    // A watch that can never be is an error at once, and not an endless wait.
    let refused = state.next_change(connection, "a".into(), 0, 60_000).await.unwrap().unwrap_err();
    assert!(refused.details.iter().any(|entry| entry.value == "Forbidden"), "{refused:?}");
}

#[tokio::test]
async fn a_job_bears_its_owner_and_is_watched_to_its_end_and_deleted() {
    let scene = scene!("life");
    let mut state = scene.state();
    let made = state.create(scene.connection(), vec![job("life", 1, "exit 7")]).await.unwrap().unwrap();
    assert_eq!((made[0].kind.as_str(), made[0].name.as_str()), ("Job", "life"));
    let text = state.get(scene.connection(), object_ref("Job", "life")).await.unwrap().unwrap().unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        let labels = value.pointer(labels).unwrap();
        assert_eq!(labels["maddock.dev/run"], "test");
        assert_eq!(labels["maddock.dev/job"], scene.job);
    }
    let end = ended(&scene, &mut state, "life").await;
    let JobState::Failed(why) = &end.state else { panic!("{end:?}") };
    assert_eq!(why.name, "BackoffLimitExceeded");
    assert_eq!(end.pods.len(), 1, "{end:?}");
    let container = &end.pods[0].containers[0];
    assert_eq!((container.name.as_str(), container.exit_code, container.signal), ("main", Some(7), None));
    assert!(!container.finished.is_empty() && !end.pods[0].node_name.is_empty());

    let owned = state.list_owned(scene.connection()).await.unwrap().unwrap();
    assert_eq!(owned.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["life"], "pods go with their Job");
    state.delete(scene.connection(), object_ref("Job", "life")).await.unwrap().unwrap();
    assert!(state.get(scene.connection(), object_ref("Job", "life")).await.unwrap().unwrap().is_none());
    let pods: Api<Pod> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    assert!(pods.list(&Default::default()).await.unwrap().items.is_empty(), "its pods are gone with it");
    state.delete(scene.connection(), object_ref("Job", "life")).await.unwrap().unwrap();
    let last = until(&scene, &mut state, "life", |snapshot| matches!(snapshot.state, JobState::Gone)).await;
    assert!(last.pods.iter().all(|pod| pod.deleted), "{last:?}");
}

#[tokio::test]
async fn a_job_that_is_as_it_was_seen_is_not_told_again() {
    let scene = scene!("again");
    let mut state = scene.state();
    state.create(scene.connection(), vec![job("again", 1, "true")]).await.unwrap().unwrap();
    let end = ended(&scene, &mut state, "again").await;
    assert!(matches!(end.state, JobState::Complete), "{end:?}");
    // Words about it may still come; then there is nothing more.
    let mut seen = end.change;
    while let Some(more) = state.next_change(scene.connection(), "again".into(), seen, 3000).await.unwrap().unwrap() {
        assert!(more.change > seen);
        seen = more.change;
    }
}

#[tokio::test]
async fn a_job_that_nobody_made_is_gone() {
    let scene = scene!("nobody");
    let mut state = scene.state();
    let told = state.next_change(scene.connection(), "nobody".into(), 0, 60_000).await.unwrap().unwrap().unwrap();
    assert!(matches!(told.state, JobState::Gone), "{told:?}");
}

#[tokio::test]
async fn what_every_pod_of_a_job_writes_is_told_whole_and_once() {
    let scene = scene!("logs");
    let mut state = scene.state();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $JOB_COMPLETION_INDEX $i; i=$((i+1)); done; printf end";
    state.create(scene.connection(), vec![job("logs", 2, script)]).await.unwrap().unwrap();
    let (told, ends) = logs_of(&scene, &mut state, "logs", 2).await;
    for index in 0..2u32 {
        let mut wanted: String = (0..3000).map(|line| format!("line {index} {line}\n")).collect();
        wanted.push_str("end");
        assert!(told[&index] == wanted, "pod {index}: {} bytes for {}", told[&index].len(), wanted.len());
    }
    assert!(ends.iter().all(|end| end.complete), "{ends:?}");
}

#[tokio::test]
async fn a_container_that_is_started_again_tells_all_its_runs() {
    let scene = scene!("restart");
    let mut state = scene.state();
    let script = "if [ -e /work/second ]; then echo second; else touch /work/second; echo first; exit 1; fi";
    let mut value: Value = serde_json::from_str(&job("restart", 1, script)).unwrap();
    let pod = &mut value["spec"]["template"]["spec"];
    pod["restartPolicy"] = json!("OnFailure");
    pod["volumes"] = json!([{"name": "work", "emptyDir": {}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    value["spec"]["backoffLimit"] = json!(3);
    state.create(scene.connection(), vec![value.to_string()]).await.unwrap().unwrap();
    let (told, ends) = logs_of(&scene, &mut state, "restart", 1).await;
    assert_eq!(told[&0], "first\nsecond\n", "{ends:?}");
    assert!(ends[0].complete, "{ends:?}");
}

#[tokio::test]
async fn a_program_runs_in_a_pod_and_a_directory_comes_out_of_it() {
    let scene = scene!("exec");
    let mut state = scene.state();
    let script = "mkdir -p /tmp/out/deep; echo content > /tmp/out/deep/file; ln -s /etc/passwd /tmp/out/link; \
        ln /tmp/out/deep/file /tmp/out/twin; head -c 3000000 /dev/zero > /tmp/out/large; touch /tmp/ready; sleep 600";
    state.create(scene.connection(), vec![job("exec", 1, script)]).await.unwrap().unwrap();
    let running = |snapshot: &Snapshot| snapshot.pods.iter().any(|pod| pod.phase == "Running");
    let pod = until(&scene, &mut state, "exec", running).await.pods[0].name.clone();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let wait = words(&["sh", "-ec", "until [ -e /tmp/ready ]; do sleep 0.1; done; echo out; echo err >&2; exit 3"]);
    let answer = state.exec(scene.connection(), pod.clone(), "main".into(), wait).await.unwrap().unwrap();
    assert_eq!(
        (answer.exit_code, answer.stdout.as_slice(), answer.stderr.as_slice()),
        (3, &b"out\n"[..], &b"err\n"[..])
    );
    let nothing = words(&["/no/such/program"]);
    assert!(
        state
            .exec(scene.connection(), pod.clone(), "main".into(), nothing)
            .await
            .unwrap()
            .map_or(true, |answer| answer.exit_code != 0)
    );

    let to = scene.run.join("results");
    let copy = async |state: &mut maddock::plugin::State, from: &str, to: &std::path::Path| {
        state
            .copy_out(scene.connection(), pod.clone(), "main".into(), from.into(), to.display().to_string())
            .await
            .unwrap()
    };
    let names = copy(&mut state, "/tmp/out", &to).await.unwrap();
    assert_eq!(names, ["deep/file", "large", "twin"]);
    assert_eq!(std::fs::read_to_string(to.join("twin")).unwrap(), "content\n");
    assert_eq!(std::fs::metadata(to.join("large")).unwrap().len(), 3_000_000);
    assert!(to.join("link").symlink_metadata().is_err(), "links stay where they are");
    let missing = copy(&mut state, "/no/such/directory", &to).await.unwrap_err();
    assert!(matches!(missing.kind, ErrorKind::NotFound), "{missing:?}");
    let outside = copy(&mut state, "/tmp/out", std::path::Path::new("/tmp/elsewhere")).await.unwrap_err();
    assert!(outside.message.contains("not a directory below"), "{outside:?}");
    state.delete(scene.connection(), object_ref("Job", "exec")).await.unwrap().unwrap();
}

#[tokio::test]
async fn objects_of_others_are_looked_at_and_never_touched() {
    let scene = scene!("others");
    let mut state = scene.state();
    let jobs: Api<Job> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    let mut theirs: Job = serde_json::from_str(&job("theirs", 1, "sleep 600")).unwrap();
    let labels = BTreeMap::from([("maddock.dev/run".to_owned(), "another".to_owned())]);
    theirs.metadata.labels = Some(labels.clone());
    theirs.spec.as_mut().unwrap().template.metadata.get_or_insert_default().labels = Some(labels);
    jobs.create(&PostParams::default(), &theirs).await.unwrap();
    let there = |text: Option<String>| text.is_some_and(|text| text.contains("\"theirs\""));
    assert!(there(state.get(scene.connection(), object_ref("Job", "theirs")).await.unwrap().unwrap()));
    let pods: Api<Pod> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    let pod = loop {
        if let Some(pod) = pods.list(&Default::default()).await.unwrap().items.into_iter().next() {
            break pod.metadata.name.unwrap();
        }
        tokio::task::yield_now().await;
    };
    let conflict = |error: maddock_bindings::api::types::Error| {
        assert!(matches!(error.kind, ErrorKind::Conflict), "{error:?}");
    };
    conflict(state.delete(scene.connection(), object_ref("Job", "theirs")).await.unwrap().unwrap_err());
    // An empty name would be that of all of them.
    for none in ["", "*", ".", "theirs/status", "theirs,x"] {
        let refused = state.delete(scene.connection(), object_ref("Job", none)).await.unwrap().unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::InvalidInput), "{none}: {refused:?}");
    }
    conflict(state.next_change(scene.connection(), "theirs".into(), 0, 60_000).await.unwrap().unwrap_err());
    let words = vec!["true".to_owned()];
    conflict(state.exec(scene.connection(), pod.clone(), "main".into(), words).await.unwrap().unwrap_err());
    let to = scene.run.join("x").display().to_string();
    conflict(state.copy_out(scene.connection(), pod, "main".into(), "/etc".into(), to).await.unwrap().unwrap_err());
    match state.follow_logs(scene.connection(), "theirs".into(), "main".into()).await.unwrap() {
        Ok(_) => panic!("their output is not for us"),
        Err(refused) => conflict(refused),
    }
    conflict(state.create(scene.connection(), vec![job("theirs", 1, "true")]).await.unwrap().unwrap_err());
    assert!(jobs.get("theirs").await.unwrap().metadata.deletion_timestamp.is_none());
    assert!(state.list_owned(scene.connection()).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn a_rehearsal_finds_what_the_server_would_refuse_and_makes_nothing() {
    let scene = scene!("check");
    let mut state = scene.state();
    state.check(scene.connection(), vec![job("check", 1, "true")]).await.unwrap().unwrap();
    let wrong = job_with("check", 1, "true", |spec| spec["template"]["spec"]["restartPolicy"] = json!("Always"));
    let refused = state.check(scene.connection(), vec![wrong]).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::InvalidInput), "{refused:?}");
    assert!(refused.message.contains("restartPolicy"), "{refused:?}");
    assert!(state.get(scene.connection(), object_ref("Job", "check")).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn where_one_object_cannot_be_made_none_stays() {
    let scene = scene!("none-stays");
    let mut state = scene.state();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first"}, "data": {"a": "b"}});
    let wrong = job_with("second", 1, "true", |spec| spec["template"]["spec"]["restartPolicy"] = json!("Always"));
    let refused = state.create(scene.connection(), vec![map.to_string(), wrong]).await.unwrap().unwrap_err();
    assert!(!refused.message.contains("left over"), "{refused:?}");
    let maps: Api<ConfigMap> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    assert!(maps.get_opt("first").await.unwrap().is_none());
}

#[tokio::test]
async fn secrets_of_the_host_reach_a_pod_and_no_plugin() {
    let scene = scene!("secrets");
    let mut setting = scene.setting();
    setting.secrets.add("credential/hub/username", "me");
    setting.secrets.add("credential/hub/password", "pass-word");
    setting.secrets.add("env/TOKEN", "t0ken-value");
    let mut state = scene.state_of(setting);
    let member = SecretMember { key: "token".into(), secret: "env/TOKEN".into() };
    let made = state.create_secret(scene.connection(), "runtime".into(), SecretContent::Members(vec![member])).await;
    assert_eq!(made.unwrap().unwrap().kind, "Secret");
    let login = RegistryLogin { registry: "docker.io".into(), secret: "credential/hub".into() };
    let content = SecretContent::RegistryLogins(vec![login]);
    state.create_secret(scene.connection(), "pull".into(), content).await.unwrap().unwrap();
    let secrets: Api<Secret> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    let pull = secrets.get("pull").await.unwrap();
    assert_eq!(pull.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    let refused = state.get(scene.connection(), object_ref("Secret", "runtime")).await.unwrap().unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Unsupported), "{refused:?}");

    let with_token = job_with("secrets", 1, "test \"$TOKEN\" = t0ken-value", |spec| {
        spec["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "runtime", "key": "token"}}}]);
    });
    state.create(scene.connection(), vec![with_token]).await.unwrap().unwrap();
    let end = ended(&scene, &mut state, "secrets").await;
    assert!(matches!(end.state, JobState::Complete), "{end:?}");
    let absent = SecretMember { key: "a".into(), secret: "env/ABSENT".into() };
    let refused = state.create_secret(scene.connection(), "c".into(), SecretContent::Members(vec![absent])).await;
    assert!(matches!(refused.unwrap().unwrap_err().kind, ErrorKind::NotFound));
    for name in ["runtime", "pull"] {
        state.delete(scene.connection(), object_ref("Secret", name)).await.unwrap().unwrap();
        assert!(secrets.get_opt(name).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_a_run_leaves_over_is_swept_and_what_is_to_stay_stays() {
    let scene = scene!("sweep");
    let mut state = scene.state();
    let map = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}}).to_string()
    };
    state.create(scene.connection(), vec![map("left"), job("left", 1, "sleep 600")]).await.unwrap().unwrap();
    state.job = Some("kept".into());
    state.create(scene.connection(), vec![map("kept")]).await.unwrap().unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    let stranger = serde_json::from_str(&map("stranger")).unwrap();
    maps.create(&PostParams::default(), &stranger).await.unwrap();
    let problems = maddock::capability::sweep(&state.context, &["kept".to_owned()]).await;
    assert!(problems.is_empty(), "{problems:?}");
    assert!(maps.get_opt("left").await.unwrap().is_none());
    assert!(maps.get_opt("kept").await.unwrap().is_some());
    assert!(maps.get_opt("stranger").await.unwrap().is_some());
    let jobs: Api<Job> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    assert!(jobs.get_opt("left").await.unwrap().is_none());
}

#[tokio::test]
async fn a_pod_that_finds_no_node_says_why() {
    let scene = scene!("no-node");
    let mut state = scene.state();
    let hungry = job_with("no-node", 1, "true", |spec| {
        spec["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"example.com/none": "1"}});
    });
    state.create(scene.connection(), vec![hungry]).await.unwrap().unwrap();
    let says = |snapshot: &Snapshot| {
        snapshot.pods.iter().any(|pod| pod.reason == "Unschedulable")
            && snapshot.warnings.iter().any(|warning| warning.name == "FailedScheduling")
    };
    until(&scene, &mut state, "no-node", says).await;
    state.delete(scene.connection(), object_ref("Job", "no-node")).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_stays_listed_and_its_successor_comes() {
    let scene = scene!("replaced");
    let mut state = scene.state();
    let patient = job_with("replaced", 1, "sleep 600", |spec| spec["backoffLimit"] = json!(4));
    state.create(scene.connection(), vec![patient]).await.unwrap().unwrap();
    let first = until(&scene, &mut state, "replaced", |seen| !seen.pods.is_empty()).await.pods[0].name.clone();
    let pods: Api<Pod> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    pods.delete(&first, &DeleteParams::default().grace_period(0)).await.unwrap();
    let both = until(&scene, &mut state, "replaced", |seen| {
        seen.pods.iter().any(|pod| pod.name == first && pod.deleted)
            && seen.pods.iter().any(|pod| pod.name != first && !pod.deleted)
    })
    .await;
    assert!(both.pods.iter().all(|pod| pod.index == 0), "{both:?}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_waited_for_and_nothing_is_lost_or_told_twice() {
    let scene = scene!("away");
    let proxy = proxy::Proxy::to(&scene.address()).await;
    let connection = scene.connection_by(&proxy);
    let mut state = scene.state();
    let script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.1; done";
    state.create(connection.clone(), vec![job("away", 1, script)]).await.unwrap().unwrap();
    let logs = state.follow_logs(connection.clone(), "away".into(), "main".into()).await.unwrap().unwrap();
    let mut told = scene::Told::default();
    told.until(&mut state, &logs, |told| told.text(0).contains("line 5\n")).await;
    proxy.cut();
    // It ends while nobody can be asked.
    let jobs: Api<Job> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    scene::eventually(async || {
        jobs.get("away").await.unwrap().status.is_some_and(|status| status.succeeded == Some(1))
    })
    .await;
    let none = state.next_change(connection.clone(), "away".into(), u64::MAX, 100).await;
    assert!(
        !none
            .unwrap()
            .unwrap()
            .is_some_and(|snapshot| matches!(snapshot.state, JobState::Complete | JobState::LostSight))
    );
    proxy.mend();
    let mut change = 0;
    loop {
        let next = state.next_change(connection.clone(), "away".into(), change, 60_000).await.unwrap().unwrap();
        let snapshot = next.unwrap();
        change = snapshot.change;
        if matches!(snapshot.state, JobState::Complete) {
            break;
        }
    }
    told.until(&mut state, &logs, |told| !told.ends.is_empty()).await;
    let wanted: String = (0..60).map(|line| format!("line {line}\n")).collect();
    assert_eq!(told.text(0), wanted);
    assert!(told.ends[0].complete, "{:?}", told.ends);
}

#[tokio::test]
async fn a_cluster_behind_a_proxy_is_reached_and_one_that_is_spared_is_not_asked_of_it() {
    let scene = scene!("proxy");
    let tunnel = proxy::Tunnel::start().await;
    let (host, port) = scene.address();
    let with = |variables: &[(&str, &str)]| {
        let mut setting = scene.setting();
        let kubeconfig = std::env::var("KUBECONFIG").unwrap();
        let all = [&[("KUBECONFIG", kubeconfig.as_str())], variables].concat();
        setting.environment = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        scene.state_of(setting)
    };
    let url = tunnel.url();
    for (case, variables, connection, asked) in [
        ("none", vec![], scene.connection(), false),
        ("environment", vec![("HTTPS_PROXY", url.as_str())], scene.connection(), true),
        ("spared", vec![("HTTPS_PROXY", url.as_str()), ("NO_PROXY", host.as_str())], scene.connection(), false),
        ("spared", vec![("https_proxy", url.as_str()), ("no_proxy", "10.250.0.0/16,")], scene.connection(), false),
        ("named", vec![("NO_PROXY", "*")], scene.connection_through(&url), true),
    ] {
        let mut state = with(&variables);
        let server = state.describe_server(connection.clone()).await.unwrap().unwrap();
        assert!(server.version.starts_with('v'), "{case}: {server:?}");
        let requests = tunnel.asked();
        assert_eq!(!requests.is_empty(), asked, "{case}: {requests:?}");
        let whole = |request: &String| {
            request.starts_with(&format!("CONNECT {host}:{port} ")) && request.contains("Basic bWU6d29yZA==")
        };
        assert!(requests.iter().all(whole), "{case}: {requests:?}");
    }
}

#[tokio::test]
async fn a_program_in_a_pod_is_reached_by_a_proxy_too() {
    let scene = scene!("exec-by-proxy");
    let tunnel = proxy::Tunnel::start().await;
    let connection = scene.connection_through(&tunnel.url());
    let mut state = scene.state();
    state.create(connection.clone(), vec![job("a", 1, "sleep 600")]).await.unwrap().unwrap();
    let seen = until(&scene, &mut state, "a", |seen| seen.pods.iter().any(|pod| pod.phase == "Running")).await;
    let command = vec!["echo".to_owned(), "hello".to_owned()];
    let pod = seen.pods[0].name.clone();
    let answer = state.exec(connection, pod, "main".into(), command).await.unwrap().unwrap();
    assert_eq!((answer.exit_code, answer.stdout), (0, b"hello\n".to_vec()));
    state.delete(scene.connection(), object_ref("Job", "a")).await.unwrap().unwrap();
    assert!(!tunnel.asked().is_empty());
}

#[tokio::test]
async fn what_policy_forbids_is_refused_before_the_cluster_hears_of_it() {
    let scene = scene!("policy");
    let mut setting = scene.setting();
    setting.rules = "schema = 1\n[[allow]]\nplugin = \"test\"\ncalls = [\"kube.create\"]\nscope.host-path = []\n\
        scope.privileged = []\nscope.image = [\"localhost/*\"]\n"
        .to_owned();
    let mut state = scene.state_of(setting);
    let privileged = |spec: &mut Value| {
        spec["template"]["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    };
    let host = |spec: &mut Value| {
        spec["template"]["spec"]["volumes"] = json!([{"name": "etc", "hostPath": {"path": "/etc"}}]);
    };
    let foreign = |spec: &mut Value| spec["template"]["spec"]["containers"][0]["image"] = json!("evil.example/x:1");
    let texts = [
        ("privileged", job_with("policy", 1, "true", privileged)),
        ("host-path", job_with("policy", 1, "true", host)),
        ("image", job_with("policy", 1, "true", foreign)),
    ];
    for (word, text) in texts {
        let refused = state.create(scene.connection(), vec![text]).await.unwrap().unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::Denied), "{refused:?}");
        assert!(refused.message.contains(word), "{refused:?}");
    }
    let jobs: Api<Job> = Api::namespaced(scene.admin.clone(), &scene.namespace);
    assert!(jobs.list(&Default::default()).await.unwrap().items.is_empty());
    state.create(scene.connection(), vec![job("policy", 1, "true")]).await.unwrap().unwrap();
}

#[test]
fn the_family_is_named_as_its_interface() {
    use maddock::capability::gate::Capability;
    assert_eq!(maddock::capability::kube::Kube::NAME, "kube");
}
