//! From a job to the container that will run it. Nothing here has an effect.
//!
//! The container's main process is the job's entry script: the time limit ends the model inside, and the output and the exit
//! code are the engine's to keep, whatever becomes of the invocation.

use maddock_sdk::docker::{ContainerSpec, Mount};
use maddock_sdk::local::{self, Place};
use maddock_sdk::serde_json::{Value, json};
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::{Artefact, Attachment, Entry, EnvValue, EnvVar, Image, Step, WorkPlan};
use maddock_sdk::{Result, entry, invalid, serde_json, unsupported};

use crate::image::Wish;
use crate::name;
use crate::options::{self, add, put_mount};

/// Where a job sees its workspace.
pub const WORKSPACE: &str = "/myworkspace";
/// The label by which the host knows a container that is not to go with its run.
const KEPT: &str = "maddock.keep-alive";
/// Where images have the vendor's libraries unless they say otherwise.
const ROCM: &str = "/opt/rocm";
/// The device that upstream gives to every container; machines without it have none to give.
pub const FUSE: &str = "/dev/fuse";

/// What the tree and the machine say, read beforehand.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The directories of `tree/scripts`.
    pub script_directories: Vec<String>,
    /// Whether there is `/dev/fuse`.
    pub fuse: bool,
}

/// All that will be done for a job.
#[derive(Debug)]
pub struct Work {
    /// Where its files lie.
    pub place: Place,
    /// The entry script.
    pub script: String,
    /// The image.
    pub image: Image,
    /// How to get it.
    pub wish: Wish,
    /// The container; its image is the reference, as policy knows it.
    pub spec: ContainerSpec,
    /// Seconds that the job has between being asked to end and being ended, where somebody says it.
    pub grace: Option<u32>,
    /// Upstream's name for the container, where the job is to be kept alive.
    pub plain_name: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// How much a container may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    /// Upstream's wide options.
    Compatible,
    /// An ordinary container, run as root.
    Plain,
    /// Less than an ordinary container.
    Restricted,
}

impl Profile {
    fn of(job: &Job, accelerators: Option<&Attachment>) -> Result<Self> {
        match job.profile.as_str() {
            "" if accelerators.is_some() => Ok(Self::Compatible),
            "" => Ok(Self::Plain),
            "compatible" => Ok(Self::Compatible),
            "restricted" => Ok(Self::Restricted),
            other => Err(invalid(format!("container profile `{other}` is not known"))
                .hint("there are `compatible` and `restricted`")),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Compatible => "compatible",
            Self::Plain => "plain",
            Self::Restricted => "restricted",
        }
    }
}

