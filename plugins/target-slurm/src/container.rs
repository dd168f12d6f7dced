//! Jobs with an image: each node runs its share in a container, by maddock itself, which the batch script starts there.
//!
//! What the nodes read is one file: the job as the kernel wrote it, and the member `node` that is made here. Images go by
//! a registry, pinned by digest, or as an archive beside the job, known by id; either way no other image is run.

use maddock_sdk::docker;
use maddock_sdk::events::{self, Level};
use maddock_sdk::registry::{login, registry_of};
use maddock_sdk::serde_json::{self, Map, Value, json};
use maddock_sdk::target::Job;
use maddock_sdk::types::{Entry, EnvValue, EnvVar, ErrorKind, Image, Step};
use maddock_sdk::{Result, invalid, of, unsupported};

use crate::plan;
use crate::script;
use crate::section::Section;

/// Where the scheduler says which devices a job has on a node, most exact first: the first two count as the machine does,
/// the others may count what the job sees.
const DEVICES: [&str; 5] =
    ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"];
/// Variables by which a registry's login goes along.
const LOGIN: [(&str, &str); 2] = [("username", "MADDOCK_REGISTRY_USERNAME"), ("password", "MADDOCK_REGISTRY_PASSWORD")];

/// How an image gets to the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// Nodes pull it under this name.
    Registry(String),
    /// Nodes load this file.
    Archive(String),
    /// It is there.
    Present,
}

/// The job file and what goes with it.
#[derive(Debug, Clone)]
pub struct Share {
    /// The program that nodes run.
    pub program: String,
    /// How the image gets there.
    pub transfer: Transfer,
    image: Image,
    /// For the inner target, besides what goes with the image.
    extra: Vec<(&'static str, String)>,
    file: Map<String, Value>,
}

fn extra<'a>(job: &'a Job, name: &str) -> Option<&'a str> {
    job.extra.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str())
}

/// Which way, by the section's word and what is known of the image.
fn transfer(job: &Job, image: &Image, word: &str) -> Result<Transfer> {
    let registry = image.registry_reference.clone().filter(|name| !name.is_empty());
    let archive = || Transfer::Archive(format!("{}/image.tar", job.paths.directory));
    Ok(match (word, registry) {
        ("" | "auto" | "registry", Some(name)) if !image.local => Transfer::Registry(name),
        ("" | "auto" | "tar", _) => archive(),
        // An image that was named rather than built has its registry in its name.
        ("registry", _) if image.local => Transfer::Registry(image.reference.clone()),
        ("registry", _) => {
            return Err(invalid(format!("image `{}` is in no registry", image.reference))
                .hint("push it by `--registry`, or take `slurm.image_transfer` out: it then goes as an archive")
                .detail("key", "slurm.image_transfer"));
        }
        ("present", _) => Transfer::Present,
        (other, _) => {
            return Err(invalid(format!("`slurm.image_transfer` cannot be `{other}`"))
                .hint("there are `auto`, `registry`, `tar` and `present`")
                .detail("key", "slurm.image_transfer"));
        }
    })
}

impl Share {
    /// Prepares what the nodes read, and says what a person should know. None for a job without an image.
    ///
    /// # Errors
    /// The section asks for what cannot be.
    pub fn prepare(job: &Job, section: &Section, warnings: &mut Vec<String>) -> Result<Option<Self>> {
        let Some(image) = job.image.clone() else { return Ok(None) };
        if !section.container {
            return Err(invalid(format!("image `{}` is to be run, and `slurm.container` is false", image.reference))
                .hint("take `slurm.container` out, or run without a manifest: `--tags … --target slurm`")
                .detail("key", "slurm.container"));
        }
        let transfer = transfer(job, &image, &section.image_transfer)?;
        let without = || unsupported("this maddock does not say how to run a job's share on a node");
        let share = extra(job, "share").ok_or_else(without)?;
        let mut file: Map<String, Value> =
            serde_json::from_str(share).map_err(|error| invalid(format!("the job as text is not JSON: {error}")))?;
        let program = if section.maddock.is_empty() {
            if extra(job, "program-linkage") == Some("dynamic") {
                warnings.push(
                    "this maddock needs the C library of this machine, and may not start on nodes with another: use the \
                     static one there, by `slurm.maddock`"
                        .to_owned(),
                );
            }
            extra(job, "program").ok_or_else(without)?.to_owned()
        } else {
            section.maddock.clone()
        };
        if job.topology.nodes > 1 && job.profile == "restricted" {
            warnings.push(
                "containers of the restricted profile have networks of their own: nodes do not reach each other"
                    .to_owned(),
            );
        }
        file.insert("node".to_owned(), orders(job, section));
        let mut share = Self { program, transfer, image: image.clone(), extra: Vec::new(), file };
        share.set_image(&image, &[]);
        Ok(Some(share))
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(&self.file).unwrap_or_default() + "\n"
    }

