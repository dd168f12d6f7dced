//! The texts that run in a pod: what prepares it, what runs the job's script, and what keeps its results until they are
//! fetched.
//!
//! They are written for any `sh`; every value goes through [`quote`]. Names of the scripts' own variables are such that no
//! variable of a job is one of them: a pod's variables are in the same environment.

use std::fmt::Write as _;

use maddock_sdk::target::{Job, NodeRole};
use maddock_sdk::{entry, quote, references};

/// Where the files that were brought along are mounted, to be read only.
pub const GIVEN: &str = "/maddock";
/// The job's surroundings.
pub const WORKSPACE: &str = "/workspace";
/// What is brought back.
pub const RESULTS: &str = "/results";
/// Where a container leaves its last words for the cluster.
const LAST_WORDS: &str = "/dev/termination-log";

/// What prepares a pod: the files are copied to where they can be changed.
#[must_use]
pub fn prepare() -> String {
    format!(
        "#!/bin/sh\n\
         # Puts the job's files where they can be changed. Written by maddock.\n\
         cp -RL {GIVEN}/w/. {WORKSPACE}/ || exit 1\n\
         mkdir -p {WORKSPACE}/{}\n",
        entry::STATE
    )
}

/// The directory of one pod's results.
#[must_use]
pub fn results_directory(job: &str, index: u32) -> String {
    format!("{RESULTS}/{job}/{index}")
}

/// What whoever fetches results has to say to what keeps them, each by a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// They are being fetched, from this pod or from one before it.
    Held,
    /// They have been.
    Fetched,
    /// They cannot be: the pod keeps them for no longer than it would have by itself.
    LetGo,
}

impl Word {
    /// The file.
    #[must_use]
    pub fn file(self) -> String {
        let name = match self {
            Self::Held => "held",
            Self::Fetched => "fetched",
            Self::LetGo => "let-go",
        };
        format!("{WORKSPACE}/{}/{name}", entry::STATE)
    }
}

/// The entry scripts of a job's nodes, each text once, and for each node which it is.
#[must_use]
pub fn entries(job: &Job) -> (Vec<String>, Vec<usize>) {
    let (mut texts, mut of_node): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
    for node in 0..job.topology.nodes {
        let text = entry::script(job, role(job, node));
        let place = texts.iter().position(|known| *known == text).unwrap_or_else(|| {
            texts.push(text);
            texts.len().saturating_sub(1)
        });
        of_node.push(place);
    }
    (texts, of_node)
}

/// The name of an entry script in the workspace.
#[must_use]
pub fn entry_name(number: usize) -> String {
    if number == 0 { entry::SCRIPT.to_owned() } else { format!("{}/entry-{number}.sh", entry::STATE) }
}

/// One node's role, where it has one.
#[must_use]
pub fn role(job: &Job, node: u32) -> Option<&NodeRole> {
    job.topology.roles.iter().find(|role| role.node == node)
}

/// What differs from pod to pod: the launcher's variables and the entry script. `settled` are names whose values the user
/// has given.
#[must_use]
pub fn roles(job: &Job, of_node: &[usize], name: &str, domain: &str, settled: &[String]) -> String {
    let mut text = String::from(ROLES_HEAD);
    text.push_str("export JOB_COMPLETION_INDEX=$maddock_rank POD_INDEX=$maddock_rank\n");
    // Pods search the names of their own namespace, whatever the cluster's domain is.
    let below = match domain {
        "" => String::new(),
        domain => format!(".$MAD_K8S_NAMESPACE.svc.{}", quote::word(domain)),
    };
    let address = |node: u32| match job.topology.nodes {
        1 => "localhost".to_owned(),
        _ => format!("{0}-{node}.{0}{below}", quote::word(name)),
    };
    let all: Vec<String> = (0..job.topology.nodes).map(address).collect();
    let _ = writeln!(text, "export {}={} {}={}", references::MAIN_NODE, address(0), references::NODES, all.join(","));
    text.push_str("case $maddock_rank in\n");
    for (node, place) in (0..job.topology.nodes).zip(of_node) {
        let _ = writeln!(text, "{node})");
        for variable in role(job, node).into_iter().flat_map(|role| &role.env) {
            // What only the nodes know is put in by the entry script.
            if !settled.contains(&variable.name)
                && let Some(value) = references::plain(&variable.value)
            {
                let _ = writeln!(text, "  export {}={}", variable.name, quote::word(&value));
            }
        }
        let _ = writeln!(text, "  maddock_entry={}\n  ;;", quote::word(&entry_name(*place)));
    }
    text.push_str("*)\n  echo \"maddock: there is no part of this job for a pod with index $maddock_rank\" >&2\n  exit 125\n  ;;\nesac\n");
    text
}

