//! Builds images of models from the Dockerfiles of a MAD tree.
//!
//! Planning reads the tree; building and pushing go by the engine's interface. A secret's value is never here, and its name is
//! all that logs, plans and manifests can show.

use std::time::{Duration, Instant};

use maddock_sdk::builder::{BuildPlan, BuildRequest, Built, Guest, ImagePlan, Pushed};
use maddock_sdk::docker::{self, BuildEvent, BuildSpec, ImageInfo};
use maddock_sdk::events::{self, Level};
use maddock_sdk::files::{self, FileKind};
use maddock_sdk::registry::{key_of, login, registry_of};
use maddock_sdk::serde_json::{Map, Value, json};
use maddock_sdk::types::{Card, Entry, ErrorKind, Image, OutputStream};
use maddock_sdk::{Result, failed, invalid, secrets};

mod dockerfile;
mod literal;
mod names;
mod plan;

use plan::{Details, Tree, about, absolute};

/// A Dockerfile is a text for people; a longer one is none.
const DOCKERFILE_LIMIT: u64 = 4 << 20;
/// How long one wait for the builder's output takes at most. A build as a whole may take as long as it needs.
const WAIT_MS: u32 = 10_000;

/// The tree as the `files` interface shows it.
struct Shown<'a> {
    tree: &'a str,
}

impl Tree for Shown<'_> {
    fn files(&self, directory: &str) -> Result<Vec<String>> {
        let path = absolute(self.tree, directory);
        if !self.has_directory(directory)? {
            return Ok(Vec::new());
        }
        let entries = files::list_directory(&path)?;
        Ok(entries.into_iter().filter(|entry| entry.kind == FileKind::File).map(|entry| entry.name).collect())
    }

    fn read(&self, path: &str) -> Result<String> {
        let bytes = files::read(&absolute(self.tree, path), DOCKERFILE_LIMIT)?;
        String::from_utf8(bytes).map_err(|_| invalid(format!("`{path}` is not UTF-8 text")))
    }

    fn has_directory(&self, path: &str) -> Result<bool> {
        Ok(files::stat(&absolute(self.tree, path))?.is_some_and(|info| info.kind == FileKind::Directory))
    }

    fn secret_members(&self, name: &str) -> Vec<String> {
        secrets::members(name).unwrap_or_default()
    }
}

fn spec(request: &BuildRequest, image: &ImagePlan, details: &Details) -> Result<BuildSpec> {
    let entry = |name: &str, value: String| Entry { name: name.to_owned(), value };
    let tools = details.tools.then(|| entry("tools", absolute(&request.tree, "docker/common")));
    Ok(BuildSpec {
        directory: absolute(&request.tree, &details.context),
        dockerfile: absolute(&request.tree, &details.dockerfile),
        tags: vec![image.key.clone()],
        arguments: details.variables(&plan::context(request)?)?,
        contexts: tools.into_iter().collect(),
        no_cache: request.no_cache,
        pull: true,
        network: "host".to_owned(),
        labels: Vec::new(),
        secrets: details.secrets.iter().map(|(id, name)| entry(id, name.clone())).collect(),
        extra: Vec::new(),
    })
}

/// Runs a build to its end, telling its output.
fn build(spec: &BuildSpec) -> Result<ImageInfo> {
    let build = docker::build_image(spec)?;
    loop {
        match build.next_event(WAIT_MS)? {
            BuildEvent::Output(bytes) => events::output(0, OutputStream::Stdout, &bytes),
            BuildEvent::Finished(info) => return Ok(info),
            BuildEvent::Timeout => {}
        }
    }
}

/// What the base is in its registry now; empty where that cannot be known.
fn base_digest(base: &str) -> String {
    if base.is_empty() {
        return String::new();
    }
    docker::registry_digest(base, login(registry_of(base)).as_deref()).unwrap_or_else(|error| {
        let message = format!("the digest of base image `{base}` is not known: {}", error.message);
        events::log(Level::Warning, &message, &[]);
        String::new()
    })
}

