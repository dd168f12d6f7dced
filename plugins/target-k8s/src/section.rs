//! The section `k8s` of the configuration: what it may hold and what each member means. What cannot be is refused before
//! anything is made; what has no effect here is said.

use std::collections::BTreeMap;

use maddock_sdk::serde_json::{Map, Value};
use maddock_sdk::types::Error;
use maddock_sdk::{Result, invalid};

use crate::quantity::Quantity;

/// Members that upstream reads and this target does not need, each with why.
const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("output_dir", "`--dry-run --plan-output DIR` writes the objects, and logs and results are in the run's directory"),
    ("recreate_shared_data_pvc", "claims of others are never deleted"),
    ("data_storage_size", "no claim for data is made: name one by `k8s.data_pvc`"),
    ("data_storage_class", "no claim for data is made: name one by `k8s.data_pvc`"),
    ("nodes", "the number of pods is `distributed.nnodes`"),
];

/// Members that name a storage class for results.
const CLASSES: [&str; 5] = [
    "multi_node_results_storage_class",
    "single_node_results_storage_class",
    "nfs_storage_class",
    "local_path_storage_class",
    "storage_class",
];
/// The size of a claim for results, by contract.
const RESULTS_SIZE: &str = "10Gi";

/// When an image is fetched.
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// Where what is secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Secret objects are made from what this machine has.
    #[default]
    FromLocalCredentials,
    /// They are in the cluster already.
    Existing,
    /// There is none.
    Omit,
}

/// One toleration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// The members that are there, by name.
    pub members: Vec<(String, String)>,
    /// See `tolerationSeconds`.
    pub seconds: Option<u64>,
}

/// What the section says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// A file of connections, as it is written.
    pub kubeconfig: String,
    /// One of its contexts.
    pub context: String,
    /// Where the objects are made.
    pub namespace: String,
    /// What a device is called on the cluster's nodes.
    pub gpu_resource: String,
    /// When images are fetched; empty where it does not say.
    pub pull_policy: String,
    /// How many pods may fail before the job has.
    pub backoff_limit: Option<u64>,
    /// Seconds until the cluster deletes an ended Job by itself.
    pub ttl: Option<u64>,
    /// Seconds until the cluster ends the Job, instead of those that follow from the time limit.
    pub deadline: Option<u64>,
    /// Whether profilers get what they need.
    pub profiling: Option<bool>,
    /// Memory that is asked for.
    pub memory: Option<Quantity>,
    /// Memory that may be used.
    pub memory_limit: Option<Quantity>,
    /// Processors that are asked for.
    pub cpu: Option<Quantity>,
    /// Processors that may be used.
    pub cpu_limit: Option<Quantity>,
    /// Size of `/dev/shm`.
    pub shm: Option<Quantity>,
    /// Labels that a node has to have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// Whether pods share the node's IPC.
    pub host_ipc: bool,
    /// The account of the pods.
    pub service_account: String,
    /// Where what is secret comes from.
    pub strategy: Strategy,
    /// Logins for images that are in the cluster already.
    pub pull_secrets: Vec<String>,
    /// A secret object of the cluster for the job's variables.
    pub runtime_secret: String,
    /// A claim with data, at `/data`.
    pub data_claim: String,
    /// A claim for results, at `/results`.
    pub results_claim: String,
    /// Size of a claim for results that is to be made.
    pub results_size: Option<Quantity>,
    /// Storage classes for that, by the members that name them.
    classes: BTreeMap<&'static str, String>,
    /// Seconds that a pod's results wait for being fetched.
    pub results_wait: Option<u64>,
    /// Seconds that an image or a container's configuration may be wrong.
    pub start_timeout: Option<u64>,
    /// Seconds that a pod may wait for a node.
    pub queue_timeout: Option<u64>,
    /// The cluster's name in DNS.
    pub cluster_domain: String,
    /// The user of restricted pods.
    pub run_as_user: Option<u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A value that cannot be, with its key.
pub fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    invalid(format!("`k8s.{key}` is {value}, and {expected} is expected")).detail("key", format!("k8s.{key}"))
}