/// What a pod's main container runs.
#[must_use]
pub fn node(job: &Job, name: &str) -> String {
    let mut text = String::from(NODE_HEAD);
    let _ = writeln!(text, "maddock_results={RESULTS}/{}/$maddock_rank", quote::word(name));
    let _ = writeln!(text, "maddock_work={WORKSPACE}/{}", quote::word(&job.paths.work_directory));
    if job.topology.gpus_per_node > 0 {
        text.push_str(ARCHITECTURE);
    }
    text.push_str(NODE_SETUP);
    let globs: Vec<String> = job.collect.iter().filter_map(|pattern| quote::pattern(pattern)).collect();
    if !globs.is_empty() {
        let _ = writeln!(
            text,
            "if cd -- \"$maddock_work\"; then\n  for maddock_file in {}; do maddock_keep \"$maddock_file\"; done\n  cd /\nfi",
            globs.join(" ")
        );
    }
    let _ = writeln!(
        text,
        "[ ! -f \"$maddock_state/result\" ] || cat \"$maddock_state/result\" > {LAST_WORDS} 2> /dev/null\n\
         : > \"$maddock_state/done\"\n\
         exit \"$maddock_code\""
    );
    text
}

/// Seconds for which results are kept while they are being fetched.
const HOLD: u64 = 3600;

/// What keeps a pod's results until they are fetched: `wait` seconds at most, unless somebody says that they are being fetched.
#[must_use]
pub fn keeper(wait: u64) -> String {
    let hold = if wait == 0 { 0 } else { HOLD };
    format!("{KEEPER_HEAD}maddock_left={wait} maddock_hold={hold}\n{KEEPER}")
}

const ROLES_HEAD: &str = "# What differs from pod to pod of a job. Written by maddock.\n";

const NODE_HEAD: &str = r"#!/bin/sh
# One pod's part of a job: runs its script in the workspace and keeps what is brought back. Written by maddock.
# There is no `set -e`: whatever becomes of the model, its outcome and its files are kept.
set -u
maddock_state=/workspace/.maddock
maddock_rank=${JOB_COMPLETION_INDEX:-0}
";

/// What the machine that hands the job in cannot know.
const ARCHITECTURE: &str = r#"if [ -z "${MAD_SYSTEM_GPU_ARCHITECTURE:-}" ] && command -v rocminfo > /dev/null 2>&1; then
  MAD_SYSTEM_GPU_ARCHITECTURE=$(rocminfo 2> /dev/null | grep -o -m 1 'gfx[0-9a-f]*')
  export MAD_SYSTEM_GPU_ARCHITECTURE
fi
"#;

const NODE_SETUP: &str = r#"maddock_child= maddock_heard=0 maddock_code=125

maddock_say() { printf 'maddock: %s\n' "$*" >&2; }

maddock_asked_to_end() {
  maddock_heard=1
  [ -z "$maddock_child" ] || kill -TERM "$maddock_child" 2> /dev/null
}
trap maddock_asked_to_end TERM

# A file of the work directory, with the directories above it.
maddock_keep() {
  [ -f "$1" ] || return 0
  mkdir -p -- "$maddock_results/${1%/*}" && cp -f -- "$1" "$maddock_results/$1" || maddock_say "$1 cannot be kept"
}

# Held as long as this lives, so that the keeper of the results sees an end that leaves no word.
if command -v flock > /dev/null 2>&1 && (: > "$maddock_state/lock") && exec 9> "$maddock_state/lock" && flock 9; then
  : > "$maddock_state/started"
fi
mkdir -p -- "$maddock_results" || maddock_say 'there is no place for results'

if [ "$maddock_heard" -ne 0 ]; then
  maddock_code=143
elif ! command -v bash > /dev/null 2>&1; then
  maddock_say 'the image has no bash, which the script of the job needs'
  maddock_code=127
else
  ( trap - TERM
    . /maddock/roles.sh
    exec bash "/workspace/$maddock_entry" 9>&- ) &
  maddock_child=$!
  while :; do
    wait "$maddock_child"
    maddock_code=$?
    kill -0 "$maddock_child" 2> /dev/null || break
  done
  maddock_child=
fi

# Whatever became of it.
"#;

const KEEPER_HEAD: &str = r"#!/bin/sh
# Keeps a pod's results until they are fetched, for a while. Written by maddock.
set -u
maddock_state=/workspace/.maddock
";

const KEEPER: &str = r#"trap 'exit 0' TERM
maddock_nap() {
  sleep "$1" &
  wait $!
}
# Without `flock` only who has looked for the results says that a model which was killed has ended.
while [ ! -e "$maddock_state/done" ] && [ ! -e "$maddock_state/fetched" ] && [ ! -e "$maddock_state/let-go" ]; do
  if [ -e "$maddock_state/started" ] && flock -n "$maddock_state/lock" true 2> /dev/null; then break; fi
  maddock_nap 2
done
while [ ! -e "$maddock_state/fetched" ]; do
  if [ -e "$maddock_state/held" ] && [ ! -e "$maddock_state/let-go" ] && [ "$maddock_hold" -gt 0 ]; then
    maddock_hold=$((maddock_hold - 1))
  elif [ "$maddock_left" -gt 0 ]; then
    maddock_left=$((maddock_left - 1))
  else
    break
  fi
  maddock_nap 1
done
exit 0
"#;