/// Seconds with milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The members of the manifest's entry, in upstream's order.
fn manifest_entry(image: &ImagePlan, details: &Details, sha: &str, duration: f64, digest: &str) -> Value {
    let mut entry = Map::new();
    entry.insert("model".to_owned(), json!(image.model));
    entry.insert("docker_image".to_owned(), json!(image.key));
    entry.insert("dockerfile".to_owned(), json!(details.dockerfile));
    entry.insert("base_docker".to_owned(), json!(details.base));
    entry.insert("docker_sha".to_owned(), json!(sha));
    entry.insert("build_duration".to_owned(), json!(duration));
    entry.insert("build_command".to_owned(), json!(details.command));
    entry.insert("log_file".to_owned(), json!(image.log_file));
    entry.insert("gpu_vendor".to_owned(), json!(details.gpu_vendor));
    if let Some(architecture) = &details.gpu_architecture {
        entry.insert("gpu_architecture".to_owned(), json!(architecture));
    }
    entry.insert("image_digest".to_owned(), json!(digest));
    Value::Object(entry)
}

fn extra<'a>(request: &'a BuildRequest, name: &str) -> Option<&'a str> {
    let found = request.extra.iter().find(|entry| entry.name == name);
    found.map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
}

/// Where an image goes. `repository:KEY` and `registry_image/<model>` are what the kernel may add to a request: the repository
/// of the registry's credentials, and the name that a batch entry gives, which images for one architecture of many ignore.
fn destination(request: &BuildRequest, image: &ImagePlan) -> Result<String> {
    let registry = request.registry.as_deref().filter(|registry| !registry.is_empty()).ok_or_else(|| {
        invalid(format!("image `{}` is to be pushed and no registry was named", image.key))
            .hint("name one by `--registry`")
    })?;
    let named = extra(request, &format!("registry_image/{}", image.model)).filter(|_| image.architecture.is_none());
    Ok(named.map_or_else(
        || names::pushed(&image.key, registry, extra(request, &format!("repository:{}", key_of(registry)))),
        str::to_owned,
    ))
}

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn context_keys(tree: String, cards: Vec<Card>) -> Result<Vec<String>> {
        plan::context_keys(&cards, &Shown { tree: &tree })
    }

    fn plan_images(request: BuildRequest) -> Result<BuildPlan> {
        plan::plan(&request, &Shown { tree: &request.tree })
    }

    fn build_image(request: BuildRequest, image: ImagePlan) -> Result<Built> {
        let details = Details::read(&image.details)?;
        let spec = spec(&request, &image, &details)?;
        events::output(0, OutputStream::Stdout, format!("{}\n", details.command).as_bytes());
        let started = Instant::now();
        let info = build(&spec).map_err(|error| about(error, &image.key))?;
        let duration = seconds(started.elapsed());
        let sha = base_digest(&details.base);
        Ok(Built {
            manifest_entry: manifest_entry(&image, &details, &sha, duration, &info.id).to_string(),
            image: Image { reference: image.key, digest: Some(info.id), registry_reference: None, local: false },
            duration,
        })
    }

    fn push_image(request: BuildRequest, image: ImagePlan, _built: Built) -> Result<Pushed> {
        let reference = destination(&request, &image)?;
        let registry = request.registry.unwrap_or_default();
        if reference != image.key {
            docker::tag_image(&image.key, &reference).map_err(|error| about(error, &image.key))?;
        }
        events::progress("push", None, None, "");
        let login = login(&registry);
        let digest = docker::push_image(&reference, login.as_deref()).map_err(|error| {
            let error = about(error, &image.key);
            if login.is_none() && error.kind != ErrorKind::Denied {
                error.hint(format!("there are no credentials for `{registry}`: add them to `credential.json`"))
            } else {
                error
            }
        })?;
        if digest.is_empty() {
            return Err(failed(format!("registry `{registry}` took `{reference}` and named no digest")));
        }
        Ok(Pushed { registry_reference: reference, digest })
    }
}

