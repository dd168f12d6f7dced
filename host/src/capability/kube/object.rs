//! From a plugin's JSON to an object that the cluster is given, and the words in which the gate is asked for it.
//!
//! Objects are read into their types and written again: what did not come through is a member that nobody knows, and
//! clusters drop such members without a word.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::core::ApiResource;
use maddock_bindings::api::types::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::owner::{DOMAIN, Owner};
use super::{Kube, scope};
use crate::capability::gate::Call;
use crate::capability::{ApiError, error, error_with_hint};

/// A kind of object that this interface speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Job,
    Pod,
    Service,
    ConfigMap,
    Claim,
    /// Made from secrets of the host, and never read.
    Secret,
}

/// Every kind, in the order in which they are to go: what uses others first.
pub(super) const KINDS: [Kind; 6] = [Kind::Job, Kind::Pod, Kind::Service, Kind::ConfigMap, Kind::Secret, Kind::Claim];

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
            Self::Claim => "PersistentVolumeClaim",
            Self::Secret => "Secret",
        }
    }

    pub(super) fn of(word: &str) -> Result<Self, ApiError> {
        KINDS.into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
            let all: Vec<&str> = KINDS.iter().map(|kind| kind.word()).collect();
            error_with_hint(
                ErrorKind::Unsupported,
                format!("objects of kind `{}` are not among what this host makes", word.escape_debug()),
                format!("kinds: {}", all.join(", ")),
            )
        })
    }

    pub(super) fn resource(self) -> ApiResource {
        match self {
            Self::Job => ApiResource::erase::<Job>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
        }
    }
}

/// An object that is well formed, before the gate was asked.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) name: String,
    value: Value,
    scope: scope::Words,
}

fn invalid(message: impl Into<String>) -> ApiError {
    error(ErrorKind::InvalidInput, message)
}

impl Object {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or says more than it may; the error names the member.
    pub(super) fn read(text: &str, namespace: &str) -> Result<Self, ApiError> {
        let given: Value =
            serde_json::from_str(text).map_err(|cause| invalid(format!("an object is not JSON: {cause}")))?;
        let word = given.get("kind").and_then(Value::as_str).unwrap_or_default();
        let kind = Kind::of(word)?;
        let name = given.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        check_name("metadata.name", &name).map_err(|wrong| within(kind, &name, wrong))?;
        let mut scope = scope::Words::default();
        let value = match kind {
            Kind::Job => typed::<Job>(text, &given).map(|(job, value)| {
                scope.job(job.spec.as_ref());
                value
            }),
            Kind::Pod => typed::<Pod>(text, &given).map(|(pod, value)| {
                scope.annotations(Some(&pod.metadata));
                scope.pod(pod.spec.as_ref());
                value
            }),
            Kind::Service => typed::<Service>(text, &given).map(|(service, value)| {
                scope.service(&service);
                value
            }),
            Kind::ConfigMap => typed::<ConfigMap>(text, &given).map(|(_, value)| value),
            Kind::Claim => typed::<PersistentVolumeClaim>(text, &given).map(|(claim, value)| {
                scope.claim(claim.spec.as_ref());
                value
            }),
            Kind::Secret => Err(error_with_hint(
                ErrorKind::Unsupported,
                "secrets are not made from text",
                "`create-secret` makes them from secrets of the host",
            )),
        };
        let value = value.and_then(|value| check_metadata(&value, namespace).map(|()| value));
        Ok(Self { kind, value: value.map_err(|wrong| within(kind, &name, wrong))?, name, scope })
    }

    /// Says to the gate what it is and what it reaches.
    pub(super) fn describe(&self, call: Call<Kube>) -> Call<Kube> {
        self.scope.describe(call.on("kind", self.kind.word()).on("name", &self.name))
    }