/// Prepares a job.
///
/// # Errors
/// The job is one that a container on one machine cannot be, or an option of it cannot be.
pub fn prepare(job: &Job, around: &Surroundings) -> Result<Work> {
    if job.topology.nodes > 1 {
        return Err(unsupported(format!("{} nodes were asked for, and a container runs on one", job.topology.nodes))
            .hint("choose a target with the feature `multi-node`, or ask for one node"));
    }
    let image = job.image.clone().ok_or_else(|| {
        invalid("the job has no image, and a container needs one").hint("build it, or name one that exists")
    })?;
    let config: Value = read_json("configuration", &job.config)?;
    let card: Value = read_json("model card", &job.card)?;
    let accelerators = job.accelerators.as_ref().filter(|attachment| is_some_vendor(attachment));
    let profile = Profile::of(job, accelerators)?;
    let place = Place::of(job);
    let role = local::role(job);
    let mut warnings = Vec::new();
    if local::role(job).is_some_and(|role| role.name == "batch") {
        warnings.push(format!(
            "scripts of `{}` use the commands of a scheduler, which a container does not have: `--target slurm` runs them \
             on a cluster, `--target process` on this machine",
            job.topology.launcher
        ));
    }

    let mut spec = ContainerSpec {
        name: name::unique(&image.reference, job),
        image: reference(&image),
        // In the place of the image's entry point: what upstream ran by `docker exec` never went through it either.
        entrypoint: vec!["bash".to_owned(), format!("{WORKSPACE}/{}", entry::SCRIPT)],
        command: Vec::new(),
        env: local::environment(job, role)?,
        directory: WORKSPACE.to_owned(),
        user: "root".to_owned(),
        mounts: mounts(job, around, &config)?,
        devices: Vec::new(),
        device_requests: Vec::new(),
        groups: Vec::new(),
        add_capabilities: Vec::new(),
        drop_capabilities: Vec::new(),
        security_options: Vec::new(),
        network: "bridge".to_owned(),
        ipc: "private".to_owned(),
        privileged: false,
        cpuset: cpus(&config)?,
        shared_memory: None,
        memory: None,
        ulimits: Vec::new(),
        labels: Vec::new(),
        hostname: String::new(),
        init: false,
        tty: false,
        extra: Vec::new(),
    };
    // In the restricted profile root has no power over files of others: the kernel says who owns the workspace.
    if let Some(user) = extra(job, "user").filter(|_| profile == Profile::Restricted) {
        spec.user = user.to_owned();
    }
    apply_profile(profile, accelerators, around, &mut spec, &mut warnings);
    for (source, text) in [("model", &card), ("configuration", &config)] {
        let Some(value) = text.get("additional_docker_run_options").filter(|value| !value.is_null()) else { continue };
        let text = value.as_str().ok_or_else(|| {
            invalid(format!("`additional_docker_run_options` of the {source} is not a text"))
                .hint("write the options as on a command line")
        })?;
        let read = options::parse(text)?;
        warnings.extend(read.warnings);
        options::apply(read.options, &mut spec)?;
    }
    let kept = job.options.has(JobOptions::KEEP_ALIVE);
    if kept {
        spec.labels.push(Entry { name: KEPT.to_owned(), value: "true".to_owned() });
    }
    let plain_name = kept.then(|| name::compatible(&image.reference));
    // `image-archive` and `image-exact`: what another target adds where an image was sent along. `grace`: seconds, where a
    // scheduler will not wait for long.
    let grace = extra(job, "grace").and_then(|seconds| seconds.parse().ok());
    let wish = Wish {
        archive: extra(job, "image-archive").map(str::to_owned),
        exact: extra(job, "image-exact").is_some_and(|value| value == "true"),
    };
    Ok(Work { place, script: entry::script(job, role), image, wish, spec, grace, plain_name, warnings })
}

fn read_json(what: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| invalid(format!("the {what} of the job is not JSON: {error}")))
}

fn is_some_vendor(attachment: &Attachment) -> bool {
    !attachment.vendor.is_empty() && !attachment.vendor.eq_ignore_ascii_case("none")
}

fn extra<'a>(job: &'a Job, name: &str) -> Option<&'a str> {
    job.extra.iter().find(|entry| entry.name == name).map(|entry| entry.value.as_str())
}

/// The name under which the image is run.
pub fn reference(image: &Image) -> String {
    match &image.registry_reference {
        Some(registry) if !image.local && !registry.is_empty() => registry.clone(),
        _ => image.reference.clone(),
    }
}

fn apply_profile(
    profile: Profile,
    accelerators: Option<&Attachment>,
    around: &Surroundings,
    spec: &mut ContainerSpec,
    warnings: &mut Vec<String>,
) {
    let is = |vendor: &str| accelerators.is_some_and(|attachment| attachment.vendor.eq_ignore_ascii_case(vendor));
    if profile == Profile::Compatible {
        spec.network = "host".to_owned();
        spec.ipc = "host".to_owned();
        for capability in ["SYS_PTRACE", "SYS_ADMIN"] {
            add(&mut spec.add_capabilities, capability.to_owned());
        }
        if is("nvidia") {
            add(&mut spec.add_capabilities, "SYS_NICE".to_owned());
        }
        if is("amd") {
            add(&mut spec.groups, "video".to_owned());
        }
        for option in ["seccomp=unconfined", "apparmor=unconfined"] {
            add(&mut spec.security_options, option.to_owned());
        }
        if around.fuse {
            add(&mut spec.devices, FUSE.to_owned());
        } else {
            warnings.push(format!("this machine has no `{FUSE}`, so the container gets none"));
        }
    }
    if profile == Profile::Restricted {
        add(&mut spec.drop_capabilities, "ALL".to_owned());
        add(&mut spec.security_options, "no-new-privileges".to_owned());
    }
    let Some(attachment) = accelerators else { return };
    for device in &attachment.devices {
        add(&mut spec.devices, device.clone());
    }
    for group in &attachment.groups {
        add(&mut spec.groups, group.clone());
    }
    spec.device_requests.extend(attachment.requests.iter().cloned());
    if profile == Profile::Restricted {
        if !attachment.capabilities.is_empty() {
            let names = attachment.capabilities.join(", ");
            warnings
                .push(format!("the restricted profile leaves out capabilities that the accelerators ask for: {names}"));
        }
    } else {
        for capability in &attachment.capabilities {
            add(&mut spec.add_capabilities, capability.clone());
        }
    }
}