maddock_sdk::manifest!("plugin.json");
// Names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::builder::export!(Plugin with_types_in maddock_sdk::builder);

#[cfg(test)]
mod tests {
    use maddock_sdk::types::WorkPlan;

    use super::*;

    fn image() -> ImagePlan {
        ImagePlan {
            key: "ci-m".into(),
            model: "m".into(),
            log_file: "m.build.live.log".into(),
            architecture: None,
            plan: WorkPlan { steps: Vec::new(), artefacts: Vec::new(), warnings: Vec::new(), extra: Vec::new() },
            details: String::new(),
        }
    }

    fn details() -> Details {
        Details {
            dockerfile: "docker/m.Dockerfile".into(),
            context: "docker".into(),
            tools: true,
            arguments: Vec::new(),
            secrets: vec![("ID".into(), "credential/K/x".into())],
            base: "b".into(),
            gpu_vendor: "AMD".into(),
            gpu_architecture: None,
            command: "docker build".into(),
        }
    }

    fn request(registry: Option<&str>, extra: &[(&str, &str)]) -> BuildRequest {
        BuildRequest {
            run_id: "r".into(),
            tree: "/mad".into(),
            cards: Vec::new(),
            context: "{}".into(),
            architectures: Vec::new(),
            no_cache: true,
            registry: registry.map(str::to_owned),
            log_directory: "/r".into(),
            extra: extra.iter().map(|(name, value)| Entry { name: (*name).into(), value: (*value).into() }).collect(),
        }
    }

    #[test]
    fn the_manifest_entry_has_upstreams_members_in_order() {
        let mut details = details();
        let members = |details: &Details| {
            let entry = manifest_entry(&image(), details, "sha256:1", 1.5, "sha256:2");
            entry.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let plain =
            "model docker_image dockerfile base_docker docker_sha build_duration build_command log_file gpu_vendor";
        assert_eq!(members(&details), format!("{plain} image_digest"));
        details.gpu_architecture = Some("gfx942".into());
        assert_eq!(members(&details), format!("{plain} gpu_architecture image_digest"));
    }

    #[test]
    fn a_build_has_absolute_paths_and_secrets_by_name() {
        let spec = spec(&request(None, &[]), &image(), &details()).unwrap();
        assert_eq!((spec.directory.as_str(), spec.dockerfile.as_str()), ("/mad/docker", "/mad/docker/m.Dockerfile"));
        assert_eq!(spec.contexts, [Entry { name: "tools".into(), value: "/mad/docker/common".into() }]);
        assert_eq!(spec.secrets, [Entry { name: "ID".into(), value: "credential/K/x".into() }]);
        assert!(spec.pull && spec.no_cache && spec.network == "host");
    }

    #[test]
    fn an_image_goes_where_registry_repository_and_batch_entry_say() {
        let to = |registry, extra: &[(&str, &str)], image: &ImagePlan| destination(&request(registry, extra), image);
        assert_eq!(to(Some("localhost:5000"), &[], &image()).unwrap(), "localhost:5000/ci-m");
        assert_eq!(to(Some("docker.io"), &[("repository:dockerhub", "me/r")], &image()).unwrap(), "me/r:ci-m");
        let batch = [("registry_image/m", "r/other:1")];
        assert_eq!(to(Some("r"), &batch, &image()).unwrap(), "r/other:1");
        let one_of_many = ImagePlan { architecture: Some("gfx90a".into()), ..image() };
        assert_eq!(to(Some("r"), &batch, &one_of_many).unwrap(), "r/ci-m");
        assert!(to(None, &[], &image()).is_err());
    }

    #[test]
    fn seconds_are_rounded_to_milliseconds() {
        assert!((seconds(Duration::from_micros(1_234_567)) - 1.235).abs() < 1e-9);
    }
}
