//! The objects of a job, as data. What they hold is decided elsewhere; here it gets the shape that the cluster wants.

use maddock_sdk::references;
use maddock_sdk::serde_json::{Map, Value, json};
use maddock_sdk::types::{EnvValue, EnvVar};

use crate::bundle::Bundle;
use crate::names;
use crate::quantity::Quantity;
use crate::script::{GIVEN, RESULTS, WORKSPACE};
use crate::section::{Section, Strategy};

/// The container that runs the model; its output is the job's.
pub const MODEL: &str = "model";
/// The container that keeps results until they are fetched.
pub const KEEPER: &str = "results";
/// Seconds between a pod being asked to end and being ended.
const GRACE: u32 = 60;
/// The port of the Service: it has none to forward, and has to have one.
const NO_PORT: u16 = 29500;

/// How much pods may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Upstream's wide options.
    Compatible,
    /// What ordinary images live with: they run as root, and have no use for more than that.
    Plain,
    /// What the Pod Security level *restricted* takes.
    Restricted,
}

/// What the pods of a job are.
#[derive(Debug)]
pub struct Shape<'a> {
    /// The base name.
    pub name: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// The section of the configuration.
    pub section: &'a Section,
    /// The image's name.
    pub image: &'a str,
    /// Pods.
    pub nodes: u32,
    /// Devices of each.
    pub gpus: u32,
    /// Where nodes meet.
    pub port: u16,
    /// Variables.
    pub env: &'a [EnvVar],
    /// Names of secret objects with logins.
    pub pull_secrets: &'a [String],
    /// How much they may.
    pub profile: Profile,
    /// Whether profilers look into other processes.
    pub profiling: bool,
    /// Seconds until the cluster ends it.
    pub deadline: Option<u64>,
    /// The files.
    pub bundle: &'a Bundle,
}