/// A section while it is read.
struct Reader<'a> {
    members: &'a Map<String, Value>,
    prefix: &'a str,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        wrong(&format!("{}{key}", self.prefix), value, expected)
    }

    fn text(&self, key: &str) -> Result<String> {
        match self.value(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.trim().to_owned()),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// The name of an object of the cluster.
    fn name(&self, key: &str) -> Result<String> {
        let text = self.text(key)?;
        if text.is_empty() || is_name(&text) {
            return Ok(text);
        }
        Err(self.wrong(key, &Value::String(text), "a name of lower-case letters, digits, `-` and `.`"))
    }

    fn count(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        // The cluster keeps these in 32 bits.
        match number.filter(|number| *number <= i32::MAX.unsigned_abs().into()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, value, "a whole number, 0 or more")),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    fn quantity(&self, key: &str) -> Result<Option<Quantity>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = match value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => String::new(),
        };
        match Quantity::read(&text) {
            Some(quantity) => Ok(Some(quantity)),
            None => Err(self.wrong(key, value, "an amount such as `16Gi`, `8` or `500m`")),
        }
    }

    fn names(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let expected = "a list of names";
        let list = value.as_array().ok_or_else(|| self.wrong(key, value, expected))?;
        list.iter()
            .map(|name| match name.as_str().map(str::trim) {
                Some(name) if is_name(name) => Ok(name.to_owned()),
                _ => Err(self.wrong(key, value, expected)),
            })
            .collect()
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }
}

/// Whether a cluster takes it as an object's name.
fn is_name(text: &str) -> bool {
    let edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.len() <= 253
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|letter| edge(letter) || matches!(letter, '-' | '.'))
}

/// A scalar as text, as labels and environments have them.
#[must_use]
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Section {
    /// Reads the section of a configuration.
    ///
    /// # Errors
    /// A member cannot be.
    pub fn read(config: &Value) -> Result<Self> {
        let empty = Map::new();
        let found =
            ["k8s", "kubernetes"].into_iter().filter_map(|name| config.get(name)).find(|value| !value.is_null());
        let members = match found {
            None => &empty,
            Some(Value::Object(section)) => section,
            Some(other) => return Err(invalid(format!("`k8s` is {other}, and an object is expected"))),
        };
        let reader = Reader { members, prefix: "" };
        let secrets = Reader { members: reader.object("secrets")?.unwrap_or(&empty), prefix: "secrets." };
        let strategy = match secrets.text("strategy")?.as_str() {
            "" | "from_local_credentials" => Strategy::FromLocalCredentials,
            "existing" => Strategy::Existing,
            "omit" => Strategy::Omit,
            other => {
                let expected = "`from_local_credentials`, `existing` or `omit`";
                return Err(secrets.wrong("strategy", &Value::String(other.to_owned()), expected));
            }
        };
        let pull_policy = reader.text("image_pull_policy")?;
        if !pull_policy.is_empty() && !PULL_POLICIES.contains(&pull_policy.as_str()) {
            let expected = "`Always`, `IfNotPresent` or `Never`";
            return Err(reader.wrong("image_pull_policy", &Value::String(pull_policy), expected));
        }
        let mut warnings: Vec<String> = WITHOUT_EFFECT
            .iter()
            .filter(|(key, _)| reader.value(key).is_some_and(|value| *value != Value::Bool(false)))
            .map(|(key, why)| format!("`k8s.{key}` has no effect: {why}"))
            .collect();
        let runtime_secret = secrets.name("runtime_secret_name")?;
        if strategy == Strategy::Existing && runtime_secret.is_empty() {
            warnings.push("`k8s.secrets.runtime_secret_name` is not set: the job gets no secret variables".to_owned());
        }
        let node_selector = node_selector(&reader)?;
        Ok(Self {
            kubeconfig: reader.text("kubeconfig")?,
            context: reader.text("context")?,
            namespace: reader.name("namespace")?,
            gpu_resource: gpu_resource(&reader, config)?,
            pull_policy,
            backoff_limit: reader.count("backoff_limit")?,
            ttl: reader.count("ttl_seconds_after_finished")?,
            deadline: reader.count("active_deadline_seconds")?.filter(|seconds| *seconds > 0),
            profiling: reader.flag("allow_privileged_profiling")?,
            memory: reader.quantity("memory")?,
            memory_limit: reader.quantity("memory_limit")?,
            cpu: reader.quantity("cpu")?,
            cpu_limit: reader.quantity("cpu_limit")?,
            shm: reader.quantity("shm_size")?,
            node_selector,
            tolerations: tolerations(&reader)?,
            host_ipc: reader.flag("host_ipc")?.unwrap_or(false),
            service_account: reader.name("service_account")?,
            strategy,
            pull_secrets: secrets.names("image_pull_secret_names")?,
            runtime_secret,
            data_claim: reader.name("data_pvc")?,
            results_claim: reader.name("results_pvc")?,
            results_size: reader.quantity("results_storage_size")?,
            classes: CLASSES.iter().map(|key| Ok((*key, reader.name(key)?))).collect::<Result<_>>()?,
            results_wait: reader.count("results_wait")?,
            start_timeout: reader.count("start_timeout")?,
            queue_timeout: reader.count("queue_timeout")?,
            cluster_domain: reader.name("cluster_domain")?,
            run_as_user: reader.count("run_as_user")?,
            warnings,
        })
    }

    /// The storage class and the size of the claim for results that is to be made; none where none is asked for, or one is
    /// named. An empty class is the cluster's default.
    #[must_use]
    pub fn results_storage(&self, nodes: u32) -> Option<(&str, &str)> {
        let keys = if nodes > 1 {
            ["multi_node_results_storage_class", "nfs_storage_class", "storage_class"]
        } else {
            ["single_node_results_storage_class", "local_path_storage_class", "storage_class"]
        };
        let class = keys.iter().filter_map(|key| self.classes.get(key)).find(|class| !class.is_empty());
        let asked = class.is_some() || self.results_size.is_some();
        let size = self.results_size.as_ref().map_or(RESULTS_SIZE, Quantity::text);
        (asked && self.results_claim.is_empty()).then(|| (class.map_or("", String::as_str), size))
    }

    /// Processors and memory: limits that are not set, or are below what is asked for, are raised to that.
    pub fn settle_resources(&mut self) {
        let raised = [("memory", &self.memory, &mut self.memory_limit), ("cpu", &self.cpu, &mut self.cpu_limit)];
        for (name, asked, limit) in raised {
            let Some(asked) = asked else { continue };
            if let Some(low) = limit.as_ref().filter(|limit| limit.is_below(asked)) {
                self.warnings.push(format!(
                    "`k8s.{name}_limit` of {} is below `k8s.{name}` of {} and is raised to it",
                    low.text(),
                    asked.text()
                ));
                *limit = None;
            }
            limit.get_or_insert_with(|| asked.clone());
        }
    }
}

