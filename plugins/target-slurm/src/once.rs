//! Jobs whose script runs once, on the batch host, and starts by itself what runs on the nodes (the role `batch`).
//!
//! Its workspace is the shared one, not a copy: what the script starts on other nodes finds its files there. Results are
//! looked for where such scripts leave them.

use std::fmt::Write as _;

use maddock_sdk::target::Job;
use maddock_sdk::types::EnvValue;
use maddock_sdk::{Result, entry, quote};

use crate::allocation::Allocation;
use crate::plan::{self, Work};
use crate::script;
use crate::section::Section;

/// The role that runs once.
const ROLE: &str = "batch";
/// The variable by which such scripts know their image.
const IMAGE: &str = "DOCKER_IMAGE_NAME";
/// The name under which the results are brought back: `perf.csv` in the working directory has the rows of all runs.
pub const RESULTS: &str = "slurm_multi.csv";

/// Whether a job is one of these.
#[must_use]
pub fn is(job: &Job) -> bool {
    matches!(job.topology.roles.as_slice(), [role] if role.name == ROLE)
}

/// Prepares such a job, to be handed in or for the allocation that there is.
///
/// # Errors
/// The job or its configuration cannot be.
pub fn prepare(job: &Job, directories: &[String], allocation: Option<Allocation>) -> Result<Work> {
    let section = Section::read(&job.config)?;
    let warnings = plan::check(job, &section)?;
    if let Some(allocation) = &allocation {
        allocation.holds(job.topology.nodes)?;
    }
    let role = job.topology.roles.first();
    let directory = &job.paths.directory;
    let own = plan::node_directory(directory, 0);
    let text = batch(job, &section);
    let mut variables = script::variables(job, &section, role, 0)?;
    if let Some(image) = job.image.as_ref().filter(|_| !is_given(job, IMAGE)) {
        let name = image.registry_reference.as_ref().unwrap_or(&image.reference);
        let _ = writeln!(variables, "export {IMAGE}={}", quote::word(name));
    }
    let files = vec![
        (format!("{directory}/job.sbatch"), text.clone(), 0o644),
        (format!("{own}/env.sh"), variables, 0o600),
        (
            format!("{}/{}", job.paths.workspace, entry::SCRIPT),
            entry::script(&plan::without_keep_alive(job), role),
            0o755,
        ),
    ];
    let copies = directories
        .iter()
        .map(|name| (format!("{}/scripts/{name}", job.paths.tree), format!("{}/scripts/{name}", job.paths.workspace)))
        .collect();
    // Nodes that are there already are not waited for.
    let longest = allocation.is_none() && plan::time(job, &section) == plan::Time::Longest;
    let (check, queue_timeout) = match &allocation {
        Some(_) => (false, None),
        None => (section.check, section.queue_timeout),
    };
    let batch = plan::batch(job, section, text);
    Ok(Work { copies, files, batch, share: None, check, longest, queue_timeout, allocation, warnings })
}

fn is_given(job: &Job, name: &str) -> bool {
    job.env.iter().any(|variable| variable.name == name)
}

/// The image that the nodes need before the script begins; none where it is theirs already.
fn image(job: &Job) -> Option<String> {
    let given =
        job.env.iter().rev().find(|variable| variable.name == IMAGE).and_then(|variable| match &variable.value {
            EnvValue::Text(text) => Some(text.clone()),
            EnvValue::Secret(_) => None,
        });
    let of_job = || {
        let image = job.image.as_ref().filter(|image| !image.local)?;
        Some(image.registry_reference.clone().unwrap_or_else(|| image.reference.clone()))
    };
    // An image of a registry has its host or its owner in the name; one that was built here begins with `ci-`.
    given.or_else(of_job).filter(|name| name.contains(['/', '.']) && !name.starts_with("ci-"))
}

