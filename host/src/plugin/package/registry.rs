//! Plugins in OCI registries, in the form in which components are usually kept there: a manifest whose one layer of the type
//! `application/wasm` is the component. Its signature, where there is one, is a second layer.
//!
//! Nothing that a registry says is believed: the manifest must have the digest that was asked for, each layer the digest and
//! size that the manifest gives it, and what arrives is judged like a file.

use std::str::FromStr;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::StreamExt;
use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciDescriptor, OciImageManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use serde_json::json;

use super::source::Candidate;
use super::{LARGEST_COMPONENT, PackageError, Result, digest_of, is_digest};
use crate::plugin::manifest::Manifest;

/// How places in registries begin.
pub const SCHEME: &str = "oci://";
const COMPONENT: &str = "application/wasm";
/// What tools made before that.
const COMPONENT_BEFORE: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// Whatever is there, so that the registry does not make something else of it.
const ANY_MANIFEST: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const SIGNATURE: &str = "application/vnd.maddock.plugin.signature.v1";
/// Signatures are far smaller.
const LARGEST_SIGNATURE: u64 = 64 << 10;
const CONNECTING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);
const ALTOGETHER: Duration = Duration::from_secs(900);

/// A place in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    reference: Reference,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SCHEME}{}", self.reference.whole())
    }
}

impl Place {
    /// Reads `oci://REGISTRY/REPOSITORY[:TAG][@sha256:…]`. Nothing is made up: registry and tag (or digest) are said.
    ///
    /// # Errors
    /// A sentence and an example.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            PackageError::new(format!("`{text}`: {why}"))
                .hint("such as oci://registry.example.com/plugins/hello:0.1.0, or …@sha256:…")
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with `oci://`"))?;
        let (registry, _) = rest.split_once('/').ok_or_else(|| wrong("it names no registry"))?;
        if !(registry.contains(['.', ':']) || registry == "localhost") {
            return Err(wrong("it names no registry"));
        }
        let reference = Reference::from_str(rest).map_err(|error| wrong(&error.to_string()))?;
        let last = rest.rsplit('/').next().unwrap_or_default();
        if reference.digest().is_none() && !last.contains(':') {
            return Err(wrong("it has neither tag nor digest"));
        }
        if reference.digest().is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("its digest is not of the form sha256:…"));
        }
        Ok(Self { reference })
    }

    /// Where newer versions would be: the same without the digest, where there is a tag to follow.
    #[must_use]
    pub fn newer(&self) -> Self {
        match self.reference.tag() {
            Some(tag) => {
                let (registry, repository) = (self.reference.registry(), self.reference.repository());
                let reference = Reference::with_tag(registry.to_owned(), repository.to_owned(), tag.to_owned());
                Self { reference }
            }
            None => self.clone(),
        }
    }

    fn at(&self, digest: &str) -> Self {
        let (registry, repository) = (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        let digest = digest.to_owned();
        let reference = match self.reference.tag() {
            Some(tag) => Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest),
            None => Reference::with_digest(registry, repository, digest),
        };
        Self { reference }
    }

    /// Whether it is on this machine, where nobody listens in.
    fn is_local(&self) -> bool {
        let registry = self.reference.registry();
        let host = match registry.rsplit_once(':') {
            Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
            _ => registry,
        };
        host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    }
}

/// A connection to the registry of a place.
struct Connection<'a> {
    place: &'a Place,
    client: Client,
    auth: RegistryAuth,
    /// Why no credentials were found, where somebody has set some up.
    without: Option<String>,
}

/// Gets a plugin.
///
/// # Errors
/// The registry does not answer, refuses, or answers something else than was asked for.
pub async fn pull(place: &Place, plain_http: bool) -> Result<Candidate> {
    within(place, async {
        let connection = Connection::new(place, plain_http).await?;
        connection.authorise(RegistryOperation::Pull).await?;
        connection.pull().await
    })
    .await
}

