//! Runs jobs in the pods of a Kubernetes cluster: one Job for each, Indexed where it has several nodes.
//!
//! All objects are made, and told apart from those of others, by the host's labels. Nothing is ever deleted that does not
//! bear them. What a pod needs comes with ConfigMaps, what it leaves goes back over the API: neither a registry for scripts
//! nor a storage class is needed.

use maddock_sdk::events::{self, Level, Phase};
use maddock_sdk::kube::{self, Connection, ObjectRef, Server, Snapshot};
use maddock_sdk::registry;
use maddock_sdk::serde_json;
use maddock_sdk::target::{Collection, Ending, Guest, Job, JobStatus, TargetInfo};
use maddock_sdk::types::{Entry, ErrorKind, WorkPlan};
use maddock_sdk::{Result, facts, failed, invalid};
use serde::{Deserialize, Serialize};

pub mod bundle;
pub mod names;
pub mod objects;
pub mod outcome;
pub mod plan;
pub mod quantity;
pub mod results;
pub mod script;
pub mod section;
pub mod watch;

use plan::{Surroundings, Work};
use results::Bringing;
use section::{Section, Strategy};

/// How long a first look at a Job may take.
const LOOK_MS: u32 = 10_000;
/// How often, and with what pause, results are tried for by who comes to a job that has ended.
const LATER_TRIES: u32 = 20;
const LATER_MS: u32 = 2_000;

/// What `launch` answers, as JSON text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handle {
    kubeconfig: String,
    context: String,
    namespace: String,
    job: String,
    directory: String,
    nodes: u32,
    start_timeout: u64,
    queue_timeout: Option<u64>,
    /// When the cluster ends the Job.
    #[serde(default)]
    deadline: Option<u64>,
    /// Plain names that have to be there.
    expected: Vec<String>,
    /// An object that holds the claim with the results, where there is one.
    collector: Option<String>,
    /// Seconds after its end in which the cluster deletes the Job by itself.
    #[serde(default)]
    ttl: Option<u64>,
    /// Host and port of the cluster.
    #[serde(default)]
    server: String,
}

impl Handle {
    /// Reads one that may be of another process, and sees to it that its words mean the same cluster here.
    fn read(text: &str) -> Result<Self> {
        let handle: Self = serde_json::from_str(text)
            .map_err(|error| invalid(format!("this is no handle of a cluster's Job: {error}")))?;
        // A server that is away has said nothing about the Job either.
        if let (false, Ok(server)) = (handle.server.is_empty(), kube::describe_server(&handle.connection())) {
            handle.recognise(&server)?;
        }
        Ok(handle)
    }

    /// Refuses a cluster that is not the Job's: there it would not be found, and be taken for one that was deleted.
    fn recognise(&self, server: &Server) -> Result<()> {
        let here = said(server, "address");
        if self.server.is_empty() || here == self.server {
            return Ok(());
        }
        Err(invalid(format!(
            "Job {} is in the cluster at {}, and the context `{}` of `{}` now leads to {here}",
            self.job,
            self.server,
            self.context,
            said(server, "kubeconfig")
        ))
        .hint(match self.kubeconfig.as_str() {
            "" => "set KUBECONFIG as it was when the job was handed in",
            _ => "the file of connections has changed since: the job needs it as it was",
        }))
    }

    fn connection(&self) -> Connection {
        Connection {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: self.namespace.clone(),
        }
    }

    /// What is known now; none where nothing answers.
    fn look(&self) -> Result<Option<Snapshot>> {
        kube::next_change(&self.connection(), &self.job, 0, LOOK_MS)
    }
}

fn said<'a>(server: &'a Server, name: &str) -> &'a str {
    server.extra.iter().find(|entry| entry.name == name).map_or("", |entry| entry.value.as_str())
}

