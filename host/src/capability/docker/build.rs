//! Building images with the engine's BuildKit: the context is streamed in, the builder's steps are streamed out as text.
//!
//! A secret reaches the builder through the session only, or, where an old Dockerfile asks for it as a build argument,
//! as an argument, with a warning: it then stays in the image's history.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::BuildInfoAux;
use bollard::query_parameters::{BuildImageOptions, BuilderVersion};
use futures_util::StreamExt;
use maddock_bindings::api::docker::{BuildSpec, ImageInfo};
use maddock_bindings::api::types::{self, EnvValue, ErrorKind, OutputStream};
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::bases::{self, Base};
use super::context::Context;
use super::engine::Engine;
use super::feed::{Feed, Told};
use super::progress::Progress;
use super::reference::Reference;
use super::session::{Given, Session};
use super::{Docker, images, spec};
use crate::capability::gate::Call;
use crate::capability::secrets::SecretStore;
use crate::capability::{ApiError, error, error_with_hint};

/// A build may take as long as it takes; whoever asked for it drops it.
const PATIENT: Duration = Duration::from_secs(400 * 24 * 3600);

/// The first engine whose own frontend knows named contexts.
const NAMED_CONTEXTS_SINCE: u64 = 23;

/// A Dockerfile is a text for people.
const LONGEST: u64 = 256 << 10;

const PIPE: usize = 256 << 10;

/// A build as the plugin holds it.
#[derive(Debug)]
pub(super) struct Building {
    /// What it tells.
    pub(super) feed: Feed<ImageInfo>,
    /// Bytes of context sent so far.
    sent: Arc<AtomicU64>,
    charged: u64,
}

impl Building {
    /// Bytes sent since this was asked last.
    pub(super) fn newly_sent(&mut self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        let new = sent - self.charged;
        self.charged = sent;
        new
    }
}

/// Paths of a build, followed to where they really are before the gate is asked.
pub(super) struct Paths {
    directory: Result<PathBuf, ApiError>,
    dockerfile: Result<PathBuf, ApiError>,
    /// Read once: what the gate is asked about is what the builder gets.
    text: Result<Vec<u8>, ApiError>,
}

impl Paths {
    pub(super) fn of(build: &BuildSpec) -> Self {
        Self {
            directory: really("build directory", &build.directory, Path::is_dir),
            dockerfile: really("Dockerfile", &build.dockerfile, Path::is_file),
            text: Ok(Vec::new()),
        }
    }

    /// Reads the Dockerfile, of a build that is allowed but for its images. Answers those that it would take something from.
    pub(super) fn bases(&mut self, build: &BuildSpec) -> Result<Vec<Base>, ApiError> {
        self.text = self.dockerfile.as_ref().map_err(Clone::clone).and_then(|path| read(path));
        if let Err(unreadable) = &self.text {
            return Err(unreadable.clone());
        }
        let known = build.arguments.iter().map(|argument| match &argument.value {
            EnvValue::Text(text) => (argument.name.as_str(), Some(text.as_str())),
            EnvValue::Secret(_) => (argument.name.as_str(), None),
        });
        bases::bases(&self.text(), &known.collect()).map_err(|why| {
            error(ErrorKind::InvalidInput, format!("cannot read Dockerfile `{}`: {why}", build.dockerfile))
        })
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.text.as_deref().unwrap_or_default())
    }
}

/// The images that a build of this Dockerfile takes something from, whatever it is given; none where it cannot be read.
///
/// Each with the line that names it.
pub(in crate::capability) fn surely_from(dockerfile: &Path) -> Vec<(String, usize)> {
    let text = if dockerfile.is_file() { read(dockerfile).unwrap_or_default() } else { Vec::new() };
    bases::certain(&String::from_utf8_lossy(&text)).into_iter().map(|base| (base.image, base.line)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, ApiError> {
    let failed = |why: String| error(ErrorKind::Failed, format!("cannot read Dockerfile `{}`: {why}", path.display()));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|why| failed(why.to_string()))?;
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(|why| failed(why.to_string()))?;
    if text.len() as u64 > LONGEST { Err(failed(format!("it is longer than {LONGEST} bytes"))) } else { Ok(text) }
}

/// A refusal of an image, with the place that names the image.
pub(super) fn with_line(mut refused: ApiError, build: &BuildSpec, bases: &[Base]) -> ApiError {
    let named = bases.iter().find(|base| refused.message.contains(&format!("on image `{}`", base.image)));
    if let (ErrorKind::Denied, Some(base)) = (&refused.kind, named) {
        refused.message = format!("{}:{}: {}", build.dockerfile, base.line, refused.message);
    }
    refused
}

fn really(what: &str, path: &str, right: fn(&Path) -> bool) -> Result<PathBuf, ApiError> {
    if !Path::new(path).is_absolute() {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("{what} `{}` is not an absolute path", path.escape_debug()),
        ));
    }
    let missing = || error(ErrorKind::NotFound, format!("{what} `{path}` is not there"));
    Path::new(path).canonicalize().ok().filter(|path| right(path)).ok_or_else(missing)
}