/// What a device is called: as the section says, else by the vendor.
fn gpu_resource(reader: &Reader<'_>, config: &Value) -> Result<String> {
    let named = reader.text("gpu_resource_name")?;
    if !named.is_empty() {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._/".contains(letter);
        return if named.chars().all(fits) && named.contains('/') {
            Ok(named)
        } else {
            Err(reader.wrong("gpu_resource_name", &Value::String(named), "a name such as `amd.com/gpu`"))
        };
    }
    // The section is nearer to the cluster than the context around it.
    let own = reader.text("gpu_vendor")?;
    let around = config.get("gpu_vendor").and_then(Value::as_str).unwrap_or_default();
    let vendor = if own.is_empty() { around } else { own.as_str() };
    match vendor.to_ascii_uppercase().as_str() {
        "NVIDIA" => Ok("nvidia.com/gpu".to_owned()),
        "AMD" | "NONE" | "" => Ok("amd.com/gpu".to_owned()),
        _ if own.is_empty() => Ok("amd.com/gpu".to_owned()),
        _ => Err(reader.wrong("gpu_vendor", &Value::String(own), "`AMD`, `NVIDIA` or `NONE`")),
    }
}

fn node_selector(reader: &Reader<'_>) -> Result<BTreeMap<String, String>> {
    let mut selector = BTreeMap::new();
    for (name, value) in
        reader.object("node_selector")?.into_iter().flatten().filter(|(name, _)| !name.starts_with('_'))
    {
        let value = scalar(value).ok_or_else(|| reader.wrong("node_selector", value, "texts by label"))?;
        selector.insert(name.clone(), value);
    }
    Ok(selector)
}

fn tolerations(reader: &Reader<'_>) -> Result<Vec<Toleration>> {
    const MEMBERS: [&str; 4] = ["key", "operator", "value", "effect"];
    let Some(value) = reader.value("tolerations") else { return Ok(Vec::new()) };
    let refuse = || reader.wrong("tolerations", value, "a list of objects with `key`, `operator`, `value`, `effect`");
    let mut tolerations = Vec::new();
    for toleration in value.as_array().ok_or_else(refuse)? {
        let object = toleration.as_object().ok_or_else(refuse)?;
        let mut read = Toleration { members: Vec::new(), seconds: None };
        for (name, value) in object.iter().filter(|(name, value)| !name.starts_with('_') && !value.is_null()) {
            if name == "tolerationSeconds" {
                read.seconds = Some(value.as_u64().ok_or_else(refuse)?);
            } else if MEMBERS.contains(&name.as_str()) {
                read.members.push((name.clone(), scalar(value).ok_or_else(refuse)?));
            } else {
                return Err(refuse());
            }
        }
        tolerations.push(read);
    }
    Ok(tolerations)
}

#[cfg(test)]
mod tests {
    use maddock_sdk::serde_json::{from_str, json};

    use super::*;

    fn read(section: Value) -> Result<Section> {
        Section::read(&json!({ "k8s": section }))
    }