    /// The object with the labels of its owner, on itself and on its pods.
    pub(super) fn owned(&self, owner: &Owner, namespace: &str) -> Value {
        let mut value = self.value.clone();
        if let Some(metadata) = member(&mut value, "metadata") {
            metadata.insert("namespace".to_owned(), namespace.into());
            label(metadata, owner);
        }
        if self.kind == Kind::Job {
            let template = value.get_mut("spec").and_then(|spec| spec.get_mut("template"));
            if let Some(metadata) = template.and_then(|template| member(template, "metadata")) {
                label(metadata, owner);
            }
        }
        value
    }
}

fn within(kind: Kind, name: &str, wrong: ApiError) -> ApiError {
    ApiError { message: format!("{} `{}`: {}", kind.word(), name.escape_debug(), wrong.message), ..wrong }
}

/// A member that is an object, made where it is not there.
fn member<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.as_object_mut()?.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn label(metadata: &mut Map<String, Value>, owner: &Owner) {
    let labels = metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()));
    for (name, value) in owner.labels() {
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(name.to_owned(), value.into());
        }
    }
}

/// Reads a type and writes it again.
fn typed<T: DeserializeOwned + Serialize>(text: &str, given: &Value) -> Result<(T, Value), ApiError> {
    let read: T = serde_json::from_str(text).map_err(|cause| invalid(cause.to_string()))?;
    let written = serde_json::to_value(&read).map_err(|cause| invalid(cause.to_string()))?;
    match lost(given, &written, "") {
        None => Ok((read, written)),
        Some(path) => {
            let mut unknown = error_with_hint(
                ErrorKind::InvalidInput,
                format!("nobody knows a member `{path}`"),
                "a cluster would drop it in silence; see how it is spelt, and where it belongs",
            );
            unknown.details.push(super::detail("key", path));
            Err(unknown)
        }
    }
}

/// The first member that did not come through.
fn lost(given: &Value, kept: &Value, path: &str) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            given.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match kept.get(name) {
                    None => Some(path),
                    Some(kept) => lost(value, kept, &path),
                }
            })
        }
        (Value::Array(given), Value::Array(kept)) => given.iter().enumerate().find_map(|(index, value)| {
            let path = format!("{path}[{index}]");
            match kept.get(index) {
                None => Some(path),
                Some(kept) => lost(value, kept, &path),
            }
        }),
        _ => None,
    }
}

/// What the metadata of an object may say.
fn check_metadata(value: &Value, namespace: &str) -> Result<(), ApiError> {
    let metadata = value.get("metadata");
    let text = |name: &str| metadata.and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    if let Some(other) = text("namespace").filter(|other| *other != namespace) {
        return Err(invalid(format!(
            "metadata.namespace `{}` is not the connection's, `{namespace}`",
            other.escape_debug()
        )));
    }
    let template = value.pointer("/spec/template/metadata");
    for (place, metadata) in [("metadata", metadata), ("spec.template.metadata", template)] {
        let Some(metadata) = metadata else { continue };
        if metadata.get("generateName").is_some() {
            return Err(invalid(format!("{place}.generateName: objects are named, so that they are found again")));
        }
        if metadata.get("ownerReferences").is_some() {
            return Err(invalid(format!(
                "{place}.ownerReferences: what is made here belongs to its run and to nothing else"
            )));
        }
        if metadata.get("finalizers").is_some() {
            return Err(invalid(format!("{place}.finalizers: what is made here must be deletable")));
        }
        for list in ["labels", "annotations"] {
            let entries = metadata.get(list).and_then(Value::as_object);
            if let Some(name) = entries.and_then(|entries| entries.keys().find(|name| name.starts_with(DOMAIN))) {
                return Err(error_with_hint(
                    ErrorKind::InvalidInput,
                    format!("{place}.{list}.`{name}` is not for plugins to set"),
                    format!("names that begin with `{DOMAIN}` say who owns an object; the host puts them on"),
                ));
            }
        }
    }
    Ok(())
}

