//! A builder's session: the connection by which the builder asks this host back for secrets and for logins.
//!
//! It answers what the build was given and nothing else; whatever a Dockerfile asks for, no file and no variable of this
//! machine is read.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bollard::health::health_check_response::ServingStatus;
use bollard::health::health_server::{Health, HealthServer};
use bollard::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use futures_util::StreamExt;
use maddock_bindings::api::types::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tonic::{Request, Response, Status};

use super::engine::{Address, Engine};
use crate::capability::{ApiError, error};

/// Bytes that an answer to the upgrade may have before its body.
const HEAD: usize = 16 << 10;

/// Methods that the builder is told of. The ones for tokens are left out: it then logs in by itself.
const METHODS: [&str; 2] = ["/moby.buildkit.secrets.v1.Secrets/GetSecret", "/moby.filesync.v1.Auth/Credentials"];

/// What a build may ask for. No `Debug`: these are secrets.
#[derive(Default)]
pub(super) struct Given {
    /// By the id in the Dockerfile.
    pub(super) secrets: HashMap<String, Vec<u8>>,
    /// By the registry's host: name and password.
    pub(super) logins: HashMap<String, (String, String)>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open session.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    given: Arc<Given>,
}

impl Session {
    /// Opens a session under an id. `None`: the engine has no sessions, and so no such builder.
    pub(super) async fn open(engine: &Engine, id: &str, given: Given) -> Result<Option<Self>, ApiError> {
        let trouble = |cause: io::Error| {
            error(ErrorKind::Unavailable, format!("cannot open a build session with `{}`: {cause}", engine.address))
        };
        let mut stream: Box<dyn Stream> = match &engine.address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(trouble)?),
            Address::Tcp(authority) => Box::new(TcpStream::connect(authority).await.map_err(trouble)?),
        };
        stream.write_all(upgrade(&engine.api_version, id).as_bytes()).await.map_err(trouble)?;
        match status(&mut stream).await.map_err(trouble)? {
            101 => Ok(Some(Self { stream, given: Arc::new(given) })),
            404 | 405 => Ok(None),
            other => Err(error(
                ErrorKind::Failed,
                format!("the engine does not open a build session: it answers with status {other}"),
            )),
        }
    }

    /// Answers the builder until it hangs up. Dropping the future hangs up.
    pub(super) async fn serve(mut self) {
        // The server's own tasks would outlive this one; they end when this side of the pipe does.
        let (mut inner, outer) = tokio::io::duplex(64 << 10);
        let incoming =
            futures_util::stream::once(async { Ok::<_, io::Error>(outer) }).chain(futures_util::stream::pending());
        let server = tonic::transport::Server::builder()
            .add_service(HealthServer::new(Answers(self.given.clone())))
            .add_service(AuthServer::new(Answers(self.given.clone())))
            .add_service(SecretsServer::new(Answers(self.given.clone())))
            .serve_with_incoming(incoming);
        tokio::select! {
            _ = server => {}
            _ = tokio::io::copy_bidirectional(&mut self.stream, &mut inner) => {}
        }
    }
}

/// The one request that is spelt out by hand, for the client cannot hand its connection over. `id` is of this host's making.
fn upgrade(api_version: &str, id: &str) -> String {
    let methods: String = METHODS.map(|method| format!("X-Docker-Expose-Session-Grpc-Method: {method}\r\n")).concat();
    format!(
        "POST /v{api_version}/session HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\
         X-Docker-Expose-Session-Uuid: {id}\r\nX-Docker-Expose-Session-Name: maddock\r\n{methods}\r\n"
    )
}

/// Reads an answer up to its empty line and not a byte more: after it another protocol begins.
async fn status(stream: &mut (dyn Stream + 'static)) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let code = head.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

#[derive(Clone)]
struct Answers(Arc<Given>);

#[tonic::async_trait]
impl Secrets for Answers {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        match self.0.secrets.get(id) {
            Some(data) => Ok(Response::new(GetSecretResponse { data: data.clone() })),
            None => Err(Status::not_found(format!("secret {id} was not given to this build"))),
        }
    }
}

#[tonic::async_trait]
impl Auth for Answers {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let (username, secret) = self.0.logins.get(&request.get_ref().host).cloned().unwrap_or_default();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("tokens are fetched by the builder"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("tokens are fetched by the builder"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("tokens are fetched by the builder"))
    }
}

#[tonic::async_trait]
impl Health for Answers {
    type WatchStream = futures_util::stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("there is one service"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask again"))
    }
}
