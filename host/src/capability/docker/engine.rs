//! The way to the engine: which socket, one client for the invocation, and what its errors mean.
//!
//! An [`Engine`] is had for a permit only, and everything that acts is done through one: code that was not let through
//! the gate cannot reach the client. It must never run a program, and never fall back to another engine than the one named.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error as BollardError;
use maddock_bindings::api::types::ErrorKind;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Docker;
use crate::capability::gate::Permit;
use crate::capability::{ApiError, error, error_with_hint};
use crate::plugin::Environment;

/// How long calls that must not be lost (stop, remove, inspect, find) wait for an engine that restarts.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long one ordinary request may take until its answer begins.
const REQUEST: u64 = 120;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

const OTHER_WAY: &str = "or run without containers: `--target process`";

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `host:port`, without encryption.
    Tcp(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

impl Address {
    /// What the environment says: `DOCKER_HOST`, or the usual socket.
    pub(super) fn of(environment: &Environment) -> Result<Self, ApiError> {
        let Some(host) = environment.get("DOCKER_HOST").filter(|host| !host.is_empty()) else {
            return Ok(Self::Unix(DEFAULT_SOCKET.into()));
        };
        if let Some(path) = host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://"));
        if let Some(authority) = authority.map(|rest| rest.trim_end_matches('/')).filter(|rest| is_authority(rest)) {
            if environment.get("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()) {
                return Err(error_with_hint(
                    ErrorKind::Unsupported,
                    format!("`DOCKER_TLS_VERIFY` asks for encryption to `{host}`, which is not offered"),
                    "forward the engine's socket by ssh and name it: `DOCKER_HOST=unix:///path/of/socket`",
                ));
            }
            return Ok(Self::Tcp(authority.to_owned()));
        }
        Err(error_with_hint(
            ErrorKind::InvalidInput,
            format!("`DOCKER_HOST` is `{host}`, which is no address of a container engine"),
            "use `unix:///path/of/socket` or `tcp://host:port`",
        ))
    }

    /// Whether paths of this machine mean the same to the engine.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(authority) => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                matches!(host, "localhost" | "[::1]") || host.starts_with("127.")
            }
        }
    }
}

fn is_authority(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '[' | ']'))
}

/// The engine, connected to on first use.
#[derive(Debug, Default)]
pub struct Connection {
    opened: OnceCell<Engine>,
    recovered: OnceCell<()>,
}

impl Connection {
    /// Whether this invocation has spoken to the engine.
    pub(super) fn is_open(&self) -> bool {
        self.opened.initialized()
    }

    /// The engine, for a call that the gate allowed.
    pub(super) async fn open(&self, _permit: &Permit<Docker>, environment: &Environment) -> Result<Engine, ApiError> {
        self.opened.get_or_try_init(|| Engine::connect(environment)).await.cloned()
    }

    /// Does something once in the invocation; who comes meanwhile waits for it.
    pub(super) async fn recovered<A: Future<Output = ()>>(&self, recover: impl FnOnce() -> A) {
        self.recovered.get_or_init(recover).await;
    }
}

/// A connected engine. Cheap to clone; every request makes or borrows a connection of its own.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    client: bollard::Docker,
    /// Where it listens.
    pub(super) address: Address,
    /// Its own version, such as `20.10.24`.
    pub(super) version: String,
    /// `major.minor` of the API that both sides speak.
    pub(super) api_version: String,
}

impl Engine {
    async fn connect(environment: &Environment) -> Result<Self, ApiError> {
        let address = Address::of(environment)?;
        let trouble = |error: BollardError| unreachable_engine(&address, &error);
        let client = match &address {
            Address::Unix(_) => {
                bollard::Docker::connect_with_unix(&address.to_string(), REQUEST, bollard::API_DEFAULT_VERSION)
            }
            Address::Tcp(_) => {
                bollard::Docker::connect_with_http(&address.to_string(), REQUEST, bollard::API_DEFAULT_VERSION)
            }
        }
        .map_err(trouble)?;
        let client = client.negotiate_version().await.map_err(trouble)?.with_request_modifier(|mut request| {
            for name in ["x-registry-auth", "x-registry-config"] {
                if let Some(value) = request.headers_mut().get_mut(name)
                    && let Ok(safe) = url_safe(value.to_str().unwrap_or_default()).parse()
                {
                    *value = safe;
                    value.set_sensitive(true);
                }
            }
            request
        });
        let version = client.version().await.map_err(trouble)?.version.unwrap_or_default();
        let spoken = client.client_version();
        let api_version = format!("{}.{}", spoken.major_version, spoken.minor_version);
        Ok(Self { client, address, version, api_version })
    }

    /// The client.
    pub(super) fn client(&self) -> &bollard::Docker {
        &self.client
    }

    /// The client with another limit on the time until an answer begins.
    pub(super) fn client_within(&self, limit: Duration) -> bollard::Docker {
        self.client.clone().with_timeout(limit)
    }

    /// The error of a request, in a sentence about what was being done.
    pub(super) fn failed(&self, doing: &str, error: &BollardError) -> ApiError {
        match io_kind(error) {
            Some(_) => {
                let mut lost = unreachable_engine(&self.address, error);
                lost.message = format!("{doing}: {}", lost.message);
                lost
            }
            None => translate(doing, error),
        }
    }
}