/// Puts a plugin and its signature there; answers the place with its digest.
///
/// # Errors
/// It is no plugin; the registry does not answer, or refuses.
pub async fn push(place: &Place, bytes: Vec<u8>, signature: Option<String>, plain_http: bool) -> Result<Place> {
    if place.reference.digest().is_some() {
        return Err(PackageError::new(format!("`{place}`: what is pushed has the digest it has"))
            .hint("name a tag, and nothing after it"));
    }
    let manifest =
        Manifest::of_component(&bytes).map_err(|message| PackageError::new(format!("it is no plugin: {message}")))?;
    within(place, async {
        let connection = Connection::new(place, plain_http).await?;
        connection.authorise(RegistryOperation::Push).await?;
        connection.push(&manifest, bytes, signature).await
    })
    .await
}

async fn within<T>(place: &Place, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(ALTOGETHER, work)
        .await
        .unwrap_or_else(|_| Err(PackageError::new(format!("`{place}`: it took more than {} s", ALTOGETHER.as_secs()))))
}

impl<'a> Connection<'a> {
    async fn new(place: &'a Place, plain_http: bool) -> Result<Self> {
        // Fails where there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = if plain_http || place.is_local() { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECTING),
            read_timeout: Some(SILENCE),
            user_agent: concat!("maddock/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)
            .map_err(|error| PackageError::new(format!("cannot make a connection: {}", causes(&error))))?;
        let (auth, without) = credentials(place.reference.registry()).await;
        Ok(Self { place, client, auth, without })
    }

    async fn authorise(&self, operation: RegistryOperation) -> Result<()> {
        let answer = self.client.auth(&self.place.reference, &self.auth, operation).await;
        answer.map(|_| ()).map_err(|error| self.failed(&error))
    }

    async fn pull(&self) -> Result<Candidate> {
        let (manifest, digest) = self.manifest().await?;
        let place = self.place.at(&digest);
        let wrong = |why: String| PackageError::new(format!("`{place}`: {why}"));
        let of = |kinds: &[&str]| -> Vec<&OciDescriptor> {
            manifest.layers.iter().filter(|layer| kinds.contains(&layer.media_type.as_str())).collect()
        };
        let component = match of(&[COMPONENT, COMPONENT_BEFORE])[..] {
            [only] => only,
            [] => return Err(wrong(format!("it is no plugin: it has no layer of the type {COMPONENT}"))),
            _ => return Err(wrong("it has several components".to_owned())),
        };
        let signature = match of(&[SIGNATURE])[..] {
            [] => None,
            [only] => Some(only),
            _ => return Err(wrong("it has several signatures".to_owned())),
        };
        let bytes = self.layer(component, LARGEST_COMPONENT).await?;
        let signature = match signature {
            None => None,
            Some(layer) => {
                let text = String::from_utf8(self.layer(layer, LARGEST_SIGNATURE).await?);
                Some(text.map_err(|_| wrong("its signature is not text".to_owned()))?)
            }
        };
        Ok(Candidate { bytes, signature, source: place.to_string() })
    }

    /// The manifest, with the digest that it has. That it is the one that was asked for, the client sees to.
    async fn manifest(&self) -> Result<(OciImageManifest, String)> {
        let reference = &self.place.reference;
        let (bytes, _) = self
            .client
            .pull_manifest_raw(reference, &self.auth, &ANY_MANIFEST)
            .await
            .map_err(|error| self.failed(&error))?;
        let digest = digest_of(&bytes);
        let manifest = serde_json::from_slice(&bytes).map_err(|error| {
            PackageError::new(format!("`{}`: it is no plugin: no manifest of one artifact: {error}", self.place))
        })?;
        Ok((manifest, digest))
    }

    /// A layer, of the size that the manifest says; that it has the digest, the client sees to.
    async fn layer(&self, layer: &OciDescriptor, limit: u64) -> Result<Vec<u8>> {
        let wrong = |why: String| PackageError::new(format!("`{}`: layer {}: {why}", self.place, layer.digest));
        if !is_digest(&layer.digest) {
            return Err(wrong("its digest is not of the form sha256:…".to_owned()));
        }
        let size = u64::try_from(layer.size).unwrap_or(u64::MAX);
        if size > limit {
            return Err(wrong(format!("it is larger than {limit} bytes")));
        }
        // Of the descriptor only the digest: other addresses that it may name are not asked.
        let asked = OciDescriptor { digest: layer.digest.clone(), ..OciDescriptor::default() };
        let mut stream = self
            .client
            .pull_blob_stream(&self.place.reference, &asked)
            .await
            .map_err(|error| self.failed(&error))?
            .stream;
        let mut bytes = Vec::new();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| wrong(format!("it did not arrive as it should: {}", causes(&error))))?;
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > size {
                return Err(wrong(format!("more than the {size} bytes came that its manifest says")));
            }
        }
        if bytes.len() as u64 != size {
            return Err(wrong(format!("{} bytes came, and its manifest says {size}", bytes.len())));
        }
        Ok(bytes)
    }

    async fn push(&self, plugin: &Manifest, bytes: Vec<u8>, signature: Option<String>) -> Result<Place> {
        // Nothing in it is of the day, so that the same plugin has the same digest everywhere.
        let config = json!({"architecture": "wasm", "os": "wasip2", "layerDigests": [digest_of(&bytes)]}).to_string();
        let config = Config::new(config.into_bytes(), CONFIG.to_owned(), None);
        let title = |name: &str| [("org.opencontainers.image.title".to_owned(), name.to_owned())].into();
        let file = format!("{}.wasm", plugin.name);
        let mut layers = vec![ImageLayer::new(bytes, COMPONENT.to_owned(), Some(title(&file)))];
        if let Some(signature) = signature {
            let signed =
                ImageLayer::new(signature.into_bytes(), SIGNATURE.to_owned(), Some(title(&format!("{file}.sig"))));
            layers.push(signed);
        }
        let annotations = [
            ("org.opencontainers.image.title".to_owned(), plugin.name.clone()),
            ("org.opencontainers.image.version".to_owned(), plugin.version.clone()),
            ("org.opencontainers.image.description".to_owned(), plugin.description.clone()),
        ];
        let manifest = OciImageManifest::build(&layers, &config, Some(annotations.into()));
        let digests: Vec<String> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        self.client
            .push(&self.place.reference, &layers, config, &self.auth, Some(manifest))
            .await
            .map_err(|error| self.failed(&error))?;
        // What counts is what others get.
        let (there, digest) = self.manifest().await?;
        if there.layers.iter().map(|layer| &layer.digest).ne(&digests) {
            return Err(PackageError::new(format!("`{}`: something else is there than was pushed", self.place))
                .hint("somebody else may have pushed at the same time: do it again"));
        }
        Ok(self.place.at(&digest))
    }

    fn failed(&self, error: &OciDistributionError) -> PackageError {
        let place = self.place;
        let told = |why: String| PackageError::new(format!("`{place}`: {why}"));
        let login = || match &self.without {
            Some(why) => format!("no credentials could be had: {why}"),
            None => "credentials come from where container tools keep them after their `login`".to_owned(),
        };
        match error {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                told("the registry refuses it to whoever is not logged in, or has not the right to it".to_owned())
                    .hint(login())
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes: Vec<&OciErrorCode> = envelope.errors.iter().map(|error| &error.code).collect();
                match codes.first() {
                    Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound) => {
                        told("there is no such thing in the registry".to_owned())
                    }
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
                        told("the registry refuses it".to_owned()).hint(login())
                    }
                    _ => told(causes(error)),
                }
            }
            OciDistributionError::ImageManifestNotFoundError(_) => {
                told("there is no such thing in the registry".to_owned())
            }
            OciDistributionError::RequestError(_) if !place.is_local() => {
                told(causes(error)).hint("a registry without TLS is spoken to only with `--plain-http`")
            }
            OciDistributionError::DigestError(_) => told(format!("it did not arrive as it should: {}", causes(error))),
            _ => told(causes(error)),
        }
    }
}