    /// What getting the image there will take, in the words of the capabilities.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let scope = |name: &str, value: &str| Entry { name: name.to_owned(), value: value.to_owned() };
        match &self.transfer {
            Transfer::Registry(name) => vec![Step {
                summary: format!("ask the registry for the digest of image `{name}`, by which nodes pull it"),
                call: "docker.registry-digest".to_owned(),
                scope: vec![scope("image", name), scope("registry", registry_of(name))],
            }],
            Transfer::Archive(path) => vec![Step {
                summary: format!("write image `{}` as an archive that nodes load", self.image.reference),
                call: "docker.save-image".to_owned(),
                scope: vec![scope("image", &self.image.reference), scope("path", path)],
            }],
            Transfer::Present => Vec::new(),
        }
    }

    /// Files beside the job that go with it.
    #[must_use]
    pub fn leftovers(&self, job: &Job) -> Vec<String> {
        let mut files = vec![format!("{}/bin", job.paths.directory)];
        if let Transfer::Archive(path) = &self.transfer {
            files.push(path.clone());
        }
        files
    }

    /// Says how many seconds a model has to end in.
    pub fn set_grace(&mut self, seconds: u32) {
        self.extra.push(("grace", seconds.to_string()));
    }

    /// Sends the image on its way; answers the login that goes along.
    ///
    /// # Errors
    /// It is not here, is not the one that was built, or cannot be sent.
    pub fn send(&mut self) -> Result<Vec<EnvVar>> {
        match self.transfer.clone() {
            Transfer::Registry(name) => self.pin(&name),
            Transfer::Archive(path) => {
                events::state(events::Phase::Starting, "writing the image");
                let saved = docker::save_image(&self.image.reference, &path).map_err(|error| match error.kind {
                    ErrorKind::NotFound | ErrorKind::Unavailable => error.hint(
                        "the image goes to the nodes from this machine; push it to a registry, or set \
                         `slurm.image_transfer` to `present` where the nodes have it",
                    ),
                    _ => error,
                })?;
                if let Some(built) = self.image.digest.as_deref().filter(|built| !is_of(built, &saved)) {
                    let message = format!("image `{}` is {}, and {built} was built", self.image.reference, saved.id);
                    return Err(
                        of(ErrorKind::Conflict, message).hint("build it again, or run the manifest of its build")
                    );
                }
                let image =
                    Image { digest: Some(saved.id), registry_reference: None, local: true, ..self.image.clone() };
                self.set_image(&image, &[("image-archive", &path)]);
                Ok(Vec::new())
            }
            Transfer::Present => {
                let image = Image { registry_reference: None, local: true, ..self.image.clone() };
                let exact = image.digest.is_some();
                self.set_image(&image, if exact { &[("image-exact", "true")] } else { &[] });
                Ok(Vec::new())
            }
        }
    }

    /// Names the image by its digest: jobs wait in queues while tags move.
    fn pin(&mut self, name: &str) -> Result<Vec<EnvVar>> {
        let registry = registry_of(name);
        let secret = login(registry);
        let repository = repository(name);
        let digest = match pushed(&self.image, repository) {
            Some(digest) => Some(digest),
            None => match docker::registry_digest(name, secret.as_deref()) {
                Ok(digest) => Some(digest),
                Err(error) if error.kind == ErrorKind::Denied => return Err(error),
                Err(error) => {
                    let told = format!("the digest of image `{name}` is not known here: {}", error.message);
                    events::log(Level::Warning, &format!("{told}; nodes take what its tag means then"), &[]);
                    None
                }
            },
        };
        let pinned = digest.as_ref().map_or_else(|| name.to_owned(), |digest| format!("{repository}@{digest}"));
        let digest = digest.or_else(|| self.image.digest.clone());
        let exact = digest.is_some();
        let image = Image { digest, registry_reference: Some(pinned), local: false, ..self.image.clone() };
        self.set_image(&image, if exact { &[("image-exact", "true")] } else { &[] });
        let Some(secret) = secret else { return Ok(Vec::new()) };
        let login = LOGIN.map(|(member, variable)| (format!("{secret}/{member}"), variable));
        self.set("secrets", login.iter().map(|(name, variable)| json!({"name": name, "variable": variable})).collect());
        Ok(login.map(|(name, variable)| EnvVar { name: variable.to_owned(), value: EnvValue::Secret(name) }).to_vec())
    }

    fn set(&mut self, member: &str, value: Value) {
        if let Some(Value::Object(node)) = self.file.get_mut("node") {
            node.insert(member.to_owned(), value);
        }
    }

    fn set_image(&mut self, image: &Image, extra: &[(&str, &str)]) {
        self.set(
            "image",
            json!({
                "reference": image.reference,
                "digest": image.digest,
                "registry_reference": image.registry_reference,
                "local": image.local,
            }),
        );
        let own = self.extra.iter().map(|(name, value)| (*name, value.as_str()));
        let all = own.chain(extra.iter().copied()).map(|(name, value)| json!({"name": name, "value": value}));
        let all = all.collect();
        self.set("extra", all);
    }
}