/// The file of connections by which later processes find the cluster. Of several files, or of the cluster around this
/// process, there is no one name: those are found as they are now.
fn kubeconfig(named: &str, server: &Server) -> String {
    let found = said(server, "kubeconfig");
    let one = found.starts_with('/') && !found.contains(':');
    if named.is_empty() && one { found.to_owned() } else { named.to_owned() }
}

/// Prepares a job with what this machine has.
fn prepare(job: &Job) -> Result<Work> {
    let section = Section::read(&plan::config(job)?)?;
    let image = plan::image_reference(job.image.as_ref(), &section.pull_policy)?;
    let home = if section.kubeconfig.starts_with("~/") { facts::environment("HOME")? } else { None };
    let login = match section.strategy {
        Strategy::FromLocalCredentials => registry::login(registry::registry_of(&image)),
        Strategy::Existing | Strategy::Omit => None,
    };
    plan::prepare(job, Surroundings { files: bundle::gather(&job.paths.workspace)?, home, login })
}

/// Warns where no node has the devices: nodes may come, so it is no reason to refuse.
fn look_for_devices(work: &Work) {
    let (resource, count) = &work.gpus;
    if *count == 0 {
        return;
    }
    let warning = match kube::list_nodes(&work.connection) {
        Ok(nodes) => {
            let enough = |node: &kube::Node| {
                let found = node.allocatable.iter().find(|entry| entry.name == *resource);
                found.and_then(|entry| entry.value.parse::<u32>().ok()).is_some_and(|has| has >= *count)
            };
            if nodes.iter().any(|node| node.ready && enough(node)) {
                return;
            }
            format!("no node of the cluster offers {count} of `{resource}`: the job waits until one does")
        }
        Err(error) => format!("whether nodes have `{resource}` is not known: {}", error.message),
    };
    events::log(Level::Warning, &warning, &[]);
}

/// Makes all objects of a job; after an error there is none of them.
fn make(work: &Work) -> Result<()> {
    let objects = work.as_json();
    kube::check(&work.connection, &objects).map_err(|error| error.during("the cluster refuses the job's objects"))?;
    let mut made: Vec<ObjectRef> = Vec::new();
    let result = (|| {
        for (name, content) in &work.secrets {
            let secret = kube::create_secret(&work.connection, name, content)
                .map_err(|error| error.during("making the job's secrets"))?;
            made.push(secret);
        }
        kube::create(&work.connection, &objects).map_err(|error| error.during("making the job's objects"))
    })();
    let Err(error) = result else { return Ok(()) };
    for object in &made {
        if let Err(left) = kube::delete(&work.connection, object) {
            events::log(Level::Warning, &format!("{} `{}` is left: {}", object.kind, object.name, left.message), &[]);
        }
    }
    Err(error)
}

/// Brings what pods still keep: whoever has watched has brought it, and nobody may have. Answers what is known then.
fn bring_what_waits(handle: &Handle, snapshot: Option<Snapshot>) -> Option<Snapshot> {
    let mut known = snapshot?;
    let mut bringing = Bringing::default();
    for _ in 0..LATER_TRIES {
        let outstanding = |pod: &&kube::Pod| {
            let newest = outcome::newest(&known, pod.index).is_some_and(|newest| newest.name == pod.name);
            newest && !results::has_come(handle, pod.index, Some(pod))
        };
        let pods: Vec<kube::Pod> = known.pods.iter().filter(outstanding).cloned().collect();
        bringing.attempt(handle, &pods);
        if !bringing.is_unsettled(&pods) {
            break;
        }
        if let Ok(Some(news)) = kube::next_change(&handle.connection(), &handle.job, known.change, LATER_MS) {
            known = news;
        }
    }
    Some(known)
}