/// An error with what it came from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// What container tools have kept for a registry after a login; and why there is none, where that was not the plan.
async fn credentials(registry: &str) -> (RegistryAuth, Option<String>) {
    let registry = registry.to_owned();
    // It may start a program that the user's configuration names.
    let found = tokio::time::timeout(SILENCE, tokio::task::spawn_blocking(move || kept_for(&registry))).await;
    match found {
        Ok(Ok(Ok(DockerCredential::UsernamePassword(user, password)))) => (RegistryAuth::Basic(user, password), None),
        Ok(Ok(Ok(DockerCredential::IdentityToken(_)))) => {
            (RegistryAuth::Anonymous, Some("an identity token is kept, which is of no use here".to_owned()))
        }
        Ok(Ok(Err(
            CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError
            | CredentialRetrievalError::NoCredentialConfigured,
        ))) => (RegistryAuth::Anonymous, None),
        // What a helper program said may hold what nobody should read.
        Ok(Ok(Err(CredentialRetrievalError::HelperFailure { helper, .. }))) => {
            (RegistryAuth::Anonymous, Some(format!("the credential helper `{helper}` failed")))
        }
        Ok(Ok(Err(error))) => (RegistryAuth::Anonymous, Some(error.to_string())),
        Ok(Err(_)) | Err(_) => (RegistryAuth::Anonymous, Some("the credential helper did not answer".to_owned())),
    }
}