/// Whether a digest is the image's id, or what a registry calls it.
fn is_of(digest: &str, image: &docker::ImageInfo) -> bool {
    digest.is_empty()
        || digest == image.id
        || image.repository_digests.iter().any(|known| known.ends_with(&format!("@{digest}")))
}

/// The digest under which the image that was built here went to that repository.
fn pushed(image: &Image, repository: &str) -> Option<String> {
    let built = docker::inspect_image(image.digest.as_deref().filter(|digest| !digest.is_empty())?).ok()?;
    let prefix = format!("{repository}@");
    built.repository_digests.iter().find_map(|known| known.strip_prefix(&prefix)).map(str::to_owned)
}

/// A name without tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name.get(last..).and_then(|segment| segment.find(':')) {
        Some(colon) => name.get(..last + colon).unwrap_or(name),
        None => name,
    }
}

/// The member `node`: how nodes are told apart, and what the scheduler says to each.
fn orders(job: &Job, section: &Section) -> Value {
    let nodes = job.topology.nodes;
    let known = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut variables: Vec<Value> = script::of_all_nodes(job).iter().map(|(name, value)| known(name, value)).collect();
    variables.push(json!({"name": "MAD_SLURM_JOB_ID", "variable": "SLURM_JOB_ID"}));
    variables.extend(script::of_network(section).iter().map(|(name, value)| known(name, value)));
    let by_node: Vec<Vec<Value>> =
        (0..nodes).map(|rank| script::of_node(rank).iter().map(|(name, value)| known(name, value)).collect()).collect();
    let directory = &job.paths.directory;
    json!({
        "target": "docker",
        "rank": "SLURM_PROCID",
        "host": ["SLURMD_NODENAME"],
        "directory": plan::nodes_directory(directory),
        "failed": (nodes > 1).then(|| format!("{directory}/failed")),
        "begin_within": (nodes > 1).then_some(section.start_timeout),
        "machines": "MADDOCK_NODES",
        "scratch": ["SLURM_TMPDIR", "TMPDIR"],
        "devices": DEVICES,
        "check": section.check,
        // Nodes reach each other through the network of their machines.
        "profile": if nodes > 1 { "compatible" } else { "" },
        "variables": variables,
        "by_node": by_node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_name_without_tag_and_digest() {
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
        assert_eq!(repository("localhost:5000/a/b"), "localhost:5000/a/b");
        assert_eq!(repository("rocm/x:1@sha256:0"), "rocm/x");
    }
}