/// Says what should have come and cannot: the run may succeed without it.
fn missing(collection: &mut Collection, what: String) {
    events::log(Level::Warning, &what, &[]);
    collection.missing.push(what);
}

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Guest for Plugin {
    fn describe() -> TargetInfo {
        TargetInfo {
            deployment_type: "kubernetes".to_owned(),
            default_launcher: "native".to_owned(),
            features: ["images", "multi-node", "detach"].map(str::to_owned).to_vec(),
        }
    }

    fn plan(job: Job) -> Result<WorkPlan> {
        prepare(&job)?.plan()
    }

    fn launch(job: Job, _plan: WorkPlan) -> Result<String> {
        let work = prepare(&job)?;
        for warning in &work.warnings {
            events::log(Level::Warning, warning, &[]);
        }
        events::state(Phase::Starting, "looking at the cluster");
        let server = kube::describe_server(&work.connection)?;
        look_for_devices(&work);
        make(&work)?;
        events::log(
            Level::Info,
            &format!("Job {} is made in namespace {}, {}", work.name, server.namespace, server.version),
            &[Entry { name: "job".into(), value: work.name.clone() }],
        );
        let plain = |pattern: &&String| !pattern.contains(['*', '?']);
        let handle = Handle {
            kubeconfig: kubeconfig(&work.connection.kubeconfig, &server),
            server: said(&server, "address").to_owned(),
            ttl: work.ttl,
            context: server.context,
            namespace: server.namespace,
            job: work.name,
            directory: job.paths.directory.clone(),
            nodes: job.topology.nodes,
            start_timeout: work.start_timeout,
            queue_timeout: work.queue_timeout,
            deadline: work.deadline,
            expected: job.collect.iter().filter(plain).cloned().collect(),
            collector: work.collector.as_ref().map(ToString::to_string),
        };
        serde_json::to_string(&handle).map_err(|error| failed(error.to_string()))
    }

    fn watch(handle: String) -> Result<Ending> {
        watch::follow(&Handle::read(&handle)?)
    }

    fn status(handle: String) -> Result<JobStatus> {
        let handle = Handle::read(&handle)?;
        let snapshot = handle.look()?.ok_or_else(|| failed(format!("nothing is known about Job {}", handle.job)))?;
        let standing = outcome::standing(&snapshot, handle.nodes);
        // Pods that keep their results keep the Job from ending: somebody has to fetch them, who asks this first.
        let ended = outcome::is_over(&snapshot) || outcome::models_have_ended(&snapshot, handle.nodes);
        let ending = ended.then(|| outcome::ending(&handle.job, &snapshot, handle.nodes, handle.ttl, None, true));
        Ok(JobStatus { phase: standing.phase, reason: standing.reason, ending })
    }

    fn logs(handle: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let snapshot = handle.look()?.ok_or_else(|| failed(format!("nothing is known about Job {}", handle.job)))?;
        let mut output = watch::Output::of(&handle);
        output.so_far(&snapshot);
        if output.is_complete() { Ok(()) } else { Err(output.failure()) }
    }

    fn cancel(handle: String, _reason: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        kube::delete(&handle.connection(), &ObjectRef { kind: "Job".to_owned(), name: handle.job.clone() })
    }

    fn collect(handle: String) -> Result<Collection> {
        let handle = Handle::read(&handle)?;
        let mut collection = Collection { files: Vec::new(), facts: Vec::new(), missing: Vec::new() };
        let fact = |name: &str, value: String| Entry { name: name.to_owned(), value };
        collection.facts.push(fact("machine_name", handle.job.clone()));
        if let Some(why) = results::unclear(&handle) {
            collection.facts.push(fact("unclear", why));
        }
        let snapshot = bring_what_waits(&handle, handle.look().unwrap_or_default());
        let pod_of = |index: u32| snapshot.as_ref().and_then(|snapshot| outcome::newest(snapshot, index));
        let mut outstanding = Vec::new();
        for index in 0..handle.nodes {
            let pod = pod_of(index);
            if pod.is_none_or(outcome::may_have_begun) && !results::has_come(&handle, index, pod) {
                outstanding.push(index);
            }
        }
        if !outstanding.is_empty()
            && let Err(error) = results::bring_from_claim(&handle, &outstanding)
        {
            missing(&mut collection, format!("what is on the claim could not be brought: {}", error.message));
        }
        let first = pod_of(0);
        if let Some(commit) = first.and_then(outcome::result).and_then(|result| result.git_commit) {
            collection.facts.push(fact("git_commit", commit));
        }
        if let Some(digest) = first.and_then(outcome::model).map(|model| model.image_digest.clone())
            && !digest.is_empty()
        {
            collection.facts.push(fact("image_digest", digest));
        }
        for index in 0..handle.nodes {
            collection.files.extend(results::brought(&handle, index)?);
            if results::has_come(&handle, index, None) {
                continue;
            }
            let unkept = || {
                let why = "its pod was gone, or kept them no longer than `k8s.results_wait`";
                outstanding.contains(&index).then(|| why.to_owned())
            };
            if let Some(problem) = results::problem(&handle, index).or_else(unkept) {
                missing(&mut collection, format!("the files of node {index} could not be brought: {problem}"));
            }
        }
        for name in &handle.expected {
            if !collection.files.iter().any(|file| file.node == 0 && file.name == *name) {
                collection.missing.push(format!("`{name}` did not come from the work directory of the first node"));
            }
        }
        Ok(collection)
    }

    fn release(handle: String) -> Result<()> {
        let handle = Handle::read(&handle)?;
        let connection = handle.connection();
        let mut owned = kube::list_owned(&connection)?;
        // What reads the others goes first.
        owned.sort_by_key(|object| object.kind != "Job");
        // Pods of a Job that somebody else has deleted are on their way out, and are waited for.
        let job_is_there = owned.iter().any(|object| object.kind == "Job");
        if let (false, Ok(Some(snapshot))) = (job_is_there, handle.look()) {
            for pod in snapshot.pods {
                let _ = kube::delete(&connection, &ObjectRef { kind: "Pod".to_owned(), name: pod.name });
            }
        }
        let mut trouble = None;
        for object in &owned {
            match kube::delete(&connection, object) {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => {
                    trouble = trouble.or(Some(error.during(&format!("deleting {} `{}`", object.kind, object.name))))
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, kubeconfig: &str) -> Server {
        let entry = |name: &str, value: &str| Entry { name: name.into(), value: value.into() };
        Server {
            version: "v1.33.0".into(),
            context: "lab".into(),
            namespace: "n".into(),
            extra: vec![entry("address", address), entry("kubeconfig", kubeconfig)],
        }
    }

    fn handle(server: &str) -> Handle {
        let text = r#"{"kubeconfig": "", "context": "lab", "namespace": "n", "job": "j", "directory": "/d", "nodes": 1,
            "start_timeout": 300, "queue_timeout": null, "expected": [], "collector": null}"#;
        let handle: Handle = serde_json::from_str(text).unwrap();
        Handle { server: server.into(), ..handle }
    }

    #[test]
    fn a_context_that_leads_to_another_cluster_now_is_refused() {
        assert!(handle("one:6443").recognise(&server("one:6443", "/a")).is_ok());
        let error = handle("one:6443").recognise(&server("two:6443", "/a")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert!(error.message.contains("one:6443") && error.message.contains("two:6443"), "{}", error.message);
        // One of an earlier version does not say where its cluster is.
        assert!(handle("").recognise(&server("two:6443", "/a")).is_ok());
    }

    #[test]
    fn the_file_of_connections_that_was_found_is_kept_where_it_is_one() {
        for (named, found, kept) in [
            ("", "/home/me/.kube/config", "/home/me/.kube/config"),
            ("", "/a:/b", ""),
            ("", "in-cluster", ""),
            ("", "relative/config", ""),
            ("/mine", "/mine", "/mine"),
        ] {
            assert_eq!(kubeconfig(named, &server("one:6443", found)), kept, "{named} {found}");
        }
    }
}

maddock_sdk::manifest!("plugin.json");
// Names of a component's exports are none that a native linker takes.
#[cfg(target_arch = "wasm32")]
maddock_sdk::target::export!(Plugin with_types_in maddock_sdk::target);
