//! What a pod has left: brought to the job's directory while the pod still waits for that, and read from there afterwards.
//!
//! A pod's outcome needs no access to it: it is the container's last words, which the cluster keeps. Files do.

use maddock_sdk::kube::{self, Pod};
use maddock_sdk::target::CollectedFile;
use maddock_sdk::types::Error;
use maddock_sdk::{Result, failed, files};

use crate::Handle;
use crate::objects::{self, KEEPER};
use crate::outcome;
use crate::script;

/// Waits for the pod that holds a claim, and how long each is.
const HELD_WAITS: u32 = 60;
const HELD_WAIT_MS: u32 = 1000;
/// A note of ours is a line.
const NOTE_LIMIT: u64 = 64 << 10;

/// The directory of what came from one node.
fn directory(handle: &Handle, index: u32) -> String {
    format!("{}/nodes/{index}", handle.directory)
}

fn note(handle: &Handle, index: u32, name: &str) -> Option<String> {
    let bytes = files::read(&format!("{}/{name}", directory(handle, index)), NOTE_LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_note(handle: &Handle, index: u32, name: &str, text: &str) -> Result<()> {
    files::write(&format!("{}/{name}", directory(handle, index)), text.as_bytes(), 0o644)
}

/// Notes that an earlier attempt of a node wrote a measurement, too: the log does not say which is the job's.
///
/// # Errors
/// It cannot be written.
pub fn note_unclear(handle: &Handle, index: u32, pod: &str) -> Result<()> {
    write_note(handle, index, "unclear", pod)
}

/// Why what the job's log holds is no measurement, where it is none.
#[must_use]
pub fn unclear(handle: &Handle) -> Option<String> {
    let pod = (0..handle.nodes).find_map(|index| note(handle, index, "unclear"))?;
    Some(format!(
        "pod {} wrote a measurement, failed, and was run again: which attempt the log's is of is not clear; \
         leave `k8s.backoff_limit` at 0, or name the model's results file by `multiple_results`",
        pod.trim()
    ))
}

/// Whether a pod's model has ended and its results wait.
#[must_use]
pub fn wait(pod: &Pod) -> bool {
    let ended = outcome::model(pod).is_some_and(outcome::has_ended);
    let kept = pod.containers.iter().any(|container| container.name == KEEPER && container.state == "running");
    ended && kept && !pod.deleted
}

/// Brings a pod's files, and tells it that nothing keeps it any longer.
///
/// # Errors
/// They cannot be brought; the reason is noted, too, for whoever collects.
pub fn bring(handle: &Handle, pod: &Pod) -> Result<()> {
    let source = script::results_directory(&handle.job, pod.index);
    let destination = format!("{}/{}", directory(handle, pod.index), pod.name);
    let brought = kube::copy_out(&handle.connection(), &pod.name, KEEPER, &source, &destination);
    let noted = match &brought {
        Ok(_) => write_note(handle, pod.index, "pod", &pod.name),
        Err(error) => write_note(handle, pod.index, "problem", &explain(error)),
    };
    let told = kube::exec(&handle.connection(), &pod.name, KEEPER, &["touch".to_owned(), script::fetched()]);
    brought.map_err(|error| error.during("bringing results"))?;
    noted?;
    // One that is not told ends by itself, later.
    told.map(|_| ()).map_err(|error| error.during("letting the pod go"))
}

/// Brings what nobody fetched from these nodes' pods, from the claim that it lies on.
///
/// # Errors
/// The claim cannot be held, or not be read.
pub fn bring_from_claim(handle: &Handle, nodes: &[u32]) -> Result<()> {
    let Some(collector) = &handle.collector else { return Ok(()) };
    let connection = handle.connection();
    let held = kube::create(&connection, std::slice::from_ref(collector))?;
    let brought = held_pod(handle).and_then(|pod| {
        for &index in nodes {
            let source = script::results_directory(&handle.job, index);
            let destination = format!("{}/claim", directory(handle, index));
            kube::copy_out(&connection, &pod, KEEPER, &source, &destination)?;
            write_note(handle, index, "pod", "claim")?;
        }
        Ok(())
    });
    for object in &held {
        kube::delete(&connection, object)?;
    }
    brought
}

/// The pod that holds the claim, once it runs.
fn held_pod(handle: &Handle) -> Result<String> {
    let name = objects::collector_name(&handle.job);
    let mut seen = 0;
    for _ in 0..HELD_WAITS {
        let Some(news) = kube::next_change(&handle.connection(), &name, seen, HELD_WAIT_MS)? else { continue };
        seen = news.change;
        let runs = |pod: &&Pod| pod.containers.iter().any(|container| container.state == "running") && !pod.deleted;
        if let Some(pod) = news.pods.iter().find(runs) {
            return Ok(pod.name.clone());
        }
        if outcome::is_over(&news) {
            break;
        }
    }
    Err(failed(format!("the pod of Job {name}, which holds the claim with the results, did not begin")))
}

fn explain(error: &Error) -> String {
    let forbidden = error.details.iter().any(|detail| detail.name == "reason" && detail.value == "Forbidden");
    let needed = if forbidden { "; the account needs `create` on `pods/exec`" } else { "" };
    format!("{}{needed}", error.message)
}

/// The files that came from one node.
///
/// # Errors
/// They cannot be listed.
pub fn brought(handle: &Handle, index: u32) -> Result<Vec<CollectedFile>> {
    let mut found = Vec::new();
    if let Some(pod) = note(handle, index, "pod") {
        let root = format!("{}/{}", directory(handle, index), pod.trim());
        list(&root, "", index, &mut found)?;
    }
    Ok(found)
}

/// Whether anything came from a node: of this pod of it, where one is named.
#[must_use]
pub fn has_come(handle: &Handle, index: u32, pod: Option<&Pod>) -> bool {
    note(handle, index, "pod")
        .is_some_and(|name| pod.is_none_or(|pod| matches!(name.trim(), known if known == pod.name || known == "claim")))
}

/// Why nothing came from a node, where that is known.
#[must_use]
pub fn problem(handle: &Handle, index: u32) -> Option<String> {
    note(handle, index, "problem")
}

fn list(root: &str, below: &str, node: u32, into: &mut Vec<CollectedFile>) -> Result<()> {
    let path = if below.is_empty() { root.to_owned() } else { format!("{root}/{below}") };
    if files::stat(&path)?.is_none() {
        return Ok(());
    }
    for entry in files::list_directory(&path)? {
        let name = if below.is_empty() { entry.name } else { format!("{below}/{}", entry.name) };
        match entry.kind {
            files::FileKind::Directory => list(root, &name, node, into)?,
            files::FileKind::File => into.push(CollectedFile { node, path: format!("{root}/{name}"), name }),
            files::FileKind::Other => {}
        }
    }
    Ok(())
}