/// Says what a build will touch. Every path is said as `path`; the directory as `directory`, too.
pub(super) fn scope(build: &BuildSpec, paths: &Paths, bases: &[Base]) -> Call<Docker> {
    let shown = |found: &Result<PathBuf, ApiError>, given: &str| {
        found.as_ref().map_or_else(|_| given.to_owned(), |path| path.display().to_string())
    };
    let directory = shown(&paths.directory, &build.directory);
    let mut call = Call::<Docker>::new("build-image")
        .on("directory", &directory)
        .on("path", &directory)
        .on("path", shown(&paths.dockerfile, &build.dockerfile))
        .on_all("tag", &build.tags)
        .on_all("image", bases.iter().map(|base| &base.image));
    for context in &build.contexts {
        let path = shown(&really("context", &context.value, Path::is_dir), &context.value);
        call = call.on("directory", &path).on("path", path);
    }
    // What is left to the engine is told, too, as for containers.
    call = call.on("network", if build.network.is_empty() { "default" } else { build.network.as_str() });
    call = spec::environment_scope(call, &build.arguments);
    call = call.on_all("secret", build.secrets.iter().map(|secret| &secret.value));
    let staying = build.arguments.iter().filter(|argument| matches!(argument.value, EnvValue::Secret(_)));
    call = call.on_all("secret-argument", staying.map(|argument| &argument.name));
    for extra in &build.extra {
        call = match (extra.name.as_str(), extra.value.split_once('=')) {
            ("login", Some((registry, secret))) => call.on("registry", registry).on("secret", secret),
            // Its layers become layers of what is built.
            ("cache-from", _) => call.on("image", &extra.value).on("option", "cache-from"),
            (name, _) => call.on("option", name),
        };
    }
    call
}

/// What a person should know before the build, and whether it is grave.
pub(super) fn remarks(build: &BuildSpec, paths: &Paths, version: &str) -> Vec<(bool, String)> {
    let mut remarks = Vec::new();
    for argument in &build.arguments {
        if let EnvValue::Secret(secret) = &argument.value {
            let name = &argument.name;
            remarks.push((true, format!("secret `{secret}` is given as build argument `{name}`: it stays in the image's history; use `RUN --mount=type=secret`")));
        }
    }
    let text = paths.text();
    for context in &build.contexts {
        let why = match version.split('.').next().and_then(|major| major.parse::<u64>().ok()) {
            Some(major) if major < NAMED_CONTEXTS_SINCE => {
                format!("the builder of engine {version} does not know them ({NAMED_CONTEXTS_SINCE}.0 and later do)")
            }
            _ => "the engine's build call has no place for them".to_owned(),
        };
        remarks.push((
            mentions(&text, &context.name),
            format!("build context `{}` is not passed on: {why}", context.name),
        ));
    }
    remarks
}

/// Whether a Dockerfile takes something from a name.
fn mentions(dockerfile: &str, name: &str) -> bool {
    dockerfile.lines().any(|line| {
        let mut words = line.split([' ', '\t', ',']);
        let from = line.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("from "));
        words.any(|word| {
            word.strip_prefix("--from=").or_else(|| word.strip_prefix("from=")) == Some(name) || (from && word == name)
        })
    })
}

/// A build that may begin.
pub(super) struct Order {
    context: Context,
    options: BuildImageOptions,
    /// The first is the builder's, the others are given afterwards.
    tags: Vec<Reference>,
    given: Given,
    what: String,
}

