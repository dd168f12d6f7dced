//! Images: what the engine has, and what goes to and comes from registries. An image is known by its digest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::models::ProgressDetail;
use bollard::query_parameters::{CreateImageOptions, PushImageOptions, TagImageOptions};
use futures_util::StreamExt;
use maddock_bindings::api::docker::ImageInfo;
use maddock_bindings::api::types::ErrorKind;
use tokio::sync::mpsc;

use super::containers::sorted;
use super::engine::Engine;
use super::reference::Reference;
use crate::capability::events::PluginEvent;
use crate::capability::secrets::SecretStore;
use crate::capability::{ApiError, error, error_with_hint};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(250);

/// A registry may be slow to begin.
const TRANSFER: Duration = Duration::from_secs(600);

/// The registry's login: `NAME/username` and `NAME/password` of the secrets.
pub(super) fn login(
    reference: &Reference,
    name: Option<&str>,
    secrets: &SecretStore,
) -> Result<Option<DockerCredentials>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let (username, password) = name_and_password(name, secrets)?;
    Ok(Some(DockerCredentials {
        username: Some(username),
        password: Some(password),
        serveraddress: Some(reference.login_server().to_owned()),
        ..DockerCredentials::default()
    }))
}

/// Both parts of a login.
pub(super) fn name_and_password(name: &str, secrets: &SecretStore) -> Result<(String, String), ApiError> {
    let part = |member: &str| {
        secrets.reveal(&format!("{name}/{member}")).map(str::to_owned).ok_or_else(|| {
            error_with_hint(
                ErrorKind::NotFound,
                format!("login `{name}` has no `{member}`"),
                "a login in credential.json has the members `username` and `password`",
            )
        })
    };
    Ok((part("username")?, part("password")?))
}

/// What the engine knows about an image it has.
pub(super) async fn inspect(engine: &Engine, reference: &Reference) -> Result<ImageInfo, ApiError> {
    let name = reference.as_str();
    let found = engine.client().inspect_image(name).await.map_err(|cause| {
        let mut error = engine.failed(&format!("cannot look at image `{name}`"), &cause);
        if matches!(error.kind, ErrorKind::NotFound) {
            error.hint = Some("pull or build it first".to_owned());
        }
        error
    })?;
    let config = found.config.unwrap_or_default();
    Ok(ImageInfo {
        id: found.id.unwrap_or_default(),
        repository_digests: found.repo_digests.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        labels: sorted(config.labels.unwrap_or_default()),
        user: config.user.unwrap_or_default(),
        architecture: found.architecture.unwrap_or_default(),
        size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
    })
}

/// Fetches an image.
pub(super) async fn pull(
    engine: &Engine,
    reference: &Reference,
    login: Option<DockerCredentials>,
    events: &mpsc::Sender<PluginEvent>,
) -> Result<ImageInfo, ApiError> {
    named(reference)?;
    let options = CreateImageOptions {
        from_image: Some(reference.repository().to_owned()),
        tag: Some(reference.version().to_owned()),
        ..CreateImageOptions::default()
    };
    let doing = format!("cannot pull image `{}`", reference.as_str());
    let mut progress = Progress::new(format!("pull {}", reference.as_str()), events);
    let client = engine.client_within(TRANSFER);
    let mut stream = client.create_image(Some(options), None, login);
    while let Some(told) = stream.next().await {
        let told = told.map_err(|error| with_login_hint(engine.failed(&doing, &error)))?;
        progress.layer(told.id.unwrap_or_default(), told.status.as_deref(), told.progress_detail.as_ref());
    }
    inspect(engine, reference).await
}

/// Gives an image another name.
pub(super) async fn tag(engine: &Engine, reference: &Reference, new: &Reference) -> Result<(), ApiError> {
    named(new)?;
    if new.as_str().contains('@') {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("`{}` names a digest: an image is given names only", new.as_str()),
        ));
    }
    let options = TagImageOptions { repo: Some(new.repository().to_owned()), tag: Some(new.version().to_owned()) };
    let tagged = engine.client().tag_image(reference.as_str(), Some(options)).await;
    tagged.map_err(|error| {
        engine.failed(&format!("cannot name image `{}` `{}`", reference.as_str(), new.as_str()), &error)
    })
}

/// Sends an image to its registry; answers the digest of what the registry took.
pub(super) async fn push(
    engine: &Engine,
    reference: &Reference,
    login: Option<DockerCredentials>,
    events: &mpsc::Sender<PluginEvent>,
) -> Result<String, ApiError> {
    named(reference)?;
    let options = PushImageOptions { tag: Some(reference.version().to_owned()), ..PushImageOptions::default() };
    let doing = format!("cannot push image `{}`", reference.as_str());
    let mut progress = Progress::new(format!("push {}", reference.as_str()), events);
    let client = engine.client_within(TRANSFER);
    let mut stream = client.push_image(reference.repository(), Some(options), login);
    let mut taken = None;
    while let Some(told) = stream.next().await {
        let told = told.map_err(|error| with_login_hint(engine.failed(&doing, &error)))?;
        if let Some(detail) = told.error_detail {
            return Err(error(ErrorKind::Failed, format!("{doing}: {}", detail.message.unwrap_or_default())));
        }
        let status = told.status.unwrap_or_default();
        taken = digest_in(&status).or(taken);
        progress.layer(String::new(), Some(&status), told.progress_detail.as_ref());
    }
    match taken {
        Some(digest) => Ok(digest),
        None => digest_of(engine, reference).await,
    }
}

