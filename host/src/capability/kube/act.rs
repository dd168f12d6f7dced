//! Makes, looks at and deletes objects. Everything here needs a `Client`, which is had for a permit.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use maddock_bindings::api::kube::{self as wit, ObjectRef, Server};
use maddock_bindings::api::types::{Entry, ErrorKind};
use serde_json::Value;
use tokio::time::Instant;

use super::cluster::Client;
use super::detail;
use super::object::{KINDS, Kind, Object};
use super::owner::{Owner, is_of_run};
use super::trouble::ask;
use crate::capability::docker::patiently;
use crate::capability::{ApiError, error, error_with_hint};

/// Objects that a list brings at once.
pub(super) const PAGE: u32 = 500;
/// How long an object may take to go.
const GOING: Duration = Duration::from_secs(100);
/// How long a server that is away is asked again for what is to be taken away.
const AWAY: Duration = Duration::from_secs(60);

impl Client {
    fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.api.clone(), &self.place.namespace, &kind.resource())
    }
}

/// Who answers.
pub(super) async fn server(client: &Client) -> Result<Server, ApiError> {
    let place = &client.place;
    let (context, address) = (&place.cluster.context, &place.cluster.address);
    let doing = format!("cannot ask the cluster at {address}, context `{context}`, what it is");
    let info = ask(&doing, client.api.apiserver_version()).await.map_err(|mut error| {
        if matches!(error.kind, ErrorKind::Unavailable) {
            let hint =
                format!("`{}` says where the cluster is; `HTTPS_PROXY` and `NO_PROXY` count", place.cluster.source);
            error.hint.get_or_insert(hint);
        }
        error
    })?;
    let namespaces: Api<Namespace> = Api::all(client.api.clone());
    // An account that may use a namespace need not see it.
    let namespace = ask("cannot look for the namespace", namespaces.get_metadata_opt(&place.namespace)).await;
    if matches!(namespace, Ok(None)) {
        return Err(error_with_hint(
            ErrorKind::NotFound,
            format!(
                "there is no namespace `{}` in the cluster of context `{}`",
                place.namespace, place.cluster.context
            ),
            format!("`kubectl create namespace {}` makes it", place.namespace),
        ));
    }
    let extra = [
        ("address", place.cluster.address.clone()),
        ("platform", info.platform),
        ("kubeconfig", place.cluster.source.clone()),
    ];
    Ok(Server {
        version: info.git_version,
        context: place.cluster.context.clone(),
        namespace: place.namespace.clone(),
        extra: extra.map(|(name, value)| detail(name, value)).into(),
    })
}

/// All nodes.
pub(super) async fn nodes(client: &Client) -> Result<Vec<wit::Node>, ApiError> {
    let api: Api<Node> = Api::all(client.api.clone());
    let mut nodes = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = ask("cannot list the cluster's nodes", api.list(&page)).await?;
        nodes.extend(list.items.into_iter().map(node));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(nodes),
        }
    }
}

fn node(node: Node) -> wit::Node {
    let status = node.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let cordoned = node.spec.is_some_and(|spec| spec.unschedulable == Some(true));
    let entries = |map: Option<std::collections::BTreeMap<String, String>>| {
        map.unwrap_or_default().into_iter().map(|(name, value)| Entry { name, value }).collect()
    };
    wit::Node {
        name: node.metadata.name.unwrap_or_default(),
        ready: ready && !cordoned,
        allocatable: entries(
            status.allocatable.map(|all| all.into_iter().map(|(name, quantity)| (name, quantity.0)).collect()),
        ),
        labels: entries(node.metadata.labels),
    }
}

/// Has the server look at objects as if they were made.
pub(super) async fn check(client: &Client, objects: &[Object], owner: &Owner) -> Result<(), ApiError> {
    let rehearsal = PostParams { dry_run: true, ..PostParams::default() };
    for object in objects {
        let value = object.owned(owner, &client.place.namespace);
        post(client, object.kind, &object.name, value, &rehearsal).await?;
    }
    Ok(())
}

/// Makes objects; where one cannot be made, none of them stays.
pub(super) async fn create(client: &Client, objects: &[Object], owner: &Owner) -> Result<Vec<ObjectRef>, ApiError> {
    let mut made: Vec<(Kind, &str)> = Vec::new();
    for object in objects {
        let value = object.owned(owner, &client.place.namespace);
        match post(client, object.kind, &object.name, value, &PostParams::default()).await {
            Ok(()) => made.push((object.kind, &object.name)),
            Err(mut refused) => {
                for (kind, name) in made.into_iter().rev() {
                    if let Err(left) = delete(client, kind, name, &owner.run).await {
                        refused.message =
                            format!("{}; {} `{name}` is left over: {}", refused.message, kind.word(), left.message);
                    }
                }
                return Err(refused);
            }
        }
    }
    Ok(objects.iter().map(|object| reference(object.kind, &object.name)).collect())
}

pub(super) fn reference(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef { kind: kind.word().to_owned(), name: name.to_owned() }
}

/// Hands one object in.
pub(super) async fn post(
    client: &Client,
    kind: Kind,
    name: &str,
    value: Value,
    parameters: &PostParams,
) -> Result<(), ApiError> {
    let doing = format!("cannot make {} `{name}` in namespace `{}`", kind.word(), client.place.namespace);
    let object: DynamicObject =
        serde_json::from_value(value).map_err(|cause| error(ErrorKind::InvalidInput, format!("{doing}: {cause}")))?;
    ask(&doing, client.objects(kind).create(parameters, &object)).await.map(|_| ())
}