/// Checks and translates a build. This is where its secrets are revealed.
pub(super) fn order(build: &BuildSpec, paths: Paths, secrets: &SecretStore) -> Result<Order, ApiError> {
    let context = Context::prepare(&paths.directory?, &paths.dockerfile?, paths.text?)?;
    let tags = build.tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>, _>>()?;
    if let Some(wrong) = tags.iter().find(|tag| tag.is_id() || tag.as_str().contains('@')) {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("`{}` is no name that an image can be given", wrong.as_str()),
        ));
    }
    let mut given = Given::default();
    for types::Entry { name, value } in &build.secrets {
        given.secrets.insert(name.clone(), spec::revealed(value, secrets)?.as_bytes().to_vec());
    }
    let mut options = BuildImageOptions {
        dockerfile: context.dockerfile.clone(),
        t: tags.first().map(|tag| tag.as_str().to_owned()),
        nocache: build.no_cache,
        pull: build.pull.then(|| "true".to_owned()),
        rm: true,
        forcerm: true,
        buildargs: Some(spec::reveal(&build.arguments, secrets)?.into_iter().collect()),
        labels: Some(
            build.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect::<HashMap<_, _>>(),
        ),
        networkmode: network(&build.network)?,
        ..BuildImageOptions::default()
    };
    extras(build, &mut options, &mut given, secrets)?;
    let what = tags.first().map_or_else(|| build.directory.clone(), |tag| tag.as_str().to_owned());
    Ok(Order { context, options, tags, given, what })
}

fn network(network: &str) -> Result<Option<String>, ApiError> {
    match network {
        "" | "default" => Ok(None),
        "host" | "none" => Ok(Some(network.to_owned())),
        _ => Err(error(
            ErrorKind::InvalidInput,
            format!("build network `{network}` is none of `default`, `host`, `none`"),
        )),
    }
}

fn extras(
    build: &BuildSpec,
    options: &mut BuildImageOptions,
    given: &mut Given,
    secrets: &SecretStore,
) -> Result<(), ApiError> {
    let wrong = |name: &str, value: &str, what: &str| {
        error(ErrorKind::InvalidInput, format!("build option `{name}`: `{value}` is not {what}"))
    };
    let mut hosts = Vec::new();
    for types::Entry { name, value } in &build.extra {
        match name.as_str() {
            "target" => options.target.clone_from(value),
            "platform" => options.platform.clone_from(value),
            "add-host" => match value.split_once([':', '=']) {
                Some((host, address)) => hosts.push(format!("{host}:{address}")),
                None => return Err(wrong(name, value, "`name:address`")),
            },
            "cache-from" => options.cachefrom.get_or_insert_default().push(value.clone()),
            "shm-size" => options.shmsize = Some(value.parse().map_err(|_| wrong(name, value, "a number of bytes"))?),
            "login" => {
                let (registry, secret) =
                    value.split_once('=').ok_or_else(|| wrong(name, value, "`registry=secret`"))?;
                // The builder asks by the host that it connects to.
                let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
                given.logins.insert(host.to_owned(), images::name_and_password(secret, secrets)?);
            }
            _ => {
                let known = "known are: target, platform, add-host, cache-from, shm-size, login";
                return Err(error_with_hint(
                    ErrorKind::InvalidInput,
                    format!("build option `{}` is not known", name.escape_debug()),
                    known,
                ));
            }
        }
    }
    if !hosts.is_empty() {
        options.extrahosts = Some(hosts.join(","));
    }
    Ok(())
}

/// Begins a build.
pub(super) async fn start(engine: Engine, order: Order) -> Result<Building, ApiError> {
    let Order { context, options, tags, given, what } = order;
    let session_id = session_id();
    let wants_session = !given.secrets.is_empty();
    let session = Session::open(&engine, &session_id, given).await?;
    if session.is_none() && wants_session {
        return Err(error_with_hint(
            ErrorKind::Unsupported,
            format!("cannot build `{what}` with secrets: the engine {} has no BuildKit", engine.version),
            "use an engine with BuildKit (Docker 18.09 and later)",
        ));
    }
    let buildkit = session.is_some();
    let (mut feed, tell) = Feed::new();
    if let Some(session) = session {
        feed.spawn(session.serve());
    }
    let sent = Arc::new(AtomicU64::new(0));
    let build = Build { engine, what, tags, tell: tell.clone(), progress: Progress::default(), image: None };
    let counter = sent.clone();
    feed.spawn(async move {
        let end = build.run(context, options, buildkit.then_some(session_id), counter).await;
        // A plugin that went away needs no end.
        let _ = tell.send(Told::Ended(end)).await;
    });
    Ok(Building { feed, sent, charged: 0 })
}

/// Unlike any other session's of this engine.
fn session_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

struct Build {
    engine: Engine,
    what: String,
    tags: Vec<Reference>,
    tell: mpsc::Sender<Told<ImageInfo>>,
    progress: Progress,
    image: Option<String>,
}

