//! What an object reaches, in words that a policy can say. The typed object is walked: what this file does not look at, no
//! rule can speak of.

use std::path::{Path, PathBuf};

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile,
    SecurityContext, Service, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Kube;
use crate::capability::gate::Call;

/// Sources of volumes that hold what the pod itself or an object of the namespace has, which have scopes of their own.
const HARMLESS: [&str; 8] =
    ["name", "configMap", "secret", "emptyDir", "downwardAPI", "projected", "persistentVolumeClaim", "ephemeral"];

/// Annotations that said a profile before there were members for it.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/";

/// Scopes in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    words: Vec<(&'static str, String)>,
}

impl Words {
    pub(super) fn describe(&self, call: Call<Kube>) -> Call<Kube> {
        self.words.iter().fold(call, |call, (name, value)| call.on(name, value))
    }

    fn add(&mut self, name: &'static str, value: impl Into<String>) {
        let word = (name, value.into());
        if !self.words.contains(&word) {
            self.words.push(word);
        }
    }

    fn add_all<'a>(&mut self, name: &'static str, values: impl IntoIterator<Item = &'a String>) {
        values.into_iter().for_each(|value| self.add(name, value));
    }

    fn add_if(&mut self, name: &'static str, set: Option<bool>) {
        if set == Some(true) {
            self.add(name, "true");
        }
    }

    /// A Job: so many pods, of this kind.
    pub(super) fn job(&mut self, spec: Option<&JobSpec>) {
        let count = |number: Option<i32>| number.unwrap_or(1);
        let pods = spec.map_or(1, |spec| count(spec.parallelism).max(count(spec.completions)));
        self.add("node-count", pods.max(1).to_string());
        self.template(spec.map(|spec| &spec.template));
    }

    pub(super) fn template(&mut self, template: Option<&PodTemplateSpec>) {
        self.annotations(template.and_then(|template| template.metadata.as_ref()));
        self.pod(template.and_then(|template| template.spec.as_ref()));
    }

    /// What clusters still take for a member of the pod.
    pub(super) fn annotations(&mut self, metadata: Option<&ObjectMeta>) {
        let entries = metadata.iter().flat_map(|metadata| metadata.annotations.iter().flatten());
        for (name, value) in entries {
            if name.starts_with(APPARMOR) && value != "runtime/default" {
                self.add("apparmor", value.strip_prefix("localhost/").unwrap_or(value));
            }
            if name.starts_with(SECCOMP) && value != "runtime/default" {
                self.add("seccomp", value.strip_prefix("localhost/").unwrap_or(value));
            }
        }
    }

    pub(super) fn pod(&mut self, spec: Option<&PodSpec>) {
        let Some(spec) = spec else { return };
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            self.container(container);
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            self.add_all("image", &container.image);
            self.security(container.security_context.as_ref());
        }
        spec.volumes.iter().flatten().for_each(|volume| self.volume(volume));
        self.add_all("service-account", &spec.service_account_name);
        self.add_all("service-account", &spec.service_account);
        self.add_all("secret-object", spec.image_pull_secrets.iter().flatten().map(|secret| &secret.name));
        self.add_if("host-network", spec.host_network);
        self.add_if("host-pid", spec.host_pid);
        self.add_if("host-ipc", spec.host_ipc);
        self.add_all("node", &spec.node_name);
        self.add_all("priority-class", &spec.priority_class_name);
        self.add_all("runtime-class", &spec.runtime_class_name);
        self.pod_security(spec.security_context.as_ref());
    }

    fn container(&mut self, container: &Container) {
        self.add_all("image", &container.image);
        for variable in container.env.iter().flatten() {
            let source = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
            self.add_all("secret-object", source.map(|source| &source.name));
        }
        for source in container.env_from.iter().flatten() {
            self.add_all("secret-object", source.secret_ref.as_ref().map(|source| &source.name));
        }
        for port in container.ports.iter().flatten().filter_map(|port| port.host_port).filter(|port| *port != 0) {
            self.add("host-port", port.to_string());
        }
        self.security(container.security_context.as_ref());
    }

    fn security(&mut self, context: Option<&SecurityContext>) {
        let Some(context) = context else { return };
        self.add_if("privileged", context.privileged);
        self.add_all(
            "capability",
            context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten()),
        );
        self.seccomp(context.seccomp_profile.as_ref());
        if let Some(profile) = context.app_armor_profile.as_ref().filter(|profile| profile.type_ != "RuntimeDefault") {
            self.add("apparmor", profile.localhost_profile.as_ref().unwrap_or(&profile.type_));
        }
        if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
            self.add("unmasked-proc", "true");
        }
        if context.se_linux_options.is_some() {
            self.add("selinux", "true");
        }
        if context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true)) {
            self.add("privileged", "true");
        }
    }

    fn pod_security(&mut self, context: Option<&PodSecurityContext>) {
        let Some(context) = context else { return };
        self.seccomp(context.seccomp_profile.as_ref());
        if let Some(profile) = context.app_armor_profile.as_ref().filter(|profile| profile.type_ != "RuntimeDefault") {
            self.add("apparmor", profile.localhost_profile.as_ref().unwrap_or(&profile.type_));
        }
        if context.se_linux_options.is_some() {
            self.add("selinux", "true");
        }
        if context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true)) {
            self.add("privileged", "true");
        }
        self.add_all("sysctl", context.sysctls.iter().flatten().map(|setting| &setting.name));
    }

    fn seccomp(&mut self, profile: Option<&SeccompProfile>) {
        match profile {
            Some(profile) if profile.type_ == "Unconfined" => self.add("seccomp", "unconfined"),
            Some(profile) => self.add_all("seccomp", &profile.localhost_profile),
            None => {}
        }
    }

    fn volume(&mut self, volume: &Volume) {
        self.add_all("host-path", volume.host_path.as_ref().map(|source| plain(&source.path)).as_ref());
        self.add_all("volume-claim", volume.persistent_volume_claim.as_ref().map(|source| &source.claim_name));
        self.add_all("secret-object", volume.secret.as_ref().and_then(|source| source.secret_name.as_ref()));
        self.add_all("image", volume.image.as_ref().and_then(|source| source.reference.as_ref()));
        if let Some(nfs) = &volume.nfs {
            self.add("nfs", format!("{}:{}", nfs.server, nfs.path));
        }
        for source in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
            self.add_all("secret-object", source.secret.as_ref().map(|secret| &secret.name));
        }
        let claim = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref());
        self.claim(claim.map(|claim| &claim.spec));
        // Whatever brings in something from outside is named, also the kinds that nobody should use any more.
        if let Ok(Value::Object(members)) = serde_json::to_value(volume) {
            self.add_all("volume-source", members.keys().filter(|name| !HARMLESS.contains(&name.as_str())));
        }
    }

    pub(super) fn claim(&mut self, spec: Option<&PersistentVolumeClaimSpec>) {
        let Some(spec) = spec else { return };
        self.add_all("storage-class", &spec.storage_class_name);
        self.add_all("volume", &spec.volume_name);
        // What a new volume is filled with: another claim, or a snapshot and such.
        if let Some(source) = &spec.data_source {
            self.filled_with(&source.kind, &source.name, None);
        }
        if let Some(source) = &spec.data_source_ref {
            self.filled_with(&source.kind, &source.name, source.namespace.as_deref());
        }
    }

    fn filled_with(&mut self, kind: &str, name: &str, namespace: Option<&str>) {
        let name = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        if kind == "PersistentVolumeClaim" {
            self.add("volume-claim", name);
        } else {
            self.add("volume-source", format!("{kind}/{name}"));
        }
    }

    pub(super) fn service(&mut self, service: &Service) {
        let Some(spec) = &service.spec else { return };
        // One that is reached from within the cluster is what a service is.
        self.add_all("service-type", spec.type_.as_ref().filter(|word| *word != "ClusterIP"));
        self.add_all("external-address", spec.external_ips.iter().flatten());
        self.add_all("external-address", &spec.external_name);
    }
}

