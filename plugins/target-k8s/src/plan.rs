//! From a job to everything that will be made in the cluster, and to the plan that says so. Nothing here has an effect.

use maddock_sdk::kube::{Connection, RegistryLogin, SecretContent, SecretMember};
use maddock_sdk::serde_json::{self, Value};
use maddock_sdk::target::{Job, JobOptions};
use maddock_sdk::types::{Artefact, Entry, EnvValue, EnvVar, Image, Step, WorkPlan};
use maddock_sdk::{Result, failed, invalid, local, registry};

use crate::bundle::{Bundle, File};
use crate::names;
use crate::objects::{self, Profile, Shape};
use crate::script;
use crate::section::{self, Section, Strategy};

/// Seconds that pulling, starting and bringing back may take beyond the model's own time limit, while the job waits for a node.
const ROOM: u64 = 600;
/// No cluster gives one job more; a slip of the pen does.
const MOST_NODES: u32 = 10_000;
/// Seconds that results wait for being fetched.
const RESULTS_WAIT: u64 = 120;
/// The same where nobody may be watching.
const RESULTS_WAIT_DETACHED: u64 = 600;
/// Seconds that an image or a container's configuration may be wrong.
const START_TIMEOUT: u64 = 300;

/// What this machine has, as far as the plan depends on it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The files of the workspace.
    pub files: Vec<File>,
    /// The user's home directory.
    pub home: Option<String>,
    /// The name of the secret with a login for the image's registry.
    pub login: Option<String>,
}

