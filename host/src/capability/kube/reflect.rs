//! Keeps up with a set of objects: a list, then a watch from where the list ended, for as long as anybody wants to know.
//! Whatever breaks is made anew: from where it was, or with a new list where the server has forgotten that.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use kube::Resource;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use maddock_bindings::api::types::ErrorKind;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::act::PAGE;
use super::trouble::{self, ask};
use crate::capability::{ApiError, error};

/// How long a server keeps a watch, in seconds; then it is made anew.
const KEPT: u32 = 240;
/// Longer than that it is silent only if the connection is dead.
const SILENCE: Duration = Duration::from_secs(255);
/// For a watch to begin.
const OPENING: Duration = Duration::from_secs(30);
/// Between two attempts.
const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(10);

/// What is to be watched.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

/// What was seen.
pub(super) enum Heard<K> {
    /// All that there is.
    All(Vec<K>),
    /// One that is new or not as it was.
    Changed(K),
    /// One that is gone.
    Gone(K),
    /// The server answers.
    Back,
    /// It does not, or refuses.
    Trouble(ApiError),
}

/// Tells what there is and what becomes of it, until nobody listens: `tell` answers whether to go on.
pub(super) async fn follow<K>(doing: &str, api: Api<K>, selection: Selection, tell: impl Fn(Heard<K>) -> bool)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut pause = LEAST;
    let mut since: Option<String> = None;
    loop {
        let begun = Instant::now();
        let listed = since.is_none();
        let told = match since.take() {
            None => list(doing, &api, &selection).await.map(|(items, version)| {
                since = Some(version);
                tell(Heard::All(items))
            }),
            Some(version) => match watch(doing, &api, &selection, &version, &tell).await {
                Ok(version) => {
                    since = version;
                    Ok(true)
                }
                Err(Lost { version, trouble }) => {
                    since = Some(version);
                    Err(trouble)
                }
            },
        };
        // One that held for a while was sound: what ended it says nothing about the next.
        if begun.elapsed() > MOST {
            pause = LEAST;
        }
        match told {
            // A list is followed by its watch at once; a server that ends each watch at once is not asked without a pause.
            Ok(true) if listed => {}
            Ok(true) => tokio::time::sleep(LEAST.saturating_sub(begun.elapsed())).await,
            Ok(false) => return,
            Err(trouble) => {
                if !tell(Heard::Trouble(trouble)) {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(MOST);
            }
        }
    }
}

async fn list<K>(doing: &str, api: &Api<K>, selection: &Selection) -> Result<(Vec<K>, String), ApiError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut items = Vec::new();
    let mut page = ListParams {
        label_selector: selection.labels.clone(),
        field_selector: selection.fields.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    loop {
        let list = ask(doing, api.list(&page)).await?;
        items.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok((items, list.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// A watch that broke, and from where to go on.
struct Lost {
    version: String,
    trouble: ApiError,
}

/// Watches until the server ends it. Answers from where to go on; none: the server has forgotten that, list again.
async fn watch<K>(
    doing: &str,
    api: &Api<K>,
    selection: &Selection,
    from: &str,
    tell: &impl Fn(Heard<K>) -> bool,
) -> Result<Option<String>, Lost>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut version = from.to_owned();
    let parameters = WatchParams {
        label_selector: selection.labels.clone(),
        field_selector: selection.fields.clone(),
        timeout: Some(KEPT),
        ..WatchParams::default()
    };
    let opened = match tokio::time::timeout(OPENING, api.watch(&parameters, &version)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(kube::Error::Api(status))) if status.code == 410 => return Ok(None),
        Ok(Err(cause)) => return Err(Lost { version, trouble: trouble::of(doing, cause) }),
        Err(_) => {
            let message = format!("{doing}: the API server did not answer within {} s", OPENING.as_secs());
            return Err(Lost { version, trouble: error(ErrorKind::Unavailable, message) });
        }
    };
    tell(Heard::Back);
    let mut events = std::pin::pin!(opened);
    loop {
        let event = match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(kube::Error::Api(status)))) if status.code == 410 => return Ok(None),
            Ok(Some(Err(cause))) => return Err(Lost { version, trouble: trouble::of(doing, cause) }),
            // The server's time is up, or nothing comes any more.
            Ok(None) | Err(_) => return Ok(Some(version)),
        };
        let heard = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Heard::Changed(object),
            WatchEvent::Deleted(object) => Heard::Gone(object),
            WatchEvent::Bookmark(mark) => {
                version = mark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) if status.code == 410 => return Ok(None),
            WatchEvent::Error(status) => {
                return Err(Lost { version, trouble: trouble::of_status(doing, &status) });
            }
        };
        if let Heard::Changed(object) | Heard::Gone(object) = &heard
            && let Some(at) = object.meta().resource_version.clone()
        {
            version = at;
        }
        tell(heard);
    }
}