/// A path of a node with one slash between its parts.
fn plain(path: &str) -> String {
    Path::new(path).components().collect::<PathBuf>().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(spec: Value) -> Vec<(&'static str, String)> {
        let mut words = Words::default();
        words.pod(Some(&serde_json::from_value(spec).unwrap()));
        words.words
    }

    fn has(words: &[(&'static str, String)], name: &str, value: &str) -> bool {
        words.iter().any(|(of, is)| *of == name && is == value)
    }

    #[test]
    fn everything_that_widens_what_a_pod_reaches_has_a_word() {
        let found = words(json!({
            "hostNetwork": true, "hostPID": true, "hostIPC": true, "nodeName": "n1", "serviceAccountName": "sa",
            "priorityClassName": "high", "runtimeClassName": "rc", "imagePullSecrets": [{"name": "pull"}],
            "securityContext": {"sysctls": [{"name": "net.x", "value": "1"}], "seccompProfile": {"type": "Unconfined"}},
            "initContainers": [{"name": "i", "image": "init:1", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}],
            "containers": [{"name": "c", "image": "main:1", "ports": [{"containerPort": 1, "hostPort": 80}],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}],
                "envFrom": [{"secretRef": {"name": "s2"}}],
                "securityContext": {"privileged": true, "procMount": "Unmasked", "appArmorProfile": {"type": "Unconfined"}}}],
            "volumes": [
                {"name": "v1", "hostPath": {"path": "/etc"}}, {"name": "v2", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "v3", "secret": {"secretName": "s3"}}, {"name": "v4", "nfs": {"server": "h", "path": "/p"}},
                {"name": "v5", "projected": {"sources": [{"secret": {"name": "s4"}}]}},
                {"name": "v6", "csi": {"driver": "d.example"}}, {"name": "v7", "image": {"reference": "vol:1"}},
                {"name": "v8", "emptyDir": {"medium": "Memory"}}],
        }));
        for (name, value) in [
            ("host-network", "true"),
            ("host-pid", "true"),
            ("host-ipc", "true"),
            ("node", "n1"),
            ("service-account", "sa"),
            ("priority-class", "high"),
            ("runtime-class", "rc"),
            ("secret-object", "pull"),
            ("sysctl", "net.x"),
            ("seccomp", "unconfined"),
            ("image", "init:1"),
            ("image", "main:1"),
            ("image", "vol:1"),
            ("capability", "SYS_ADMIN"),
            ("host-port", "80"),
            ("secret-object", "s1"),
            ("secret-object", "s2"),
            ("secret-object", "s3"),
            ("secret-object", "s4"),
            ("privileged", "true"),
            ("unmasked-proc", "true"),
            ("apparmor", "Unconfined"),
            ("host-path", "/etc"),
            ("volume-claim", "data"),
            ("nfs", "h:/p"),
            ("volume-source", "csi"),
            ("volume-source", "hostPath"),
            ("volume-source", "nfs"),
        ] {
            assert!(has(&found, name, value), "{name} `{value}` is not among {found:?}");
        }
        assert!(!has(&found, "volume-source", "emptyDir"));
    }

    #[test]
    fn what_a_claim_is_filled_with_has_a_word() {
        let source = |kind: &str, more: Value| {
            let mut source = json!({"apiGroup": "", "kind": kind, "name": "theirs"});
            source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            source
        };
        let spec = |name: &str, source: Value| {
            let spec = json!({name: source});
            words(
                json!({"containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]}),
            )
        };
        let claim = "PersistentVolumeClaim";
        assert!(has(&spec("dataSource", source(claim, json!({}))), "volume-claim", "theirs"));
        assert!(has(&spec("dataSourceRef", source(claim, json!({}))), "volume-claim", "theirs"));
        let elsewhere = spec("dataSourceRef", source(claim, json!({"namespace": "other"})));
        assert!(has(&elsewhere, "volume-claim", "other/theirs"));
        let snapshot = spec("dataSource", source("VolumeSnapshot", json!({})));
        assert!(has(&snapshot, "volume-source", "VolumeSnapshot/theirs"));
    }

    #[test]
    fn a_path_of_a_node_has_one_spelling() {
        for path in ["/etc", "//etc", "/./etc", "/etc/", "/etc/."] {
            let found = words(json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": path}}]}));
            assert!(has(&found, "host-path", "/etc"), "{path}: {found:?}");
        }
    }

    #[test]
    fn a_plain_pod_says_its_image_and_nothing_else() {
        let plain =
            words(json!({"containers": [{"name": "c", "image": "main:1", "securityContext": {"privileged": false,
            "seccompProfile": {"type": "RuntimeDefault"}}}], "hostNetwork": false}));
        assert_eq!(plain, [("image", "main:1".to_owned())]);
    }

    #[test]
    fn a_job_says_how_many_pods_it_may_have() {
        for (spec, pods) in [
            (json!({}), "1"),
            (json!({"parallelism": 3, "completions": 3}), "3"),
            (json!({"completions": 7}), "7"),
            (json!({"parallelism": 5}), "5"),
            (json!({"parallelism": 0}), "1"),
        ] {
            let mut words = Words::default();
            let mut given = spec.clone();
            given["template"] = json!({"spec": {"containers": []}});
            words.job(Some(&serde_json::from_value(given).unwrap()));
            assert_eq!(words.words, [("node-count", pods.to_owned())], "{spec}");
        }
    }

    #[test]
    fn a_service_that_is_reached_from_outside_says_so() {
        let words = |spec: Value| {
            let mut words = Words::default();
            words.service(
                &serde_json::from_value(json!({"apiVersion": "v1", "kind": "Service", "spec": spec})).unwrap(),
            );
            words.words
        };
        assert!(words(json!({"clusterIP": "None"})).is_empty());
        assert!(has(&words(json!({"type": "LoadBalancer"})), "service-type", "LoadBalancer"));
        assert!(has(&words(json!({"externalIPs": ["1.2.3.4"]})), "external-address", "1.2.3.4"));
    }
}