/// All that will be done for a job.
#[derive(Debug)]
pub struct Work {
    /// The base name of the objects, and the Job's.
    pub name: String,
    /// The cluster.
    pub connection: Connection,
    /// Secret objects, by name.
    pub secrets: Vec<(String, SecretContent)>,
    /// The others, in the order in which they are made.
    pub objects: Vec<Value>,
    /// What holds the claim with the results, where there is one, if they have to be fetched later.
    pub collector: Option<Value>,
    /// The image's name.
    pub image: String,
    /// What a device is called on the nodes, and how many a pod has.
    pub gpus: (String, u32),
    /// Seconds that an image or a container's configuration may be wrong.
    pub start_timeout: u64,
    /// Seconds that a pod may wait for a node.
    pub queue_timeout: Option<u64>,
    /// When the cluster ends the Job, in seconds.
    pub deadline: Option<u64>,
    /// Seconds after its end in which the cluster deletes the Job by itself.
    pub ttl: Option<u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// The name by which the cluster knows an image.
///
/// # Errors
/// The cluster cannot have it.
pub fn image_reference(image: Option<&Image>, pull_policy: &str) -> Result<String> {
    let Some(image) = image else {
        return Err(invalid("the job has no image, and pods run nothing else")
            .hint("build one with `--registry`, or name one by `MAD_CONTAINER_IMAGE`"));
    };
    let pushed = image.registry_reference.as_deref().filter(|reference| !reference.is_empty());
    match pushed {
        Some(reference) => Ok(reference.to_owned()),
        // Named by the user: whatever it is, the cluster may have it.
        None if image.local => Ok(image.reference.clone()),
        None if matches!(pull_policy, "IfNotPresent" | "Never") => Ok(image.reference.clone()),
        None => Err(invalid(format!(
            "image `{}` is on this machine only, where the cluster cannot get it",
            image.reference
        ))
        .hint(
            "build with `--registry REGISTRY`; where the nodes have it, set `k8s.image_pull_policy` to `IfNotPresent`",
        )
        .detail("key", "k8s.image_pull_policy")),
    }
}

/// Reads the configuration of a job.
///
/// # Errors
/// It is not JSON.
pub fn config(job: &Job) -> Result<Value> {
    serde_json::from_str(&job.config).map_err(|error| invalid(format!("the configuration is not JSON: {error}")))
}

/// Prepares a job.
///
/// # Errors
/// The job or its configuration cannot be.
pub fn prepare(job: &Job, surroundings: Surroundings) -> Result<Work> {
    let config = config(job)?;
    let mut section = Section::read(&config)?;
    section.settle_resources();
    let nodes = job.topology.nodes;
    if nodes == 0 || nodes > MOST_NODES {
        return Err(invalid(format!("a job cannot have {nodes} pods")));
    }
    if job.topology.roles.iter().any(|role| role.name == "batch") {
        return Err(invalid(format!(
            "the launcher `{}` uses a batch scheduler's own commands, and pods have none",
            job.topology.launcher
        ))
        .hint("run it on a batch scheduler, or choose another by `distributed.launcher`")
        .detail("key", "distributed.launcher"));
    }
    let work = &job.paths.work_directory;
    if work.is_empty() || work.split('/').any(|part| matches!(part, ".." | "")) {
        return Err(invalid(format!("`{work}` cannot be a work directory")));
    }
    let profiling = section.profiling.unwrap_or_else(|| has_tools(&config));
    let profile = match job.profile.as_str() {
        // Accelerators and profilers need what ordinary programs do not.
        "" if job.topology.gpus_per_node > 0 || profiling || has_tools(&config) || section.host_ipc => {
            Profile::Compatible
        }
        "" => Profile::Plain,
        "compatible" => Profile::Compatible,
        "restricted" => Profile::Restricted,
        other => {
            return Err(invalid(format!("there is no container profile `{other}`"))
                .hint("there are `compatible` and `restricted`"));
        }
    };
    let restricted = profile == Profile::Restricted;
    let image = image_reference(job.image.as_ref(), &section.pull_policy)?;
    let name = names::base(&job.model, &job.run_id, &job.id);
    let mut warnings = std::mem::take(&mut section.warnings);
    if job.options.has(JobOptions::KEEP_ALIVE) {
        warnings.push("nothing is kept alive in a cluster: its devices belong to the next job".to_owned());
    }
    for (asked, what) in [(profiling, "what profilers need (SYS_PTRACE)"), (section.host_ipc, "`k8s.host_ipc`")] {
        if asked && restricted {
            warnings.push(format!("the restricted profile leaves out {what}"));
        }
    }
    let (env, settled) = variables(job, &config, &section, restricted)?;
    let (env, secret_members) = secret_variables(env, &section, &mut warnings);
    let (mut secrets, mut pull_secrets) = (Vec::new(), section.pull_secrets.clone());
    if section.strategy == Strategy::FromLocalCredentials
        && let Some(secret) = surroundings.login
    {
        let login = RegistryLogin { registry: registry::registry_of(&image).to_owned(), secret };
        secrets.push((objects::pull_secret(&name), SecretContent::RegistryLogins(vec![login])));
        pull_secrets.insert(0, objects::pull_secret(&name));
    }
    if !secret_members.is_empty() {
        secrets.push((objects::runtime_secret(&name), SecretContent::Members(secret_members)));
    }
    let bundle = bundle(job, &name, &section, &settled, surroundings.files)?;
    let shape = Shape {
        name: &name,
        model: &job.model,
        section: &section,
        image: &image,
        nodes,
        gpus: job.topology.gpus_per_node,
        port: job.topology.main_port,
        env: &env,
        pull_secrets: &pull_secrets,
        profile,
        profiling,
        deadline: deadline(job, &section),
        bundle: &bundle,
    };
    let mut made: Vec<Value> = shape.claim().into_iter().collect();
    made.extend(bundle.objects(&name, &|name| shape.metadata(name)));
    if nodes > 1 {
        made.push(shape.service());
    }
    made.push(shape.job());
    Ok(Work {
        connection: connection(&section, surroundings.home.as_deref())?,
        secrets,
        collector: shape.collector(),
        objects: made,
        gpus: (section.gpu_resource.clone(), job.topology.gpus_per_node),
        start_timeout: section.start_timeout.unwrap_or(START_TIMEOUT),
        queue_timeout: section.queue_timeout,
        deadline: deadline(job, &section),
        ttl: section.ttl,
        warnings,
        image,
        name,
    })
}

/// Seconds until the cluster ends the Job, counted from its making; the model's own limit is the entry script's.
fn deadline(job: &Job, section: &Section) -> Option<u64> {
    let waiting = section.queue_timeout.unwrap_or(0);
    let following = job.time_limit.map(|limit| limit.saturating_add(ROOM).saturating_add(waiting));
    // The cluster keeps it in 32 bits.
    section.deadline.or(following).map(|seconds| seconds.min(i32::MAX.unsigned_abs().into()))
}

fn has_tools(config: &Value) -> bool {
    config.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty())
}