/// One object as the cluster has it.
pub(super) async fn get(client: &Client, kind: Kind, name: &str) -> Result<Option<String>, ApiError> {
    let doing = format!("cannot look at {} `{name}`", kind.word());
    let Some(mut object) = ask(&doing, client.objects(kind).get_opt(name)).await? else { return Ok(None) };
    // Who wrote which member when: long, and of no use to a plugin.
    object.metadata.managed_fields = None;
    let text = serde_json::to_string(&object);
    text.map(Some).map_err(|cause| error(ErrorKind::Failed, format!("{doing}: {cause}")))
}

/// The metadata of one object; of a secret nothing else is ever asked for.
pub(super) async fn metadata(client: &Client, kind: Kind, name: &str) -> Result<Option<ObjectMeta>, ApiError> {
    let doing = format!("cannot look at {} `{name}`", kind.word());
    Ok(ask(&doing, client.objects(kind).get_metadata_opt(name)).await?.map(|object| object.metadata))
}

/// What bears labels.
pub(super) struct Labelled {
    /// Names and metadata, in the order in which it is to go.
    pub(super) found: Vec<(Kind, ObjectMeta)>,
    /// Why what there is of some kinds is not known: the account may not list them.
    pub(super) hidden: Vec<ApiError>,
}

/// Looks for what bears labels. Pods that belong to a Job go with it.
///
/// # Errors
/// The server does not answer, or the account may list nothing at all.
pub(super) async fn labelled(client: &Client, selector: &str) -> Result<Labelled, ApiError> {
    let (mut found, mut hidden) = (Vec::new(), Vec::new());
    for kind in KINDS {
        let doing =
            format!("cannot list what there is of kind {} in namespace `{}`", kind.word(), client.place.namespace);
        let mut page = ListParams::default().labels(selector).limit(PAGE);
        loop {
            let objects = client.objects(kind);
            let list = match patiently(AWAY, || ask(&doing, objects.list_metadata(&page))).await {
                Ok(list) => list,
                // One right that lacks must not keep the rest from being taken away.
                Err(refused) if super::trouble::is_forbidden(&refused) => {
                    hidden.push(refused);
                    break;
                }
                Err(trouble) => return Err(trouble),
            };
            let own = |metadata: &ObjectMeta| {
                metadata.owner_references.iter().flatten().all(|owner| owner.controller != Some(true))
            };
            found.extend(list.items.into_iter().map(|object| object.metadata).filter(own).map(|object| (kind, object)));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    if hidden.len() == KINDS.len()
        && let Some(refused) = hidden.pop()
    {
        return Err(refused);
    }
    Ok(Labelled { found, hidden })
}

/// Deletes an object of a run, and waits until it is gone.
pub(super) async fn delete(client: &Client, kind: Kind, name: &str, run: &str) -> Result<(), ApiError> {
    let Some(found) = patiently(AWAY, || metadata(client, kind, name)).await? else { return Ok(()) };
    let uid = owned(kind, name, &found, run)?;
    let doing = format!("cannot delete {} `{name}`", kind.word());
    // A Job stays until its pods are gone, so that whoever waited for it has waited for them.
    let how = match kind {
        Kind::Job => DeleteParams::foreground(),
        _ => DeleteParams::background(),
    };
    let how = how.preconditions(Preconditions { uid: Some(uid.clone()), resource_version: None });
    let until = Instant::now().checked_add(GOING);
    let mut pause = Duration::from_millis(100);
    let mut asked = false;
    loop {
        // A server that is away for a moment is asked again: what is to go must go.
        let attempt = match asked {
            false => ask(&doing, client.objects(kind).delete(name, &how)).await.map(|_| asked = true),
            true => Ok(()),
        };
        let looked = match attempt {
            Ok(()) => metadata(client, kind, name).await,
            // Another of that name has come in its place, or it is gone.
            Err(gone) if matches!(gone.kind, ErrorKind::NotFound | ErrorKind::Conflict) => return Ok(()),
            Err(trouble) => Err(trouble),
        };
        match looked {
            Ok(None) => return Ok(()),
            Ok(Some(now)) if now.uid.as_ref() != Some(&uid) => return Ok(()),
            Ok(Some(_)) => {}
            Err(trouble) if super::trouble::may_pass(&trouble) => {}
            Err(trouble) => return Err(trouble),
        }
        if until.is_none_or(|until| Instant::now() >= until) {
            return Err(error_with_hint(
                ErrorKind::TimedOut,
                format!("{} `{name}` is to go and is still there after {} s", kind.word(), GOING.as_secs()),
                format!("`kubectl describe {} {name}` may say what it waits for", kind.word().to_lowercase()),
            ));
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(1.5).min(Duration::from_secs(2));
    }
}

/// The identity of an object of a run.
///
/// # Errors
/// Of kind `conflict` where it is of another.
pub(super) fn owned(kind: Kind, name: &str, metadata: &ObjectMeta, run: &str) -> Result<String, ApiError> {
    if is_of_run(metadata.labels.as_ref(), run) {
        return Ok(metadata.uid.clone().unwrap_or_default());
    }
    Err(error_with_hint(
        ErrorKind::Conflict,
        format!("{} `{name}` is not of this run (`{run}`) and is not touched", kind.word()),
        "look at it with `kubectl`, if it is yours",
    ))
}

/// A pod that this run may enter.
pub(super) async fn own_pod(client: &Client, pod: &str, run: &str) -> Result<(), ApiError> {
    match metadata(client, Kind::Pod, pod).await? {
        None => Err(error(
            ErrorKind::NotFound,
            format!("there is no pod `{pod}` in namespace `{}`", client.place.namespace),
        )),
        Some(found) => owned(Kind::Pod, pod, &found, run).map(|_| ()),
    }
}
