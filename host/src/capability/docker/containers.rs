//! Containers of this run: made, started, looked at, stopped, removed. A container that does not bear this run's label is
//! never touched, and none is ever named by guessing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StopContainerOptions,
};
use maddock_bindings::api::docker::ContainerInfo;
use maddock_bindings::api::types::{Entry, ErrorKind};

use super::engine::{Engine, PATIENCE, patiently};
use super::{reference, spec};
use crate::capability::{ApiError, error, error_with_hint};

/// What a container's stop may take beyond its grace period.
const STOPPING: Duration = Duration::from_secs(60);

/// A container that was found to belong to this run.
#[derive(Debug)]
pub(super) struct Owned {
    /// The engine's full id: what is acted on, whatever a name comes to mean meanwhile.
    pub(super) id: String,
    found: ContainerInspectResponse,
}

impl Owned {
    /// What the plugin sees.
    pub(super) fn info(&self) -> ContainerInfo {
        info(&self.found)
    }

    /// Whether it runs, or did.
    fn was_started(&self) -> bool {
        !matches!(self.info().state.as_str(), "created" | "")
    }

    /// Whether it has a terminal: then its two output streams are one.
    pub(super) fn terminal(&self) -> bool {
        self.found.config.as_ref().and_then(|config| config.tty).unwrap_or_default()
    }
}

/// Looks a container up and checks that it is this run's.
pub(super) async fn owned(engine: &Engine, run: &str, id: &str) -> Result<Owned, ApiError> {
    let id = reference::container(id)?;
    let found = patiently(PATIENCE, || async {
        let answer = engine.client().inspect_container(id, None).await;
        answer.map_err(|error| engine.failed(&format!("cannot look at container `{id}`"), &error))
    })
    .await?;
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    let owner = labels.and_then(|labels| labels.get(spec::RUN));
    let named = labels.and_then(|labels| labels.get(spec::NAME)).map(String::as_str);
    let inherited = named.is_none_or(|named| named.is_empty() || Some(named) != found.name.as_deref().map(bare));
    // A command that is no run owns nothing, also not what has an empty label.
    if run.is_empty() || inherited || owner.map(String::as_str) != Some(run) {
        let whose = match owner {
            None => "it is not maddock's".to_owned(),
            Some(owner) if owner == run && inherited => "its labels are those of its image".to_owned(),
            Some(owner) => format!("it belongs to run `{owner}`"),
        };
        return Err(error_with_hint(
            ErrorKind::Denied,
            format!("container `{id}` is not this run's: {whose}"),
            "a plugin may only touch the containers of its own run",
        ));
    }
    match found.id.clone().filter(|id| !id.is_empty()) {
        Some(id) => Ok(Owned { id, found }),
        None => Err(error(ErrorKind::Failed, format!("the engine does not say the id of container `{id}`"))),
    }
}

/// `None` where it is gone: for calls to which that is fine.
async fn owned_if_there(engine: &Engine, run: &str, id: &str) -> Result<Option<Owned>, ApiError> {
    match owned(engine, run, id).await {
        Err(gone) if matches!(gone.kind, ErrorKind::NotFound) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Makes a container.
pub(super) async fn create(engine: &Engine, name: &str, body: ContainerCreateBody) -> Result<String, ApiError> {
    let options = CreateContainerOptions {
        name: Some(reference::container(name)?.to_owned()),
        ..CreateContainerOptions::default()
    };
    let image = body.image.clone().unwrap_or_default();
    let made = engine.client().create_container(Some(options), body).await.map_err(|cause| {
        let mut error = engine.failed(&format!("cannot create container `{name}`"), &cause);
        error.hint = error.hint.or_else(|| match error.kind {
            ErrorKind::NotFound => Some(format!("the engine does not have image `{image}`: pull or build it first")),
            ErrorKind::Conflict => {
                Some(format!("a container named `{name}` exists already, of another run or of somebody else"))
            }
            _ => None,
        });
        error
    })?;
    Ok(made.id)
}

/// Starts a container. One that runs already is fine.
pub(super) async fn start(engine: &Engine, run: &str, id: &str) -> Result<(), ApiError> {
    let asked = AtomicBool::new(false);
    patiently(PATIENCE, || async {
        let container = owned(engine, run, id).await?;
        // The answer was lost, and the request was not: a second one could run again what has ended meanwhile.
        if asked.swap(true, Ordering::Relaxed) && container.was_started() {
            return Ok(());
        }
        let started = engine.client().start_container(&container.id, None).await;
        started.map_err(|error| engine.failed(&format!("cannot start container `{id}`"), &error))
    })
    .await
}

async fn list(engine: &Engine, labels: Vec<String>) -> Result<Vec<ContainerSummary>, ApiError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), labels)])),
        ..ListContainersOptions::default()
    };
    patiently(PATIENCE, || async {
        let answer = engine.client().list_containers(Some(options.clone())).await;
        answer.map_err(|error| engine.failed("cannot list containers", &error))
    })
    .await
}