fn batch(job: &Job, section: &Section) -> String {
    let mut text = String::from(HEAD);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}={}", quote::word(value));
    };
    line("directory", &job.paths.directory);
    line("workspace", &job.paths.workspace);
    line("work", &job.paths.work_directory);
    line("results", &section.results_dir);
    text.push_str(script::NODES);
    text.push_str(SETUP);
    text.push_str(script::ADDRESS);
    script::modules(&mut text, section, "give_up 'a module cannot be loaded'");
    if let Some(image) = image(job) {
        let nodes = job.topology.nodes;
        let _ = writeln!(
            text,
            "srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --input=none docker pull -- {} ||\n  \
             give_up 'not every node could pull the image'",
            quote::word(&image)
        );
    }
    text.push_str(RUN);
    let globs: Vec<String> = job.collect.iter().filter_map(|pattern| script::glob(pattern)).collect();
    if !globs.is_empty() {
        let _ = writeln!(text, "  for file in {}; do keep \"$file\"; done", globs.join(" "));
    }
    text.push_str(END);
    text
}

const HEAD: &str = r"#!/usr/bin/env bash
# One job of maddock whose script runs once and starts by itself what runs on the nodes. Written by maddock.
# There is no `set -e`: whatever becomes of the script, its outcome and its files are brought back.
set -u
unset CDPATH
";

const SETUP: &str = r#"node=$directory/nodes/0
host=${SLURMD_NODENAME:-$(hostname)}
if [ ! -r "$node/env.sh" ]; then
  printf 'maddock: %s is not on this node: runs belong on a file system that all nodes share\n' "$directory" >&2
  exit 125
fi
cd / || exit 125
(umask 077 && : >> "$node/output.log")
{ exec >> "$node/output.log" 2>&1 < /dev/null; } || exit 125
child= heard=0 code=125

say() { printf 'maddock: %s: %s\n' "$host" "$*"; }

# NAME, text on standard input: a file of the node's directory that is there as a whole or not at all.
leave() { cat > "$node/$1.tmp" && mv -f -- "$node/$1.tmp" "$node/$1"; }

report() {
  printf 'exit_code=%s\ntimestamp=%s\n' "$code" "$(date +%Y-%m-%dT%H:%M:%S%z)" > "$directory/complete"
  printf 'exit=%s\nhost=%s\n' "$code" "$host" | leave ended
  exit "$code"
}

give_up() {
  code=125
  say "$*"
  report
}

asked_to_end() {
  heard=1
  [ -z "$child" ] || kill -TERM "$child" 2> /dev/null
}
trap asked_to_end TERM

# A file of the work directory, with the directories above it.
keep() {
  [ -f "$1" ] || return 0
  mkdir -p -- "$node/files/${1%/*}" && cp -f -- "$1" "$node/files/$1" || say "$1 cannot be brought back"
}

printf 'host=%s\n' "$host" | leave started
"#;

const RUN: &str = r#"
if [ "$heard" -eq 0 ]; then
  # In a subshell, and with nothing but arguments: the job's variables are not this script's.
  set -- "$workspace/.maddock/entry.sh" "$node/env.sh"
  ( trap - TERM; . "$2"; exec bash "$1" ) &
  child=$!
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2> /dev/null || break
  done
  child=
else
  code=143
fi

# Whatever became of it.
[ ! -f "$workspace/.maddock/result" ] || leave result < "$workspace/.maddock/result"
shopt -s nullglob
if cd -- "$workspace/$work"; then
"#;

const END: &str = r#"  # The rows, from the first place that has some; files that were there before are not this job's.
  shared=/shared_inference/${USER:-$(id -un)}
  id=${SLURM_JOB_ID:-none}
  for file in ${results:+"$results"/perf*.csv} "$shared/$id/perf.csv" "$shared/model_blog_logs/$id/perf.csv" \
    slurm_output/perf_csv/*"$id"*.csv perf.csv; do
    [ -f "$file" ] && ! [ "$node/started" -nt "$file" ] || continue
    mkdir -p -- "$node/files" && cp -f -- "$file" "$node/files/slurm_multi.csv" && printf '%s\n' "$file" | leave results
    break
  done
  cd /
fi
report
"#;