/// The workspace, the tree's scripts, what the user asked for; of two for one place the last.
fn mounts(job: &Job, around: &Surroundings, config: &Value) -> Result<Vec<Mount>> {
    let mut mounts =
        vec![Mount { source: job.paths.workspace.clone(), destination: WORKSPACE.to_owned(), read_only: false }];
    for name in &around.script_directories {
        mounts.push(Mount {
            source: format!("{}/scripts/{name}", job.paths.tree),
            destination: format!("{WORKSPACE}/scripts/{name}"),
            read_only: true,
        });
    }
    // `mount`: what the kernel adds, such as data, as `HOST:CONTAINER[:ro]`.
    for entry in job.extra.iter().filter(|entry| entry.name == "mount") {
        let (text, read_only) = match entry.value.strip_suffix(":ro") {
            Some(text) => (text, true),
            None => (entry.value.as_str(), false),
        };
        let (source, destination) = text
            .split_once(':')
            .ok_or_else(|| invalid(format!("mount `{}` is not `HOST:CONTAINER[:ro]`", entry.value)))?;
        put_mount(&mut mounts, Mount { source: place(source)?, destination: place(destination)?, read_only });
    }
    match config.get("docker_mounts") {
        None | Some(Value::Null) => {}
        Some(Value::Object(asked)) => {
            for (inside, outside) in asked {
                let outside = outside
                    .as_str()
                    .ok_or_else(|| invalid(format!("`docker_mounts` names no path of this machine for `{inside}`")))?;
                put_mount(
                    &mut mounts,
                    Mount { source: place(outside)?, destination: place(inside)?, read_only: false },
                );
            }
        }
        Some(_) => {
            return Err(invalid("`docker_mounts` is not an object")
                .hint("write paths in the container with paths of this machine: {\"/data\": \"/mnt/data\"}"));
        }
    }
    if let Some(mount) = mounts.iter().find(|mount| mount.destination == "/") {
        return Err(invalid(format!("`{}` cannot be mounted over the container's root", mount.source)));
    }
    Ok(mounts)
}

fn place(path: &str) -> Result<String> {
    let path = path.trim();
    if !path.starts_with('/') {
        return Err(invalid(format!("mount path `{path}` is not absolute")).hint("write it from `/` on"));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

fn cpus(config: &Value) -> Result<String> {
    let text = match config.get("docker_cpus") {
        None | Some(Value::Null) => return Ok(String::new()),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(invalid(format!("`docker_cpus` cannot be `{other}`")).hint("such as \"0-3,8\"")),
    };
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    if text.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, ',' | '-')) {
        Ok(text)
    } else {
        Err(invalid(format!("`docker_cpus` cannot be `{text}`")).hint("such as \"0-3,8\""))
    }
}

impl Work {
    /// Says where the image has the vendor's libraries, where the user did not. The host's place of them is nothing to it.
    pub fn locate_runtime(&mut self, job: &Job, image_env: &[String]) {
        let amd = |attachment: &Attachment| attachment.vendor.eq_ignore_ascii_case("amd");
        let env = &mut self.spec.env;
        if !job.accelerators.as_ref().is_some_and(amd) || env.iter().any(|variable| variable.name == "ROCM_PATH") {
            return;
        }
        let of_user =
            env.iter().rev().find(|variable| variable.name == "MAD_ROCM_PATH").map(|found| found.value.clone());
        let of_image = |name: &str| {
            let value = image_env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.filter(|value| !value.is_empty()).map(|value| EnvValue::Text(value.to_owned()))
        };
        let value = of_user.or_else(|| of_image("ROCM_PATH")).or_else(|| of_image("ROCM_HOME"));
        let value = value.unwrap_or_else(|| EnvValue::Text(ROCM.to_owned()));
        env.push(EnvVar { name: "ROCM_PATH".to_owned(), value });
    }