/// The cluster that the section names. Without a file the host looks where the cluster's own clients look.
fn connection(section: &Section, home: Option<&str>) -> Result<Connection> {
    let written = section.kubeconfig.as_str();
    let kubeconfig = match (written, written.strip_prefix("~/"), home) {
        ("", ..) => String::new(),
        (_, Some(below), Some(home)) => format!("{home}/{below}"),
        (path, None, _) if path.starts_with('/') => path.to_owned(),
        _ => {
            let value = Value::String(written.to_owned());
            return Err(section::wrong("kubeconfig", &value, "an absolute path or one that begins with `~/`"));
        }
    };
    Ok(Connection { kubeconfig, context: section.context.clone(), namespace: section.namespace.clone() })
}

/// The variables of all pods, and the names that the user has settled by the section `env_vars`.
fn variables(job: &Job, config: &Value, section: &Section, restricted: bool) -> Result<(Vec<EnvVar>, Vec<String>)> {
    let text = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: EnvValue::Text(value.to_owned()) };
    let mut all = vec![text("MAD_K8S_JOB", "true"), text("MAD_DEPLOYMENT_TYPE", "kubernetes")];
    all.push(text("MAD_SYSTEM_NGPUS", &job.topology.gpus_per_node.to_string()));
    if section.gpu_resource.starts_with("amd.com/") {
        all.push(text("HSA_NO_SCRATCH_RECLAIM", "1"));
    }
    if restricted {
        // A user that the image does not know has `/`, where it may not write.
        all.push(text("HOME", script::WORKSPACE));
    }
    if !section.data_claim.is_empty() {
        all.push(text("MAD_DATAHOME", "/data"));
    }
    for entry in job.accelerators.iter().flat_map(|attachment| &attachment.env) {
        all.push(text(&entry.name, &entry.value));
    }
    let mut settled = Vec::new();
    for (name, value) in config.get("env_vars").and_then(Value::as_object).into_iter().flatten() {
        if name.starts_with('_') || value.is_null() {
            continue;
        }
        let value = section::scalar(value).ok_or_else(|| {
            invalid(format!("`env_vars.{name}` is {value}, and a text is expected"))
                .detail("key", format!("env_vars.{name}"))
        })?;
        all.push(text(name, &value));
        settled.push(name.clone());
    }
    all.extend(job.env.iter().cloned());
    Ok((local::last_of_each(all)?, settled))
}

/// Secret variables by the strategy: those that cannot be had are left out and told.
fn secret_variables(
    env: Vec<EnvVar>,
    section: &Section,
    warnings: &mut Vec<String>,
) -> (Vec<EnvVar>, Vec<SecretMember>) {
    let member = |variable: &EnvVar| match &variable.value {
        EnvValue::Secret(secret) => Some(SecretMember { key: variable.name.clone(), secret: secret.clone() }),
        EnvValue::Text(_) => None,
    };
    let members: Vec<SecretMember> = env.iter().filter_map(member).collect();
    if members.is_empty() || section.strategy == Strategy::FromLocalCredentials {
        return (env, members);
    }
    let names: Vec<String> = members.iter().map(|member| format!("`{}`", member.key)).collect();
    let names = names.join(", ");
    warnings.push(match section.strategy {
        Strategy::Existing if !section.runtime_secret.is_empty() => {
            format!(
                "secret variables come from the cluster's secret `{}`, as far as it has them: {names}",
                section.runtime_secret
            )
        }
        _ => format!("secret variables are left out, as `k8s.secrets.strategy` says: {names}"),
    });
    (env, Vec::new())
}