impl Build {
    async fn run(
        mut self,
        context: Context,
        options: BuildImageOptions,
        session: Option<String>,
        sent: Arc<AtomicU64>,
    ) -> Result<ImageInfo, ApiError> {
        let (reader, writer) = tokio::io::duplex(PIPE);
        let trouble: Arc<Mutex<Option<std::io::Error>>> = Arc::default();
        let noted = trouble.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(cause) = context.pack(SyncIoBridge::new(writer)) {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
            }
        });
        let watched = trouble.clone();
        let body = ReaderStream::with_capacity(reader, PIPE)
            .map(move |piece| {
                sent.fetch_add(piece.as_ref().map_or(0, |piece| piece.len() as u64), Ordering::Relaxed);
                piece
            })
            // An archive that broke off must not look like one that is complete.
            .chain(futures_util::stream::iter([()]).filter_map(move |()| {
                let broken = watched.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                async move { broken.then(|| Err(std::io::Error::other("the build context could not be read"))) }
            }));
        let client = client(&self.engine, session.clone());
        let options = BuildImageOptions { session, version: BuilderVersion::BuilderV1, ..options };
        let mut stream = client.build_image(options, None, Some(bollard::body_try_stream(body)));
        while let Some(told) = stream.next().await {
            let told = match told {
                Ok(told) => told,
                Err(cause) => {
                    let unreadable = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Err(self.failed(&cause, unreadable.as_ref()));
                }
            };
            if let Some(detail) = told.error_detail {
                return Err(self.failure(detail.message.as_deref().unwrap_or_default()));
            }
            let mut text = told.stream.unwrap_or_default();
            self.progress.keep(&text);
            match told.aux {
                Some(BuildInfoAux::BuildKit(status)) => text += &self.progress.read(&status),
                Some(BuildInfoAux::Default(image)) => self.image = image.id.or(self.image),
                None => {}
            }
            if !text.is_empty() && self.tell.send(Told::Output(OutputStream::Stdout, text.into_bytes())).await.is_err()
            {
                return Err(error(ErrorKind::Cancelled, "nobody waits for the build any more"));
            }
        }
        self.finish().await
    }

    /// Gives the other names, and says what was made.
    async fn finish(self) -> Result<ImageInfo, ApiError> {
        let built = match (&self.image, self.tags.first()) {
            (Some(id), _) => Reference::parse(id)?,
            (None, Some(tag)) => tag.clone(),
            (None, None) => return Err(self.failure("the builder does not say what it made")),
        };
        for tag in self.tags.iter().skip(1) {
            images::tag(&self.engine, &built, tag).await?;
        }
        images::inspect(&self.engine, &built).await
    }

    fn failed(&self, cause: &bollard::errors::Error, unreadable: Option<&std::io::Error>) -> ApiError {
        match (unreadable, cause) {
            // The engine hung up first: why is in its own answer.
            (Some(unreadable), _) if unreadable.kind() != std::io::ErrorKind::BrokenPipe => error(
                ErrorKind::Failed,
                format!("cannot build `{}`: the context cannot be read: {unreadable}", self.what),
            ),
            (_, bollard::errors::Error::DockerStreamError { error }) => self.failure(error),
            _ => self.engine.failed(&format!("cannot build `{}`", self.what), cause),
        }
    }

    /// A failed build, with the last that its commands wrote.
    fn failure(&self, message: &str) -> ApiError {
        let last = self.progress.last_lines();
        // One line: it is shown in tables and sentences. The log has the output as it came.
        let lines: Vec<&str> = last.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let output =
            if lines.is_empty() { String::new() } else { format!("; the last output was: {}", lines.join(" | ")) };
        error(ErrorKind::Failed, format!("the build of `{}` failed: {}{output}", self.what, message.trim()))
    }
}

/// A client that asks for BuildKit. The library would then open a session of its own, which has no secrets to give: it is
/// told the old builder, and the request is corrected on its way.
fn client(engine: &Engine, session: Option<String>) -> bollard::Docker {
    let client = engine.client_within(PATIENT);
    if session.is_none() {
        return client;
    }
    client.with_request_modifier(|mut request| {
        let uri = request.uri().to_string().replace("&version=1&", "&version=2&");
        if let Ok(uri) = uri.parse() {
            *request.uri_mut() = uri;
        }
        request
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_is_used_is_told_from_one_that_is_offered() {
        assert!(mentions("COPY --from=tools a b", "tools"));
        assert!(mentions("RUN --mount=type=bind,from=tools,target=/t x", "tools"));
        assert!(mentions("from tools AS x", "tools"));
        assert!(!mentions("FROM debian\nRUN echo tools", "tools"));
    }

    #[test]
    fn sessions_have_ids_of_their_own() {
        assert_ne!(session_id(), session_id());
        assert_eq!(session_id().len(), 32);
    }
}