/// A name such as every object has: it names one thing and is no pattern or path.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let sound = name.len() <= 253
        && name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '-' | '.'))
        && !name.contains("..");
    if sound {
        return Ok(());
    }
    Err(error_with_hint(
        ErrorKind::InvalidInput,
        format!("{what} `{}` is no name in a cluster", name.escape_debug()),
        "names are lower-case letters, digits, `-` and `.`, and begin and end with a letter or digit",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(change: impl FnOnce(&mut Value)) -> String {
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": {"spec": {
            "containers": [{"name": "main", "image": "i", "resources": {"limits": {"cpu": "1"}}}]}}}});
        change(&mut job);
        job.to_string()
    }

    fn refused(text: &str) -> ApiError {
        Object::read(text, "ns").map(|object| object.name).unwrap_err()
    }

    #[test]
    fn a_member_that_nobody_knows_is_refused_with_its_path() {
        let cases: [(&str, &str, Value); 4] = [
            ("/spec/template/spec/containers/0", "spec.template.spec.containers[0].imag", json!("x")),
            ("/spec", "spec.backofLimit", json!(1)),
            ("", "sepc", json!({})),
            ("/metadata", "metadata.lables", json!({"a": "b"})),
        ];
        for (place, path, value) in cases {
            let name = path.rsplit('.').next().unwrap();
            let error = refused(&job(|job| {
                job.pointer_mut(place).unwrap()[name] = value;
            }));
            assert!(error.message.contains(&format!("`{path}`")), "{}", error.message);
            assert!(matches!(error.kind, ErrorKind::InvalidInput));
        }
        // What says nothing is nothing that could be lost.
        assert!(Object::read(&job(|job| job["spec"]["nothing"] = Value::Null), "ns").is_ok());
    }

    #[test]
    fn nobody_but_the_host_says_whose_an_object_is() {
        let own = json!({"maddock.dev/run": "another"});
        for place in ["/metadata", "/spec/template"] {
            let error = refused(&job(|job| match place {
                "/metadata" => job["metadata"]["labels"] = own.clone(),
                _ => job["spec"]["template"]["metadata"] = json!({"labels": own}),
            }));
            assert!(error.message.contains("maddock.dev/run"), "{}", error.message);
        }
        assert!(refused(&job(|job| job["metadata"]["finalizers"] = json!(["x/y"]))).message.contains("finalizers"));
        assert!(refused(&job(|job| job["metadata"]["generateName"] = json!("a-"))).message.contains("generateName"));
        assert!(refused(&job(|job| job["metadata"]["namespace"] = json!("other"))).message.contains("`other`"));
        assert!(Object::read(&job(|job| job["metadata"]["namespace"] = json!("ns")), "ns").is_ok());
    }

    #[test]
    fn the_owner_stands_on_the_object_and_on_its_pods() {
        let text = job(|job| job["metadata"]["labels"] = json!({"mine": "1"}));
        let owner = Owner { run: "r".to_owned(), job: "j".to_owned() };
        let value = Object::read(&text, "ns").unwrap().owned(&owner, "ns");
        assert_eq!(value["metadata"]["labels"], json!({"mine": "1", "maddock.dev/run": "r", "maddock.dev/job": "j"}));
        assert_eq!(value["spec"]["template"]["metadata"]["labels"]["maddock.dev/run"], "r");
        assert_eq!(value["metadata"]["namespace"], "ns");
    }

    #[test]
    fn a_kind_that_is_not_spoken_of_is_unsupported_and_so_is_a_secret_in_clear() {
        for kind in ["Deployment", "ClusterRoleBinding", "Secret", "", "job"] {
            let text = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}}).to_string();
            assert!(matches!(refused(&text).kind, ErrorKind::Unsupported), "{kind}");
        }
        let other = job(|job| job["apiVersion"] = json!("batch/v1beta1"));
        assert!(matches!(refused(&other).kind, ErrorKind::InvalidInput));
    }

    #[test]
    fn a_name_names_one_thing() {
        for wrong in ["", "A", "a/b", "a..b", "-a", "a-", "*", "a b", "..", "a,b", "a?x=1"] {
            assert!(check_name("name", wrong).is_err(), "{wrong:?}");
        }
        for sound in ["a", "a-b.c", "0", &"x".repeat(253)] {
            assert!(check_name("name", sound).is_ok(), "{sound}");
        }
    }
}