/// Containers of any run that have a label and were made by one: ids and labels. To look at them is no leave to touch them.
pub(super) async fn labelled(engine: &Engine, label: &str) -> Result<Vec<(String, HashMap<String, String>)>, ApiError> {
    let listed = list(engine, vec![label.to_owned()]).await?;
    // What has its labels from an image is somebody else's.
    let own = listed.into_iter().filter(|summary| {
        let named = summary.labels.as_ref().and_then(|labels| labels.get(spec::NAME));
        named.is_some_and(|named| summary.names.iter().flatten().any(|name| bare(name) == named))
    });
    Ok(own.filter_map(|summary| Some((summary.id?, summary.labels?))).collect())
}

/// A name as people write it: engines put a slash before it.
fn bare(name: &str) -> &str {
    name.trim_start_matches('/')
}

/// Containers of this run that bear all the labels.
pub(super) async fn find(engine: &Engine, run: &str, labels: &[Entry]) -> Result<Vec<ContainerInfo>, ApiError> {
    let wanted = std::iter::once(format!("{}={run}", spec::RUN))
        .chain(labels.iter().map(|label| format!("{}={}", label.name, label.value)))
        .collect::<Vec<_>>();
    let listed = list(engine, wanted).await?;
    let mut found = Vec::with_capacity(listed.len());
    for id in listed.into_iter().filter_map(|summary| summary.id) {
        match owned_if_there(engine, run, &id).await {
            Ok(Some(container)) => found.push(container.info()),
            // One that went away since it was listed is not there; one that has its labels from an image is not ours.
            Ok(None) => {}
            Err(refused) if matches!(refused.kind, ErrorKind::Denied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Asks a container to end, and ends it after the grace period.
pub(super) async fn stop(engine: &Engine, run: &str, id: &str, grace: u32) -> Result<(), ApiError> {
    let Some(container) = owned_if_there(engine, run, id).await? else { return Ok(()) };
    let options =
        StopContainerOptions { t: Some(i32::try_from(grace).unwrap_or(i32::MAX)), ..StopContainerOptions::default() };
    let client = engine.client_within(Duration::from_secs(grace.into()) + STOPPING);
    patiently(PATIENCE, || async {
        match client.stop_container(&container.id, Some(options.clone())).await {
            Ok(()) | Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(engine.failed(&format!("cannot stop container `{id}`"), &error)),
        }
    })
    .await
}

/// Removes a container by force, with its anonymous volumes, and answers when it is gone.
pub(super) async fn remove(engine: &Engine, run: &str, id: &str) -> Result<(), ApiError> {
    let Some(container) = owned_if_there(engine, run, id).await? else { return Ok(()) };
    let options = RemoveContainerOptions { v: true, force: true, link: false };
    patiently(PATIENCE, || async {
        match engine.client().remove_container(&container.id, Some(options.clone())).await {
            Ok(()) | Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            // Somebody else's removal of it goes on: ask again until it is gone.
            Err(BollardError::DockerResponseServerError { status_code: 409, message })
                if message.contains("already in progress") =>
            {
                Err(error(ErrorKind::Unavailable, format!("cannot remove container `{id}`: {message}")))
            }
            Err(error) => Err(engine.failed(&format!("cannot remove container `{id}`"), &error)),
        }
    })
    .await
}

fn info(found: &ContainerInspectResponse) -> ContainerInfo {
    let state = found.state.clone().unwrap_or_default();
    let word = state.status.map(|status| status.to_string()).unwrap_or_default();
    let ended = matches!(word.as_str(), "exited" | "dead");
    let labels = found.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
    ContainerInfo {
        id: found.id.clone().unwrap_or_default(),
        name: found.name.as_deref().map(bare).unwrap_or_default().to_owned(),
        state: word,
        exit_code: state.exit_code.filter(|_| ended).map(|code| i32::try_from(code).unwrap_or(i32::MAX)),
        out_of_memory: state.oom_killed.unwrap_or_default(),
        message: state.error.unwrap_or_default(),
        image_id: found.image.clone().unwrap_or_default(),
        labels: sorted(labels),
    }
}

/// Labels in one order, so that a trace replays.
pub(super) fn sorted(labels: HashMap<String, String>) -> Vec<Entry> {
    let mut labels: Vec<Entry> = labels.into_iter().map(|(name, value)| Entry { name, value }).collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    labels
}
