//! Out of a namespace, a context and the kinds of objects that a rule speaks of. What policy and the host itself refuse needs no
//! cluster but a file of connections; what is somebody else's on a cluster needs one (`KUBECONFIG`).

use std::process::Command;

use serde_json::{Value, json};

use crate::lair::{Lair, SECRET, needed};

/// Connections of two contexts to a server that does not answer.
const CONNECTIONS: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "mine",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "x"}}],
    "contexts": [{"name": "mine", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
        {"name": "prod", "context": {"cluster": "c", "user": "u"}}]}"#;

/// A lair that may make Jobs of one registry's images, in one namespace of one context, and no more.
fn narrow() -> Lair {
    let lair = Lair::new().grant(
        &["kube.*"],
        "scope.context = [\"mine\"]\nscope.namespace = [\"team\"]\nscope.kind = [\"Job\"]\nscope.image = [\"registry.example.com/**\"]\n\
         scope.host-path = []\nscope.service-account = []\nscope.secret-object = []\nscope.node = []\nscope.capability = []\n\
         scope.host-network = []\nscope.host-ipc = []\nscope.host-port = []\nscope.nfs = []\nscope.volume = []\nscope.volume-claim = []\n\
         scope.volume-source = []\nscope.runtime-class = []\nscope.priority-class = []\nscope.seccomp = []\nscope.apparmor = []\n\
         scope.selinux = []\nscope.sysctl = []\nscope.storage-class = []\nscope.service-type = []\nscope.external-address = []",
    );
    let file = lair.write("connections", CONNECTIONS);
    lair.set("KUBECONFIG", &file)
}

/// A Job that is allowed, changed by an attack on its pods.
fn job(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod =
        json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example.com/a:1"}]});
    change(&mut pod);
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hostile"}, "spec": {"template": {"spec": pod}}})
}

fn create(object: Value) -> Value {
    json!({"do": "kube.create", "namespace": "team", "objects": [object]})
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), word: &str) {
    let lair = narrow();
    // Without the attack nothing but the server is in its way.
    lair.order(create(job(|_| ()))).is("unavailable");
    lair.order(create(job(change))).denied().says(word);
}

#[test]
fn another_namespace_is_refused() {
    let lair = narrow();
    for namespace in ["kube-system", "team-b", "default"] {
        lair.order(json!({"do": "kube.create", "namespace": namespace, "objects": [job(|_| ())]}))
            .denied()
            .says("namespace");
        lair.order(json!({"do": "kube.get", "namespace": namespace, "kind": "Job", "name": "x"}))
            .denied()
            .says("namespace");
    }
}

#[test]
fn another_namespace_within_an_object_is_refused() {
    let mut object = job(|_| ());
    object["metadata"]["namespace"] = json!("kube-system");
    narrow().order(create(object)).is("invalid-input").says("kube-system");
}

#[test]
fn another_context_is_refused() {
    narrow().order(json!({"do": "kube.list-owned", "context": "prod", "namespace": "team"})).denied().says("prod");
}

#[test]
fn a_namespace_s_name_addresses_nothing_else() {
    let lair = Lair::new().grant(&["kube.*"], "");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    for namespace in ["../kube-system", "team/pods", "*", "team?x=y", "a..b", "TEAM"] {
        lair.order(json!({"do": "kube.list-owned", "namespace": namespace})).is("invalid-input");
    }
}

#[test]
fn connections_that_a_plugin_writes_itself_are_not_used() {
    // It calls its own server by the name of the context that it may use, and has a file of this machine sent there as a token.
    let lair = Lair::with_files().grant(&["kube.*"], "scope.context = [\"mine\"]");
    let secret = lair.at("outside/secret");
    let forged = CONNECTIONS.replace("\"token\": \"x\"", &format!("\"tokenFile\": \"{secret}\""));
    let path = lair.at("run/connections");
    let told = lair.obey(json!([
        {"do": "files.write", "path": path, "bytes": forged},
        {"do": "kube.list-owned", "kubeconfig": path, "context": "mine", "namespace": "team"},
    ]));
    told[0].ok();
    told[1].denied().says("run's own directory");
    let link = lair.link("outside/connections", &path);
    lair.order(json!({"do": "kube.list-owned", "kubeconfig": link, "context": "mine", "namespace": "team"})).denied();
}