impl Shape<'_> {
    fn labels(&self) -> Value {
        json!({"app": "madengine", "model": names::label(self.model), "madengine-job": "true"})
    }

    /// The metadata of an object of that name.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Value {
        let mut metadata = json!({"name": name, "labels": self.labels()});
        if !self.section.namespace.is_empty() {
            put(&mut metadata, "namespace", json!(self.section.namespace));
        }
        metadata
    }

    /// The headless Service by which pods find each other, also before they are ready.
    #[must_use]
    pub fn service(&self) -> Value {
        let port = if self.port == 0 { NO_PORT } else { self.port };
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(self.name),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": true,
                "selector": {"job-name": self.name},
                "ports": [{"name": "main", "port": port, "targetPort": port, "protocol": "TCP"}],
            },
        })
    }

    /// The Job.
    #[must_use]
    pub fn job(&self) -> Value {
        let section = self.section;
        // A pod that is lost may be made again; one of several cannot join those that have begun.
        let mut spec = json!({
            "completions": self.nodes,
            "parallelism": self.nodes,
            "backoffLimit": section.backoff_limit.unwrap_or(0),
        });
        if self.nodes > 1 {
            put(&mut spec, "completionMode", json!("Indexed"));
        }
        if let Some(seconds) = self.deadline {
            put(&mut spec, "activeDeadlineSeconds", json!(seconds));
        }
        if let Some(seconds) = section.ttl {
            put(&mut spec, "ttlSecondsAfterFinished", json!(seconds));
        }
        let annotations = json!({"kubectl.kubernetes.io/default-container": MODEL});
        put(
            &mut spec,
            "template",
            json!({"metadata": {"labels": self.labels(), "annotations": annotations}, "spec": self.pod()}),
        );
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": self.metadata(self.name), "spec": spec})
    }

    /// The claim that holds results: one that is named, or is made.
    #[must_use]
    pub fn results_claim(&self) -> Option<String> {
        let named = Some(self.section.results_claim.clone()).filter(|name| !name.is_empty());
        named.or_else(|| self.section.results_storage(self.nodes).map(|_| format!("{}-results", self.name)))
    }

    /// The claim for results, where one is to be made.
    #[must_use]
    pub fn claim(&self) -> Option<Value> {
        let (class, size) = self.section.results_storage(self.nodes)?;
        let mode = if self.nodes > 1 { "ReadWriteMany" } else { "ReadWriteOnce" };
        let mut metadata = self.metadata(&self.results_claim()?);
        if let Some(labels) = metadata.get_mut("labels") {
            put(labels, "madengine-pvc", json!("true"));
        }
        let mut spec = json!({"accessModes": [mode], "resources": {"requests": {"storage": size}}});
        if !class.is_empty() {
            put(&mut spec, "storageClassName", json!(class));
        }
        Some(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}))
    }

    /// A Job that does nothing but hold the claim, so that results can be fetched which nobody fetched from their pods.
    #[must_use]
    pub fn collector(&self) -> Option<Value> {
        let claim = self.results_claim()?;
        let mut container = self.container(KEEPER, "", &small_resources(), vec![mount("results", RESULTS, false)]);
        put(&mut container, "command", json!(["sleep", COLLECTING.to_string()]));
        put(&mut container, "workingDir", json!("/"));
        let mut pod = self.surroundings();
        put(&mut pod, "terminationGracePeriodSeconds", json!(1));
        put(&mut pod, "volumes", json!([{"name": "results", "persistentVolumeClaim": {"claimName": claim}}]));
        put(&mut pod, "containers", json!([container]));
        let template = json!({"metadata": {"labels": self.labels()}, "spec": pod});
        let spec = json!({"backoffLimit": 0, "activeDeadlineSeconds": COLLECTING, "template": template});
        let metadata = self.metadata(&collector_name(self.name));
        Some(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}))
    }

    /// What every pod of a job has in common.
    fn surroundings(&self) -> Value {
        let section = self.section;
        let mut pod = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            "enableServiceLinks": false,
            // A model has no business with the cluster, unless it is given an account for that.
            "automountServiceAccountToken": !section.service_account.is_empty(),
        });
        if !section.service_account.is_empty() {
            put(&mut pod, "serviceAccountName", json!(section.service_account));
        }
        if !section.node_selector.is_empty() {
            put(&mut pod, "nodeSelector", json!(section.node_selector));
        }
        if !section.tolerations.is_empty() {
            put(&mut pod, "tolerations", Value::Array(self.tolerations()));
        }
        if !self.pull_secrets.is_empty() {
            let references: Vec<Value> = self.pull_secrets.iter().map(|name| json!({"name": name})).collect();
            put(&mut pod, "imagePullSecrets", Value::Array(references));
        }
        if let Some(context) = self.security() {
            put(&mut pod, "securityContext", context);
        }
        pod
    }

    /// What holds for all containers of a pod.
    fn security(&self) -> Option<Value> {
        let mut context = json!({});
        let user = match self.profile {
            Profile::Restricted => Some(self.section.run_as_user.unwrap_or(DEFAULT_USER)),
            Profile::Compatible | Profile::Plain => self.section.run_as_user,
        };
        if self.profile == Profile::Restricted {
            put(&mut context, "runAsNonRoot", json!(true));
        }
        for member in ["runAsUser", "runAsGroup", "fsGroup"] {
            if let Some(user) = user {
                put(&mut context, member, json!(user));
            }
        }
        if self.profile != Profile::Compatible {
            put(&mut context, "seccompProfile", json!({"type": "RuntimeDefault"}));
        }
        context.as_object().is_some_and(|members| !members.is_empty()).then_some(context)
    }

    fn pod(&self) -> Value {
        let section = self.section;
        let mut pod = self.surroundings();
        if self.nodes > 1 {
            put(&mut pod, "subdomain", json!(self.name));
        }
        if section.host_ipc && self.profile != Profile::Restricted {
            put(&mut pod, "hostIPC", json!(true));
        }
        put(&mut pod, "volumes", Value::Array(self.volumes()));
        let given = mount("given", GIVEN, true);
        let workspace = mount("workspace", WORKSPACE, false);
        let results = mount("results", RESULTS, false);
        let small = small_resources();
        let prepare = self.container("workspace", "prepare.sh", &small, vec![given.clone(), workspace.clone()]);
        let keeper =
            self.container(KEEPER, "keeper.sh", &small, vec![given.clone(), workspace.clone(), results.clone()]);
        let mut mounts = vec![given, workspace, results, mount("shm", "/dev/shm", false)];
        if !section.data_claim.is_empty() {
            mounts.push(mount("data", "/data", false));
        }
        if self.mounts_runtime_secret() {
            let mut credential = mount("credential", &format!("{WORKSPACE}/credential.json"), true);
            put(&mut credential, "subPath", json!("credential.json"));
            mounts.push(credential);
        }
        let mut model = self.container(MODEL, "node.sh", &self.resources(), mounts);
        put(&mut model, "env", Value::Array(self.variables()));
        if self.profiling && self.profile != Profile::Restricted {
            let context = json!({"capabilities": {"add": ["SYS_PTRACE"]}, "seccompProfile": {"type": "Unconfined"}});
            put(&mut model, "securityContext", context);
        }
        put(&mut pod, "initContainers", json!([prepare]));
        put(&mut pod, "containers", json!([model, keeper]));
        pod
    }

    /// A container of the job's image that runs one of our scripts.
    fn container(&self, name: &str, script: &str, resources: &Value, mounts: Vec<Value>) -> Value {
        let policy = if self.section.pull_policy.is_empty() { "Always" } else { &self.section.pull_policy };
        let mut container = json!({
            "name": name,
            "image": self.image,
            "imagePullPolicy": policy,
            "command": ["sh", format!("{GIVEN}/{script}")],
            "workingDir": WORKSPACE,
            "resources": resources,
            "volumeMounts": mounts,
        });
        let context = match self.profile {
            Profile::Compatible => return container,
            // Root without its capabilities is no root: it could not read what others own, nor install anything.
            Profile::Plain => json!({"allowPrivilegeEscalation": false}),
            Profile::Restricted => json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        };
        put(&mut container, "securityContext", context);
        container
    }

    fn resources(&self) -> Value {
        let section = self.section;
        let (mut requests, mut limits) = (Map::new(), Map::new());
        let rows = [("memory", &section.memory, &section.memory_limit), ("cpu", &section.cpu, &section.cpu_limit)];
        for (name, asked, limit) in rows {
            for (map, quantity) in [(&mut requests, asked), (&mut limits, limit)] {
                if let Some(quantity) = quantity {
                    map.insert(name.to_owned(), json!(quantity.text()));
                }
            }
        }
        if self.gpus > 0 {
            for map in [&mut requests, &mut limits] {
                map.insert(section.gpu_resource.clone(), json!(self.gpus.to_string()));
            }
        }
        json!({"requests": requests, "limits": limits})
    }

    fn volumes(&self) -> Vec<Value> {
        let section = self.section;
        let results = match self.results_claim() {
            None => json!({"name": "results", "emptyDir": {}}),
            Some(claim) => json!({"name": "results", "persistentVolumeClaim": {"claimName": claim}}),
        };
        let mut volumes = vec![
            json!({"name": "given", "projected": self.bundle.volume(self.name)}),
            json!({"name": "workspace", "emptyDir": {}}),
            results,
            json!({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": self.shm()}}),
        ];
        if !section.data_claim.is_empty() {
            volumes.push(json!({"name": "data", "persistentVolumeClaim": {"claimName": section.data_claim}}));
        }
        if self.mounts_runtime_secret() {
            let item = json!([{"key": "credential.json", "path": "credential.json"}]);
            let secret = json!({"secretName": section.runtime_secret, "items": item, "optional": true});
            volumes.push(json!({"name": "credential", "secret": secret}));
        }
        volumes
    }

    /// Shared memory counts as memory: it is never more than the pod may have.
    fn shm(&self) -> &str {
        let wanted = self.section.shm.as_ref();
        let default = Quantity::read(DEFAULT_SHM);
        match (&self.section.memory_limit, wanted.or(default.as_ref())) {
            (Some(limit), Some(wanted)) if limit.is_below(wanted) => limit.text(),
            _ => wanted.map_or(DEFAULT_SHM, Quantity::text),
        }
    }

    fn mounts_runtime_secret(&self) -> bool {
        self.section.strategy != Strategy::FromLocalCredentials && !self.section.runtime_secret.is_empty()
    }

    fn tolerations(&self) -> Vec<Value> {
        let of = |toleration: &crate::section::Toleration| {
            let members = toleration.members.iter().map(|(name, value)| (name.clone(), json!(value)));
            let seconds = toleration.seconds.map(|seconds| ("tolerationSeconds".to_owned(), json!(seconds)));
            Value::Object(members.chain(seconds).collect())
        };
        self.section.tolerations.iter().map(of).collect()
    }

    fn variables(&self) -> Vec<Value> {
        let of = |variable: &EnvVar| match &variable.value {
            EnvValue::Text(text) => Some(json!({"name": variable.name, "value": literal(text)})),
            EnvValue::Secret(_) => self.secret_variable(&variable.name),
        };
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let about = [
            field("MAD_K8S_POD_NAME", "metadata.name"),
            field("MAD_K8S_NAMESPACE", "metadata.namespace"),
            field(references::NODE_ADDRESS, "status.podIP"),
        ];
        about.into_iter().chain(self.env.iter().filter_map(of)).collect()
    }

    fn secret_variable(&self, name: &str) -> Option<Value> {
        let reference = match self.section.strategy {
            Strategy::FromLocalCredentials => json!({"name": runtime_secret(self.name), "key": name}),
            Strategy::Existing if !self.section.runtime_secret.is_empty() => {
                json!({"name": self.section.runtime_secret, "key": name, "optional": true})
            }
            Strategy::Existing | Strategy::Omit => return None,
        };
        Some(json!({"name": name, "valueFrom": {"secretKeyRef": reference}}))
    }
}

/// The user of restricted pods where nothing says which: not root, and of no meaning in usual images.
const DEFAULT_USER: u64 = 1000;
/// Shared memory of a pod, by contract.
const DEFAULT_SHM: &str = "16Gi";

/// Seconds that a claim is held for fetching what is on it.
const COLLECTING: u32 = 300;

/// The Job that holds a job's claim.
#[must_use]
pub fn collector_name(job: &str) -> String {
    format!("{job}-collect")
}

/// The secret object with a job's variables.
#[must_use]
pub fn runtime_secret(job: &str) -> String {
    format!("{job}-runtime")
}

/// The secret object with a job's login for its image.
#[must_use]
pub fn pull_secret(job: &str) -> String {
    format!("{job}-registry-pull")
}

/// What a container needs that copies a few files and waits.
fn small_resources() -> Value {
    json!({"requests": {"memory": "32Mi", "cpu": "10m"}, "limits": {"memory": "256Mi", "cpu": "1"}})
}

fn mount(name: &str, path: &str, read_only: bool) -> Value {
    let mut mount = json!({"name": name, "mountPath": path});
    if read_only {
        put(&mut mount, "readOnly", json!(true));
    }
    mount
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// A variable's value that the cluster takes as it is: it would expand `$(NAME)`, and a doubled `$` is one.
fn literal(text: &str) -> String {
    text.chars().filter(|letter| *letter != '\0').collect::<String>().replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::literal;

    /// As the kubelet reads a value; see `third_party/forked/golang/expansion` in its source.
    fn expanded(value: &str) -> String {
        let mut letters = value.chars().peekable();
        let mut read = String::new();
        while let Some(letter) = letters.next() {
            match (letter, letters.peek()) {
                ('$', Some('$')) => {
                    letters.next();
                    read.push('$');
                }
                ('$', Some('(')) => {
                    let rest: String = letters.clone().collect();
                    match rest.find(')') {
                        Some(end) => {
                            for _ in 0..=end {
                                letters.next();
                            }
                            read.push_str("EXPANDED");
                        }
                        None => read.push('$'),
                    }
                }
                _ => read.push(letter),
            }
        }
        read
    }

    #[test]
    fn the_cluster_expands_nothing_of_a_value() {
        for value in
            ["$(HOME)", "$", "$$", "$$(X)", "$$$(X)", "a$b", "$(", "x$", "$(A)$(B)$", "${HOME}", "ünï\n\"'$(x)"]
        {
            assert_eq!(expanded(&literal(value)), value);
        }
        assert_ne!(expanded("$(HOME)"), "$(HOME)", "the model of the cluster expands");
    }
}