fn kept_for(registry: &str) -> std::result::Result<DockerCredential, CredentialRetrievalError> {
    let mut others: Vec<std::path::PathBuf> = Vec::new();
    others.extend(std::env::var_os("REGISTRY_AUTH_FILE").map(Into::into));
    for (variable, rest) in [("XDG_RUNTIME_DIR", "containers/auth.json"), ("HOME", ".config/containers/auth.json")] {
        others.extend(std::env::var_os(variable).map(|directory| std::path::Path::new(&directory).join(rest)));
    }
    let mut answer = docker_credential::get_credential(registry);
    for file in others {
        if answer.is_ok() {
            break;
        }
        if let Ok(file) = std::fs::File::open(file)
            && let found @ Ok(_) =
                docker_credential::get_credential_from_reader(std::io::BufReader::new(file), registry)
        {
            answer = found;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_its_registry_and_which_of_its_artifacts() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for text in [
            "oci://registry.example.com/plugins/hello:0.1.0".to_owned(),
            "oci://localhost:5000/hello:1".to_owned(),
            "oci://localhost/hello:1".to_owned(),
            format!("oci://localhost:5000/hello@{digest}"),
            format!("oci://localhost:5000/hello:1@{digest}"),
        ] {
            assert_eq!(Place::parse(&text).unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("registry.example.com/x:1", "does not begin with"),
            ("oci://hello:1", "names no registry"),
            ("oci://plugins/hello:1", "names no registry"),
            ("oci://localhost:5000/hello", "neither tag nor digest"),
            ("oci://localhost:5000/Hello:1", "invalid reference"),
            ("oci://localhost:5000/hello@sha256:0", "invalid reference"),
            ("oci://localhost:5000/../hello:1", "invalid reference"),
        ] {
            let error = Place::parse(text).unwrap_err();
            assert!(error.message.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_update_follows_the_tag_where_there_is_one() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let newer = |text: String| Place::parse(&text).unwrap().newer().to_string();
        assert_eq!(newer(format!("oci://localhost:5000/hello:1@{digest}")), "oci://localhost:5000/hello:1");
        let pinned = format!("oci://localhost:5000/hello@{digest}");
        assert_eq!(newer(pinned.clone()), pinned);
    }

    #[test]
    fn plain_http_by_itself_is_for_this_machine_only() {
        let local = |registry: &str| Place::parse(&format!("oci://{registry}/x:1")).unwrap().is_local();
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9"] {
            assert!(local(registry), "{registry}");
        }
        for registry in ["localhost.example.com", "10.0.0.1:5000", "registry.example.com", "127.0.0.1.example.com:80"] {
            assert!(!local(registry), "{registry}");
        }
    }
}