#[test]
fn a_program_that_connections_name_is_not_started_without_a_rule() {
    let lair = Lair::new().grant(&["kube.*"], "scope.program = [\"aws\"]");
    let mark = lair.at("outside/started");
    let evil = CONNECTIONS.replace(
        "\"token\": \"x\"",
        &format!("\"exec\": {{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"command\": \"touch\", \"args\": [\"{mark}\"], \"interactiveMode\": \"Never\"}}"),
    );
    let file = lair.write("outside/connections", &evil);
    lair.order(json!({"do": "kube.list-owned", "kubeconfig": file, "namespace": "team"})).denied().says("program");
    assert!(!lair.has("outside/started"));
}

#[test]
fn a_program_of_a_known_name_elsewhere_is_another() {
    let lair = Lair::new().grant(&["kube.*"], "scope.program = [\"aws\"]");
    let evil = lair.write("outside/aws", "#!/bin/sh\ntouch \"$0.started\"\n");
    std::fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = CONNECTIONS.replace(
        "\"token\": \"x\"",
        &format!("\"exec\": {{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"command\": \"{evil}\", \"interactiveMode\": \"Never\"}}"),
    );
    let file = lair.write("outside/connections", &text);
    lair.order(json!({"do": "kube.list-owned", "kubeconfig": file, "namespace": "team"})).denied().says("program");
    assert!(!lair.has("outside/aws.started"));
}

#[test]
fn a_plugin_without_leave_learns_no_context() {
    let lair = Lair::new();
    let file = lair.write("outside/connections", CONNECTIONS);
    let told =
        lair.order(json!({"do": "kube.list-owned", "kubeconfig": file, "context": "guess", "namespace": "team"}));
    told.denied().hides("prod");
}

#[test]
fn a_kind_that_a_rule_does_not_name_is_refused() {
    let lair = narrow();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {}});
    lair.order(create(map)).denied().says("kind");
    lair.order(json!({"do": "kube.delete", "namespace": "team", "kind": "ConfigMap", "name": "x"}))
        .denied()
        .says("kind");
    let mut pod = job(|_| ());
    pod["kind"] = json!("Pod");
    let told = lair.order(create(pod));
    assert!(told.kind() != "no error");
}

#[test]
fn kinds_that_rule_a_cluster_are_not_made() {
    let lair = Lair::new().grant(&["kube.*"], "");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    for kind in [
        "ClusterRoleBinding",
        "RoleBinding",
        "Node",
        "Namespace",
        "DaemonSet",
        "MutatingWebhookConfiguration",
        "Secret",
        "job",
        "",
    ] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}});
        lair.order(create(object)).is("unsupported");
        lair.order(json!({"do": "kube.get", "namespace": "team", "kind": kind, "name": "x"})).is("unsupported");
    }
}

#[test]
fn a_secret_of_the_cluster_is_not_read() {
    let lair = Lair::new().grant(&["kube.*"], "");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    lair.order(json!({"do": "kube.get", "namespace": "team", "kind": "Secret", "name": "token"})).is("unsupported");
}

#[test]
fn a_privileged_pod_takes_a_rule_that_says_so() {
    let lair = Lair::new().grant(&["kube.*"], "");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    let container = |context: Value| job(|pod| pod["containers"][0]["securityContext"] = context);
    for (object, word) in [
        (container(json!({"privileged": true})), "privileged"),
        (container(json!({"procMount": "Unmasked"})), "unmasked-proc"),
        (container(json!({"windowsOptions": {"hostProcess": true}})), "privileged"),
        (job(|pod| pod["hostPID"] = json!(true)), "host-pid"),
        (
            job(|pod| {
                pod["initContainers"] =
                    json!([{"name": "i", "image": "registry.example.com/a:1", "securityContext": {"privileged": true}}])
            }),
            "privileged",
        ),
    ] {
        lair.order(create(object)).denied().says(word);
    }
}