    #[test]
    fn an_empty_section_is_one() {
        for config in ["{}", r#"{"k8s": null}"#, r#"{"k8s": {}}"#] {
            let section = Section::read(&from_str(config).unwrap()).unwrap();
            assert_eq!(section.gpu_resource, "amd.com/gpu");
            assert_eq!(section.warnings, [""; 0]);
        }
    }

    #[test]
    fn the_vendor_names_the_resource_unless_the_section_does() {
        let named = |config: Value| Section::read(&config).unwrap().gpu_resource;
        assert_eq!(named(json!({"gpu_vendor": "NVIDIA"})), "nvidia.com/gpu");
        assert_eq!(named(json!({"gpu_vendor": "NVIDIA", "k8s": {"gpu_resource_name": "x.io/y"}})), "x.io/y");
        assert_eq!(named(json!({"gpu_vendor": "AMD", "k8s": {"gpu_vendor": "nvidia"}})), "nvidia.com/gpu");
        assert_eq!(named(json!({"gpu_vendor": "NVIDIA", "k8s": {"gpu_vendor": "AMD"}})), "amd.com/gpu");
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_key() {
        for (member, key) in [
            (json!({"memory": "16 GB"}), "k8s.memory"),
            (json!({"cpu": true}), "k8s.cpu"),
            (json!({"backoff_limit": -1}), "k8s.backoff_limit"),
            (json!({"backoff_limit": 1.5}), "k8s.backoff_limit"),
            (json!({"ttl_seconds_after_finished": "soon"}), "k8s.ttl_seconds_after_finished"),
            (json!({"namespace": "Not A Name"}), "k8s.namespace"),
            (json!({"namespace": "../default"}), "k8s.namespace"),
            (json!({"service_account": 3}), "k8s.service_account"),
            (json!({"image_pull_policy": "always"}), "k8s.image_pull_policy"),
            (json!({"host_ipc": "yes"}), "k8s.host_ipc"),
            (json!({"node_selector": ["a"]}), "k8s.node_selector"),
            (json!({"tolerations": [{"wrong": "x"}]}), "k8s.tolerations"),
            (json!({"gpu_resource_name": "gpu"}), "k8s.gpu_resource_name"),
            (json!({"gpu_vendor": "Acme"}), "k8s.gpu_vendor"),
            (json!({"secrets": {"strategy": "x"}}), "k8s.secrets.strategy"),
            (json!({"secrets": {"image_pull_secret_names": ["A B"]}}), "k8s.secrets.image_pull_secret_names"),
        ] {
            let error = read(member.clone()).unwrap_err();
            assert!(error.details.iter().any(|detail| detail.value == key), "{member}: {error:?}");
        }
    }

    #[test]
    fn limits_are_never_below_what_is_asked_for() {
        let mut section = read(json!({"memory": "256Gi", "memory_limit": "128Gi", "cpu": 8})).unwrap();
        section.settle_resources();
        assert_eq!(section.memory_limit.unwrap().text(), "256Gi");
        assert_eq!(section.cpu_limit.unwrap().text(), "8");
        assert!(section.warnings.iter().any(|warning| warning.contains("memory_limit")), "{:?}", section.warnings);
    }

    #[test]
    fn members_without_effect_are_told() {
        let section = read(json!({"output_dir": "./x", "recreate_shared_data_pvc": true})).unwrap();
        assert_eq!(section.warnings.len(), 2, "{:?}", section.warnings);
    }

    #[test]
    fn a_claim_for_results_is_made_only_where_one_is_asked_for() {
        let storage = |section: Value, nodes: u32| {
            read(section).unwrap().results_storage(nodes).map(|(class, size)| (class.to_owned(), size.to_owned()))
        };
        let owned = |class: &str, size: &str| Some((class.to_owned(), size.to_owned()));
        assert_eq!(storage(json!({}), 1), None);
        assert_eq!(storage(json!({"results_storage_size": "5Gi"}), 1), owned("", "5Gi"));
        assert_eq!(storage(json!({"storage_class": "a", "nfs_storage_class": "b"}), 2), owned("b", "10Gi"));
        assert_eq!(storage(json!({"storage_class": "a", "nfs_storage_class": "b"}), 1), owned("a", "10Gi"));
        assert_eq!(storage(json!({"storage_class": "a", "results_pvc": "mine"}), 1), None);
    }

    #[test]
    fn comments_are_no_labels() {
        let section = read(json!({"node_selector": {"_comment": "x", "a": "b", "n": 1}})).unwrap();
        assert_eq!(
            section.node_selector.into_iter().map(|(name, value)| name + "=" + &value).collect::<Vec<_>>(),
            ["a=b", "n=1"]
        );
    }
}