fn bundle(job: &Job, name: &str, section: &Section, settled: &[String], workspace: Vec<File>) -> Result<Bundle> {
    let job = without_keep_alive(job);
    let on_claim = !section.results_claim.is_empty() || section.results_storage(job.topology.nodes).is_some();
    let detached = job.options.has(JobOptions::DETACH);
    // One that is attended now and may be left has to wait for both: for who attends it, and for who comes later.
    let may_be_left = job.extra.iter().any(|entry| entry.name == "may-be-left" && entry.value == "true");
    let wait = section.results_wait.unwrap_or(match (detached, on_claim) {
        (true, true) => 0,
        (_, false) if detached || may_be_left => RESULTS_WAIT_DETACHED,
        (_, _) => RESULTS_WAIT,
    });
    let (entries, of_node) = script::entries(&job);
    let mut files = workspace;
    // Ours win over what the tree might have at these places.
    files.retain(|file| !file.path.starts_with(&format!("{}/.maddock/", crate::bundle::WORKSPACE)));
    for (number, text) in entries.into_iter().enumerate() {
        files.push(File::text(&format!("{}/{}", crate::bundle::WORKSPACE, script::entry_name(number)), text));
    }
    files.push(File::text("prepare.sh", script::prepare()));
    files.push(File::text("node.sh", script::node(&job, name)));
    files.push(File::text("roles.sh", script::roles(&job, &of_node, name, &section.cluster_domain, settled)));
    files.push(File::text("keeper.sh", script::keeper(wait)));
    Bundle::pack(files)
}

fn without_keep_alive(job: &Job) -> Job {
    let mut job = job.clone();
    job.options = job.options & (JobOptions::SKIP_MODEL | JobOptions::DETACH);
    job
}

fn member<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Work {
    /// The objects as the host takes them.
    #[must_use]
    pub fn as_json(&self) -> Vec<String> {
        self.objects.iter().map(Value::to_string).collect()
    }

    /// What will happen, in the words of the capabilities.
    ///
    /// # Errors
    /// An object cannot be written as text.
    pub fn plan(&self) -> Result<WorkPlan> {
        let scope = |name: &str, value: &str| Entry { name: name.to_owned(), value: value.to_owned() };
        let place = [("context", &self.connection.context), ("namespace", &self.connection.namespace)];
        let place: Vec<Entry> =
            place.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| scope(name, value)).collect();
        let mut steps = Vec::new();
        for (name, content) in &self.secrets {
            let (what, names): (&str, Vec<&String>) = match content {
                SecretContent::Members(members) => ("variables", members.iter().map(|member| &member.secret).collect()),
                SecretContent::RegistryLogins(logins) => {
                    ("a login", logins.iter().map(|login| &login.secret).collect())
                }
            };
            steps.push(Step {
                summary: format!("make the secret `{name}` with {what}, from secrets of this machine"),
                call: "kube.create-secret".to_owned(),
                scope: place.iter().cloned().chain(names.iter().map(|name| scope("secret", name))).collect(),
            });
        }
        let (mut artefacts, mut seen) = (Vec::new(), Vec::new());
        for object in &self.objects {
            let (kind, name) = (member(object, "/kind"), member(object, "/metadata/name"));
            let mut asked = place.clone();
            asked.push(scope("kind", kind));
            if kind == "Job" {
                asked.push(scope("image", &self.image));
                let pods = object.pointer("/spec/completions").map(Value::to_string).unwrap_or_default();
                asked.push(scope("node-count", &pods));
            }
            steps.push(Step {
                summary: format!("make the {kind} `{name}`"),
                call: "kube.create".to_owned(),
                scope: asked,
            });
            seen.push(kind);
            let number = seen.iter().filter(|known| **known == kind).count();
            let number = if number > 1 { format!("-{number}") } else { String::new() };
            artefacts.push(Artefact {
                name: format!("{}{number}.yaml", kind.to_ascii_lowercase()),
                media_type: "application/yaml".to_owned(),
                content: serde_yaml_ng::to_string(object)
                    .map_err(|error| failed(format!("the {kind} cannot be written as YAML: {error}")))?,
            });
        }
        if let Some(collector) = &self.collector {
            let mut asked = place;
            asked.push(scope("kind", member(collector, "/kind")));
            asked.push(scope("image", &self.image));
            steps.push(Step {
                summary: "hold the claim with the results, if they have to be fetched from it".to_owned(),
                call: "kube.create".to_owned(),
                scope: asked,
            });
        }
        Ok(WorkPlan { steps, artefacts, warnings: self.warnings.clone(), extra: Vec::new() })
    }
}