#[test]
fn a_path_of_a_node_is_not_mounted() {
    refused(|pod| pod["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}]), "host-path");
}

#[test]
fn no_namespace_of_a_node_is_shared() {
    refused(|pod| pod["hostNetwork"] = json!(true), "host-network");
    refused(|pod| pod["hostIPC"] = json!(true), "host-ipc");
    refused(|pod| pod["containers"][0]["ports"] = json!([{"containerPort": 1, "hostPort": 22}]), "host-port");
}

#[test]
fn a_capability_is_refused_in_every_container_of_a_pod() {
    let context = json!({"capabilities": {"add": ["SYS_ADMIN"]}});
    refused(|pod| pod["containers"][0]["securityContext"] = context.clone(), "capability");
    refused(
        |pod| {
            pod["initContainers"] =
                json!([{"name": "i", "image": "registry.example.com/a:1", "securityContext": context.clone()}])
        },
        "capability",
    );
}

#[test]
fn a_profile_is_not_switched_off() {
    refused(|pod| pod["securityContext"] = json!({"seccompProfile": {"type": "Unconfined"}}), "seccomp");
    refused(
        |pod| pod["containers"][0]["securityContext"] = json!({"appArmorProfile": {"type": "Unconfined"}}),
        "apparmor",
    );
    refused(|pod| pod["securityContext"] = json!({"seLinuxOptions": {"type": "spc_t"}}), "selinux");
}

#[test]
fn a_profile_is_not_switched_off_by_an_annotation() {
    let lair = narrow();
    let mut object = job(|_| ());
    object["spec"]["template"]["metadata"] =
        json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}});
    lair.order(create(object)).denied().says("apparmor");
}

#[test]
fn the_account_of_somebody_else_is_not_used() {
    refused(|pod| pod["serviceAccountName"] = json!("admin"), "service-account");
    refused(|pod| pod["serviceAccount"] = json!("admin"), "service-account");
}

#[test]
fn secrets_of_the_namespace_are_not_taken_in_any_way() {
    refused(|pod| pod["volumes"] = json!([{"name": "v", "secret": {"secretName": "theirs"}}]), "secret-object");
    refused(
        |pod| pod["volumes"] = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "theirs"}}]}}]),
        "secret-object",
    );
    refused(|pod| pod["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "theirs"}}]), "secret-object");
    refused(
        |pod| {
            pod["containers"][0]["env"] =
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "k"}}}])
        },
        "secret-object",
    );
    refused(|pod| pod["imagePullSecrets"] = json!([{"name": "theirs"}]), "secret-object");
}

#[test]
fn a_volume_of_somebody_else_is_not_mounted() {
    refused(
        |pod| pod["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "theirs"}}]),
        "volume-claim",
    );
    refused(|pod| pod["volumes"] = json!([{"name": "v", "nfs": {"server": "files.example.com", "path": "/"}}]), "nfs");
    refused(|pod| pod["volumes"] = json!([{"name": "v", "csi": {"driver": "d.example.com"}}]), "volume-source");
}

#[test]
fn a_node_and_a_priority_are_not_chosen() {
    refused(|pod| pod["nodeName"] = json!("control-plane"), "node");
    refused(|pod| pod["priorityClassName"] = json!("system-node-critical"), "priority-class");
    refused(|pod| pod["runtimeClassName"] = json!("evil"), "runtime-class");
}

#[test]
fn an_image_of_another_registry_is_refused_wherever_it_stands() {
    refused(|pod| pod["containers"][0]["image"] = json!("evil.example/a:1"), "image");
    refused(|pod| pod["initContainers"] = json!([{"name": "i", "image": "evil.example/a:1"}]), "image");
    refused(|pod| pod["volumes"] = json!([{"name": "v", "image": {"reference": "evil.example/a:1"}}]), "image");
}

#[test]
fn a_member_that_says_a_thing_twice_means_what_was_judged() {
    let lair = narrow();
    // Readers of JSON differ in which of two they take.
    for (first, second) in
        [("registry.example.com/a:1", "evil.example/a:1"), ("evil.example/a:1", "registry.example.com/a:1")]
    {
        let raw = format!(
            r#"{{"apiVersion": "batch/v1", "kind": "Job", "metadata": {{"name": "x"}}, "spec": {{"template": {{"spec": {{"restartPolicy": "Never",
            "containers": [{{"name": "main", "image": "{first}", "image": "{second}"}}]}}}}}}}}"#
        );
        let told = lair.order(json!({"do": "kube.create", "namespace": "team", "raw": [raw]}));
        let expected = if second.starts_with("evil") { "denied" } else { "unavailable" };
        assert!(matches!(told.kind(), "invalid-input") || told.kind() == expected, "{}", told.0);
    }
}