/// The engine decodes the login header with the URL-safe alphabet, the client writes the other one: without this, a
/// password with `?`, `>` or `~` in the wrong place would silently not log in.
fn url_safe(encoded: &str) -> String {
    encoded.replace('+', "-").replace('/', "_")
}

/// The first I/O error in the chain: the connection is at fault, not the request.
fn io_kind(error: &BollardError) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = current.source();
    }
    match error {
        // Transparent errors are not part of their own chain.
        BollardError::IOError { err } => Some(err.kind()),
        BollardError::SocketNotFoundError(_) => Some(io::ErrorKind::NotFound),
        BollardError::HyperResponseError { .. } | BollardError::HyperLegacyError { .. } => {
            Some(io::ErrorKind::BrokenPipe)
        }
        _ => None,
    }
}

fn unreachable_engine(address: &Address, error: &BollardError) -> ApiError {
    let Some(kind) = io_kind(error) else {
        return translate(&format!("the container engine at `{address}` does not answer as one"), error);
    };
    let (why, hint) = match kind {
        io::ErrorKind::PermissionDenied => (
            "this user may not use it".to_owned(),
            format!("add the user to the group that owns the socket (usually `docker`) and log in again, {OTHER_WAY}"),
        ),
        io::ErrorKind::NotFound => (
            "there is no such socket".to_owned(),
            format!("start the container engine, name its socket in `DOCKER_HOST`, {OTHER_WAY}"),
        ),
        io::ErrorKind::ConnectionRefused => (
            "nobody listens there".to_owned(),
            format!("start the container engine, name its socket in `DOCKER_HOST`, {OTHER_WAY}"),
        ),
        _ => (innermost(error), format!("see whether the container engine is running, {OTHER_WAY}")),
    };
    error_with_hint(
        ErrorKind::Unavailable,
        format!("the container engine at `{address}` cannot be reached: {why}"),
        hint,
    )
}

fn innermost(error: &BollardError) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn translate(doing: &str, error: &BollardError) -> ApiError {
    let (kind, message) = match error {
        BollardError::DockerResponseServerError { status_code, message } => {
            (kind_of_status(*status_code), message.trim().to_owned())
        }
        BollardError::DockerStreamError { error } => (ErrorKind::Failed, error.trim().to_owned()),
        BollardError::RequestTimeoutError => (ErrorKind::TimedOut, "the engine did not answer in time".to_owned()),
        other => (ErrorKind::Failed, other.to_string()),
    };
    self::error(kind, format!("{doing}: {message}"))
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        400 => ErrorKind::InvalidInput,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        501 => ErrorKind::Unsupported,
        502..=504 => ErrorKind::Unavailable,
        _ => ErrorKind::Failed,
    }
}

/// Does it again while the engine cannot be reached, up to a limit: for calls that can be repeated and must not be lost.
pub(in crate::capability) async fn patiently<T, F, A>(limit: Duration, mut attempt: F) -> Result<T, ApiError>
where
    F: FnMut() -> A,
    A: Future<Output = Result<T, ApiError>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(100);
    loop {
        match attempt().await {
            Err(error) if matches!(error.kind, ErrorKind::Unavailable) && Instant::now() + pause < deadline => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(host: &str) -> Environment {
        [("DOCKER_HOST".to_owned(), host.to_owned())].into_iter().collect()
    }

    #[test]
    fn the_address_comes_from_the_invoking_environment() {
        assert_eq!(Address::of(&Environment::default()).unwrap(), Address::Unix("/var/run/docker.sock".into()));
        assert_eq!(
            Address::of(&environment("unix:///run/user/7/podman.sock")).unwrap(),
            Address::Unix("/run/user/7/podman.sock".into())
        );
        assert_eq!(Address::of(&environment("tcp://10.0.0.7:2375")).unwrap(), Address::Tcp("10.0.0.7:2375".into()));
        for wrong in ["ssh://host", "unix://relative", "tcp://", "tcp://host:1/x?y", "nonsense"] {
            assert!(matches!(Address::of(&environment(wrong)).unwrap_err().kind, ErrorKind::InvalidInput), "{wrong}");
        }
    }

    #[test]
    fn encryption_that_was_asked_for_is_never_left_out_silently() {
        let asked: Environment = [("DOCKER_HOST", "tcp://h:2376"), ("DOCKER_TLS_VERIFY", "1")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into_iter()
            .collect();
        assert!(matches!(Address::of(&asked).unwrap_err().kind, ErrorKind::Unsupported));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named_with_what_to_do() {
        let error = Engine::connect(&environment("unix:///nowhere/engine.sock")).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Unavailable));
        assert!(error.message.contains("`unix:///nowhere/engine.sock`"), "{}", error.message);
        assert!(error.hint.unwrap().contains("--target process"));
    }

    #[test]
    fn a_login_header_is_written_in_the_alphabet_that_the_engine_reads() {
        assert_eq!(url_safe("a+b/c="), "a-b_c=");
    }
}