    /// What will happen, in the words of the capabilities.
    pub fn plan(&self, job: &Job) -> WorkPlan {
        let scope = |name: &str, value: &str| Entry { name: name.to_owned(), value: value.to_owned() };
        let image = &self.spec.image;
        let find = if self.wish.archive.is_some() {
            ("load", "docker.load-image")
        } else if self.image.registry_reference.is_some() && !self.image.local {
            ("pull", "docker.pull-image")
        } else {
            ("look for", "docker.inspect-image")
        };
        let profile = Profile::of(job, job.accelerators.as_ref().filter(|attachment| is_some_vendor(attachment)))
            .map(Profile::word);
        let profile = profile.unwrap_or_default();
        let step = |summary: String, call: &str, scope: Vec<Entry>| Step { summary, call: call.to_owned(), scope };
        let steps = vec![
            step(format!("{} image `{image}`", find.0), find.1, vec![scope("image", image)]),
            step("write the job's entry script".to_owned(), "files.write", vec![scope("path", &self.place.entry())]),
            step(
                format!("create container `{}` with the {profile} profile", self.spec.name),
                "docker.create-container",
                self.scope(),
            ),
            step("start the container".to_owned(), "docker.start-container", Vec::new()),
        ];
        WorkPlan {
            steps,
            artefacts: vec![
                Artefact {
                    name: "entry.sh".to_owned(),
                    media_type: "text/x-shellscript".to_owned(),
                    content: self.script.clone(),
                },
                Artefact {
                    name: "container.json".to_owned(),
                    media_type: "application/json".to_owned(),
                    content: readable(&self.spec),
                },
            ],
            warnings: self.warnings.clone(),
            extra: Vec::new(),
        }
    }

    /// What the container will touch, in the words of policy.
    fn scope(&self) -> Vec<Entry> {
        let spec = &self.spec;
        let mut scope = Vec::new();
        let mut on = |name: &str, value: &str| scope.push(Entry { name: name.to_owned(), value: value.to_owned() });
        on("image", &spec.image);
        for mount in &spec.mounts {
            on("mount", &mount.source);
            if !mount.read_only {
                on("mount-write", &mount.source);
            }
        }
        for device in &spec.devices {
            on("device", device);
        }
        for request in &spec.device_requests {
            let driver = if request.driver.is_empty() { "any" } else { &request.driver };
            for id in &request.ids {
                on("device-request", &format!("{driver}/{id}"));
            }
        }
        for capability in &spec.add_capabilities {
            on("capability", capability);
        }
        on("network", &spec.network);
        on("ipc", &spec.ipc);
        if spec.privileged {
            on("privileged", "true");
        }
        for variable in &spec.env {
            if let EnvValue::Secret(name) = &variable.value {
                on("secret", name);
            }
        }
        scope
    }
}

/// The specification for a person, with secrets by their names only and without what is empty.
pub fn readable(spec: &ContainerSpec) -> String {
    let entries =
        |entries: &[Entry]| entries.iter().map(|entry| format!("{}={}", entry.name, entry.value)).collect::<Vec<_>>();
    let env: Vec<String> = spec
        .env
        .iter()
        .map(|variable| match &variable.value {
            EnvValue::Text(value) => format!("{}={value}", variable.name),
            EnvValue::Secret(name) => format!("{}=<secret {name}>", variable.name),
        })
        .collect();
    let mounts: Vec<String> = spec
        .mounts
        .iter()
        .map(|mount| format!("{}:{}{}", mount.source, mount.destination, if mount.read_only { ":ro" } else { "" }))
        .collect();
    let requests: Vec<Value> = spec
        .device_requests
        .iter()
        .map(|request| json!({"driver": request.driver, "ids": request.ids, "capabilities": request.capabilities}))
        .collect();
    let mut value = json!({
        "name": spec.name,
        "image": spec.image,
        "entrypoint": spec.entrypoint,
        "command": spec.command,
        "directory": spec.directory,
        "user": spec.user,
        "env": env,
        "mounts": mounts,
        "devices": spec.devices,
        "device_requests": requests,
        "groups": spec.groups,
        "add_capabilities": spec.add_capabilities,
        "drop_capabilities": spec.drop_capabilities,
        "security_options": spec.security_options,
        "network": spec.network,
        "ipc": spec.ipc,
        "privileged": spec.privileged,
        "cpuset": spec.cpuset,
        "shared_memory": spec.shared_memory,
        "memory": spec.memory,
        "ulimits": entries(&spec.ulimits),
        "labels": entries(&spec.labels),
        "hostname": spec.hostname,
        "init": spec.init,
        "options": entries(&spec.extra),
    });
    if let Some(members) = value.as_object_mut() {
        let empty = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        members.retain(|_, value| !empty(value));
    }
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

#[cfg(test)]
#[path = "spec_tests.rs"]
pub mod tests;