#[test]
fn a_member_that_nobody_looks_at_is_not_handed_on() {
    let lair = Lair::new().grant(&["kube.*"], "");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    let object = job(|pod| pod["containers"][0]["securityContext"] = json!({"privilegedd": true, "Privileged": true}));
    lair.order(create(object)).is("invalid-input");
}

#[test]
fn a_service_does_not_open_a_way_from_outside() {
    let lair = Lair::new().grant(&["kube.create"], "scope.service-type = []\nscope.external-address = []");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    let service =
        |spec: Value| create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec}));
    lair.order(service(json!({"type": "LoadBalancer"}))).denied().says("service-type");
    lair.order(service(json!({"externalIPs": ["203.0.113.1"]}))).denied().says("external-address");
    lair.order(service(json!({"type": "ExternalName", "externalName": "evil.example"}))).denied();
}

#[test]
fn no_object_says_itself_whose_it_is() {
    let lair = Lair::new().grant(&["kube.*"], "");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    for (list, name) in [("labels", "maddock.dev/run"), ("annotations", "maddock.dev/job"), ("labels", "maddock.dev/x")]
    {
        let mut object = job(|_| ());
        object["metadata"][list] = json!({name: "another"});
        lair.order(create(object)).is("invalid-input").says("maddock.dev/");
    }
    for member in ["finalizers", "generateName", "ownerReferences"] {
        let mut object = job(|_| ());
        object["metadata"][member] = match member {
            "generateName" => json!("a-"),
            "finalizers" => json!(["x/y"]),
            _ => json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "1"}]),
        };
        let told = lair.order(create(object));
        assert_eq!(told.kind(), "invalid-input", "{member}: {}", told.0);
    }
}

#[test]
fn a_secret_that_no_rule_names_is_put_into_no_cluster() {
    let lair = Lair::new().grant(&["kube.create-secret"], "scope.secret = [\"env/OTHER\"]");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    lair.order(json!({"do": "kube.create-secret", "namespace": "team", "name": "x", "members": [["a", "env/TOKEN"]]}))
        .denied()
        .hides(SECRET);
    let login = json!({"do": "kube.create-secret", "namespace": "team", "name": "x", "logins": [["evil.example", "credential/hub"]]});
    lair.order(login).denied().hides(SECRET);
}

/// A namespace of a real cluster with a Job of another run in it; it goes away with this.
struct Scene(String);

impl Scene {
    fn new(lair: &Lair) -> Option<Self> {
        needed("KUBECONFIG")?;
        let scene = Self(format!("h-{}", lair.run));
        scene.kubectl(&["create", "namespace", &scene.0], "");
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "theirs", "labels": {"maddock.dev/run": "another"}},
            "spec": {"template": {"metadata": {"labels": {"maddock.dev/run": "another"}}, "spec": {"restartPolicy": "Never", "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"]}]}}}});
        scene.kubectl(&["apply", "--namespace", &scene.0, "-f", "-"], &job.to_string());
        Some(scene)
    }

    fn kubectl(&self, words: &[&str], input: &str) -> String {
        use std::io::Write;
        let mut child = Command::new("kubectl")
            .args(words)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {words:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The pod of the other run's Job.
    fn pod(&self) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
        loop {
            let name = self.kubectl(&["get", "pods", "--namespace", &self.0, "--output=name"], "");
            if let Some(name) = name.trim().strip_prefix("pod/") {
                return name.to_owned();
            }
            assert!(std::time::Instant::now() < deadline);
        }
    }

    fn is_untouched(&self) {
        self.kubectl(&["get", "job", "theirs", "--namespace", &self.0], "");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = Command::new("kubectl").args(["delete", "namespace", &self.0, "--wait=false"]).output();
    }
}