/// `TAG: digest: sha256:… size: N`, the last line of a push.
fn digest_in(status: &str) -> Option<String> {
    let (_, rest) = status.split_once("digest: ")?;
    let digest = rest.split_whitespace().next()?;
    digest.starts_with("sha256:").then(|| digest.to_owned())
}

/// An engine that does not say it while it pushes knows it afterwards.
async fn digest_of(engine: &Engine, reference: &Reference) -> Result<String, ApiError> {
    let info = inspect(engine, reference).await?;
    let prefix = format!("{}@", reference.repository());
    let digest = info.repository_digests.iter().find_map(|name| name.strip_prefix(&prefix));
    digest.map(str::to_owned).ok_or_else(|| {
        error(
            ErrorKind::Failed,
            format!("image `{}` was pushed, but the engine does not say under which digest", reference.as_str()),
        )
    })
}

/// The digest that a registry has now.
pub(super) async fn registry_digest(
    engine: &Engine,
    reference: &Reference,
    login: Option<DockerCredentials>,
) -> Result<String, ApiError> {
    named(reference)?;
    let answer = engine.client().inspect_registry_image(reference.as_str(), login).await;
    let answer =
        answer.map_err(|error| {
            with_login_hint(engine.failed(
                &format!("cannot ask registry `{}` for `{}`", reference.registry(), reference.as_str()),
                &error,
            ))
        })?;
    answer.descriptor.digest.filter(|digest| !digest.is_empty()).ok_or_else(|| {
        error(
            ErrorKind::Failed,
            format!("registry `{}` does not say the digest of `{}`", reference.registry(), reference.as_str()),
        )
    })
}

fn named(reference: &Reference) -> Result<(), ApiError> {
    if reference.is_id() {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("`{}` is an image's id: registries know names", reference.as_str()),
        ));
    }
    Ok(())
}

fn with_login_hint(mut error: ApiError) -> ApiError {
    let refused = ["unauthorized", "authentication required", "denied", "no basic auth"];
    if error.hint.is_none() && refused.iter().any(|word| error.message.contains(word)) {
        error.hint = Some("the registry wants a login with that right: see credential.json".to_owned());
    }
    error
}

/// Sums what the layers tell, and says it now and then.
struct Progress<'a> {
    activity: String,
    events: &'a mpsc::Sender<PluginEvent>,
    layers: HashMap<String, (u64, u64)>,
    told: Instant,
}

impl<'a> Progress<'a> {
    fn new(activity: String, events: &'a mpsc::Sender<PluginEvent>) -> Self {
        Self { activity, events, layers: HashMap::new(), told: Instant::now() }
    }

    fn layer(&mut self, id: String, status: Option<&str>, detail: Option<&ProgressDetail>) {
        let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
        match (status, detail) {
            // The engine does not tell which layer of a push it speaks of.
            (Some("Downloading" | "Pushing"), Some(detail)) if detail.current.is_some() => {
                self.layers.insert(id, (bytes(detail.current), bytes(detail.total)));
            }
            (Some("Download complete" | "Pull complete"), _) => {
                if let Some((current, total)) = self.layers.get_mut(&id) {
                    *current = *total;
                }
            }
            _ => return,
        }
        if self.told.elapsed() < PROGRESS {
            return;
        }
        self.told = Instant::now();
        let done = self.layers.values().map(|(current, _)| current).sum();
        let total: u64 = self.layers.values().map(|(_, total)| total).sum();
        let event = PluginEvent::Progress {
            activity: self.activity.clone(),
            done: Some(done),
            total: (total >= done).then_some(total),
            unit: "bytes".to_owned(),
        };
        // Progress that nobody has time to see is no loss.
        let _ = self.events.try_send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_read_from_the_last_line_of_a_push() {
        assert_eq!(digest_in("1: digest: sha256:12ab size: 527").as_deref(), Some("sha256:12ab"));
        assert_eq!(digest_in("Layer already exists"), None);
    }

    #[test]
    fn a_login_is_two_secrets_under_one_name() {
        let mut secrets = SecretStore::default();
        secrets.add("credential/dockerhub/username", "u");
        let reference = Reference::parse("rocm/x").unwrap();
        assert!(login(&reference, Some("credential/dockerhub"), &secrets).unwrap_err().message.contains("`password`"));
        secrets.add("credential/dockerhub/password", "p");
        let credentials = login(&reference, Some("credential/dockerhub"), &secrets).unwrap().unwrap();
        assert_eq!(credentials.serveraddress.as_deref(), Some("https://index.docker.io/v1/"));
        assert_eq!(login(&reference, None, &secrets).unwrap(), None);
    }
}