fn on_cluster() -> Lair {
    Lair::new().grant(&["kube.*"], "").in_this_environment()
}

#[test]
fn a_job_of_another_run_is_not_deleted() {
    let lair = on_cluster();
    let Some(scene) = Scene::new(&lair) else { return };
    lair.order(json!({"do": "kube.delete", "namespace": scene.0, "kind": "Job", "name": "theirs"})).is("conflict");
    scene.is_untouched();
}

#[test]
fn nothing_is_deleted_by_an_empty_name_or_a_pattern() {
    let lair = on_cluster();
    let Some(scene) = Scene::new(&lair) else { return };
    for name in ["", "*", "theirs,other", "theirs/status", "theirs?force=true", "."] {
        lair.order(json!({"do": "kube.delete", "namespace": scene.0, "kind": "Job", "name": name})).is("invalid-input");
    }
    scene.is_untouched();
}

#[test]
fn a_pod_of_another_run_is_not_entered_or_copied_from() {
    let lair = on_cluster();
    let Some(scene) = Scene::new(&lair) else { return };
    let pod = scene.pod();
    lair.order(json!({"do": "kube.exec", "namespace": scene.0, "name": pod, "command": ["id"]})).is("conflict");
    let copy = json!({"do": "kube.copy-out", "namespace": scene.0, "name": pod, "path": "/etc", "destination": lair.at("run/x")});
    lair.order(copy).is("conflict");
}

#[test]
fn the_output_of_another_run_s_job_is_not_followed() {
    let lair = on_cluster();
    let Some(scene) = Scene::new(&lair) else { return };
    lair.order(json!({"do": "kube.follow-logs", "namespace": scene.0, "name": "theirs"})).is("conflict");
    lair.order(json!({"do": "kube.next-change", "namespace": scene.0, "name": "theirs"})).is("conflict");
}

#[test]
fn the_name_of_another_run_s_job_is_not_taken() {
    let lair = on_cluster();
    let Some(scene) = Scene::new(&lair) else { return };
    let mut object = job(|pod| pod["containers"][0]["image"] = json!("localhost/busybox:1"));
    object["metadata"]["name"] = json!("theirs");
    lair.order(json!({"do": "kube.create", "namespace": scene.0, "objects": [object]})).is("conflict");
    assert!(!lair.order(json!({"do": "kube.list-owned", "namespace": scene.0})).ok().contains("theirs"));
}

#[test]
fn a_volume_is_not_filled_from_somebody_else_s() {
    let filled = |member: &str, kind: &str| {
        let source = json!({"kind": kind, "name": "theirs"});
        let spec = json!({"accessModes": ["ReadWriteOnce"], member: source});
        json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}])
    };
    for member in ["dataSource", "dataSourceRef"] {
        refused(|pod| pod["volumes"] = filled(member, "PersistentVolumeClaim"), "volume-claim");
        refused(|pod| pod["volumes"] = filled(member, "VolumeSnapshot"), "volume-source");
    }
}

#[test]
fn a_denied_path_of_a_node_is_denied_in_every_spelling() {
    let lair = Lair::new()
        .grant(&["kube.*"], "")
        .rules("[[deny]]\nplugin = \"*\"\ncalls = [\"kube.*\"]\nscope.host-path = [\"/etc/**\"]\nreason = \"no\"\n");
    let file = lair.write("connections", CONNECTIONS);
    let lair = lair.set("KUBECONFIG", &file);
    for path in ["/etc", "//etc", "/./etc", "/etc//ssh", "/"] {
        let object = job(|pod| pod["volumes"] = json!([{"name": "v", "hostPath": {"path": path}}]));
        lair.order(create(object)).denied().says("host-path");
    }
}
