//! The texts that run on the cluster: the batch script, what each node does, and each node's variables.
//!
//! Every value goes through [`quote`]; there is no `set -e`, because exit codes are data and results are brought back
//! whatever became of the model. The batch script has no directives: they are members of the host's call.

use std::fmt::Write as _;

use maddock_sdk::target::{Job, NodeRole};
use maddock_sdk::types::EnvValue;
use maddock_sdk::{Result, local, quote};

use crate::section::Section;

/// The batch script. `program` is the maddock that nodes run their share by, where they do.
#[must_use]
pub fn batch(job: &Job, section: &Section, program: Option<&str>) -> String {
    let mut text = String::from(BATCH_HEAD);
    let nodes = job.topology.nodes;
    let _ = writeln!(text, "directory={}", quote::word(&job.paths.directory));
    text.push_str(NODES);
    text.push_str(&BATCH_SETUP.replace("FILE", if program.is_some() { "node.json" } else { "node.sh" }));
    modules(&mut text, section, "exit 125");
    let start = match program {
        None => "bash \"$directory/node.sh\"",
        Some(program) => {
            let _ = writeln!(text, "program={}", quote::word(program));
            text.push_str(PROGRAM);
            "bash \"$directory/node.sh\" \"$program\""
        }
    };
    let _ = writeln!(
        text,
        "\nexec srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --input=none --kill-on-bad-exit=0 --wait=0 --export=ALL \\\n  \
         {start}"
    );
    text
}

/// The lines that load the section's modules, and what is done where one cannot be.
pub(crate) fn modules(text: &mut String, section: &Section, otherwise: &str) {
    if section.modules.is_empty() {
        return;
    }
    text.push_str(MODULES);
    for module in &section.modules {
        let _ = writeln!(text, "module load -- {} || {otherwise}", quote::word(module));
    }
}

/// What starts a node's share where maddock itself does it: only there the node's own address is known.
#[must_use]
pub fn start() -> String {
    [START_HEAD, ADDRESS, START_END].concat()
}

/// What each node does; the same text for all, which finds its own part by its rank.
#[must_use]
pub fn node(job: &Job, section: &Section) -> String {
    let mut text = String::from(NODE_HEAD);
    let _ = writeln!(text, "directory={}", quote::word(&job.paths.directory));
    let _ = writeln!(text, "work={}", quote::word(&job.paths.work_directory));
    text.push_str(NODE_SETUP);
    text.push_str(ADDRESS);
    if job.topology.nodes > 1 {
        let _ = writeln!(text, "nodes={} begin_within={}", job.topology.nodes, section.start_timeout);
        text.push_str(NODE_PEERS);
    } else {
        text.push_str("peers=\n");
    }
    text.push_str(NODE_RUN);
    let globs: Vec<String> = job.collect.iter().filter_map(|pattern| glob(pattern)).collect();
    if !globs.is_empty() {
        let _ = writeln!(text, "shopt -s nullglob\nif cd -- \"$place/$work\"; then");
        let _ = writeln!(text, "  for file in {}; do keep \"$file\"; done\n  cd /\nfi", globs.join(" "));
    }
    text.push_str(NODE_END);
    text
}

/// A pattern of `*` and `?` as a shell's word in which nothing else has a meaning; none for one that leads elsewhere.
pub(crate) fn glob(pattern: &str) -> Option<String> {
    let segments: Vec<&str> = pattern.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
    if segments.is_empty() || segments.contains(&"..") || pattern.starts_with('/') || pattern.contains('\0') {
        return None;
    }
    // In front, so that no name is an option.
    let mut word = String::from("./");
    let mut literal = String::new();
    let flush = |literal: &mut String, word: &mut String| {
        if !literal.is_empty() {
            word.push_str(&quote::word(literal));
            literal.clear();
        }
    };
    for letter in segments.join("/").chars() {
        if matches!(letter, '*' | '?') {
            flush(&mut literal, &mut word);
            word.push(letter);
        } else {
            literal.push(letter);
        }
    }
    flush(&mut literal, &mut word);
    Some(word)
}

/// Variables that models find on every node.
pub(crate) fn of_all_nodes(job: &Job) -> Vec<(&'static str, String)> {
    vec![
        ("MAD_DEPLOYMENT_TYPE", "slurm".to_owned()),
        ("MAD_IN_SLURM_JOB", "1".to_owned()),
        ("MAD_TOTAL_NODES", job.topology.nodes.to_string()),
        ("MAD_LAUNCHER_TYPE", job.topology.launcher.clone()),
        ("GPUS_PER_NODE", job.topology.gpus_per_node.to_string()),
    ]
}

/// Variables that differ from node to node.
pub(crate) fn of_node(rank: u32) -> Vec<(&'static str, String)> {
    vec![("MAD_NODE_RANK", rank.to_string()), ("MAD_COLLECT_METRICS", (rank == 0).to_string())]
}

/// The network that collectives use, where somebody says it.
pub(crate) fn of_network(section: &Section) -> Vec<(&'static str, String)> {
    let names: &[&'static str] =
        if section.network_interface.is_empty() { &[] } else { &["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"] };
    names.iter().map(|name| (*name, section.network_interface.clone())).collect()
}

/// The variables of one node. Secrets are not here: they come with the batch job's own environment.
///
/// # Errors
/// A name that no shell could have.
pub fn variables(job: &Job, section: &Section, role: Option<&NodeRole>, rank: u32) -> Result<String> {
    let mut text = String::from(ENV_HEAD);
    let mut export = |name: &str, word: &str| {
        let _ = writeln!(text, "export {name}={word}");
    };
    for (name, value) in of_all_nodes(job).into_iter().chain(of_node(rank)).chain(of_network(section)) {
        export(name, &quote::word(&value));
    }
    export("MAD_SLURM_JOB_ID", "\"${SLURM_JOB_ID:-}\"");
    for variable in local::environment(job, role)? {
        let EnvValue::Text(value) = &variable.value else { continue };
        export(&variable.name, &quote::word(value));
    }
    Ok(text)
}

const BATCH_HEAD: &str = r"#!/usr/bin/env bash
# One job of maddock on the nodes that the scheduler gave it: each does its share once. Written by maddock.
set -u
";

/// The nodes' names, in the order of their tasks.
pub(crate) const NODES: &str = r#"# Launchers' values speak of the nodes by these names. Task 0 runs on the first node.
MADDOCK_NODES=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" | paste -s -d , -)
MADDOCK_NODES=${MADDOCK_NODES:-${SLURMD_NODENAME:-$(hostname)}}
export MADDOCK_NODES MADDOCK_MAIN_NODE=${MADDOCK_NODES%%,*}
"#;

/// A node's own address, as the others reach it: not that of the loop back, which some name services give.
pub(crate) const ADDRESS: &str = r#"for MADDOCK_NODE_ADDRESS in $(getent ahostsv4 "$host" | cut -d ' ' -f 1) $(hostname -I 2> /dev/null) "$host"; do
  case $MADDOCK_NODE_ADDRESS in 127.* | *:*) ;; *) break ;; esac
done
export MADDOCK_NODE_ADDRESS
"#;

const BATCH_SETUP: &str = r#"if [ ! -r "$directory/FILE" ]; then
  printf 'maddock: %s is not on this node: runs belong on a file system that all nodes share\n' "$directory" >&2
  exit 125
fi
"#;

const MODULES: &str = r#"if ! type module > /dev/null 2>&1; then
  for file in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh; do
    [ ! -r "$file" ] || . "$file"
  done
fi
"#;

const PROGRAM: &str = r#"if ! said=$("$program" --version 2>&1); then
  printf 'maddock: %s does not start on %s: %s\n' "$program" "$MADDOCK_MAIN_NODE" "$said" >&2
  printf 'maddock: nodes with another system need a static build of it: name one by slurm.maddock\n' >&2
  exit 125
fi
"#;

const START_HEAD: &str = r"#!/usr/bin/env bash
# Starts one node's share of a job, by the program that is the argument: what it cannot know is said. Written by maddock.
host=${SLURMD_NODENAME:-$(hostname)}
";

const START_END: &str = r#"if ! said=$("$1" --version 2>&1); then
  # The others would wait for this node for ever.
  said=${said//$'\n'/ }
  printf 'maddock: %s does not start on %s: %s\n' "$1" "$host" "$said" >&2
  node=${0%/*}/nodes/${SLURM_PROCID:-0}
  mkdir -p -- "$node" && printf 'exit=125\nhost=%s\npeer=0\ncause=never-started\nmessage=%s does not start: %s\n' \
    "$host" "$1" "${said:0:500}" > "$node/ended.tmp" && mv -f -- "$node/ended.tmp" "$node/ended"
  : > "${0%/*}/failed"
  exit 125
fi
exec "$1" __node "${0%/*}/node.json"
"#;

const NODE_HEAD: &str = r"#!/usr/bin/env bash
# What one node does for a job: works in a copy of the job's workspace on its own disk, and brings back the outcome.
# There is no `set -e`: whatever becomes of the model, its outcome and its files are brought back. Written by maddock.
set -u
unset CDPATH
";

const NODE_SETUP: &str = r#"rank=${SLURM_PROCID:-0}
node=$directory/nodes/$rank
host=${SLURMD_NODENAME:-$(hostname)}
cd / || exit 125
# What a model prints is not redacted yet: the log is the owner's alone.
(umask 077 && : >> "$node/output.log")
{ exec >> "$node/output.log" 2>&1 < /dev/null; } || exit 125
place= child= watcher= absent= heard=0 peer=0 code=125

say() { printf 'maddock: node %s (%s): %s\n' "$rank" "$host" "$*"; }

# NAME, text on standard input: a file of the node's directory that is there as a whole or not at all.
leave() { cat > "$node/$1.tmp" && mv -f -- "$node/$1.tmp" "$node/$1"; }

tidy() {
  [ -z "$watcher" ] || kill "$watcher" 2> /dev/null
  [ -z "$place" ] || rm -rf -- "$place"
}
trap tidy EXIT

report() {
  {
    printf 'exit=%s\nhost=%s\npeer=%s\n' "$code" "$host" "$peer"
    [ -z "$absent" ] || printf 'cause=lost\nmessage=%s\n' "$absent"
  } | leave ended
  exit "$code"
}

give_up() {
  code=125
  say "$*"
  [ -z "$peers" ] || : > "$directory/failed"
  report
}

asked_to_end() {
  heard=1
  [ -z "$child" ] || kill -TERM "$child" 2> /dev/null
}
trap asked_to_end TERM
trap 'peer=1; say "another node failed, so this one ends"; asked_to_end' USR1

# A file of the work directory, with the directories above it.
keep() {
  [ -f "$1" ] || return 0
  mkdir -p -- "$node/files/${1%/*}" && cp -f -- "$1" "$node/files/$1" || say "$1 cannot be brought back"
}

printf 'host=%s\n' "$host" | leave started
"#;

const NODE_PEERS: &str = r#"# Nodes wait for each other for hours: one that failed ends the others, and so does one that never began.
peers=1

missing() {
  local number=0 name names
  IFS=, read -r -a names <<< "${MADDOCK_NODES:-}"
  while [ "$number" -lt "$nodes" ]; do
    name=${names[number]:-}
    [ -e "$directory/nodes/$number/started" ] || printf 'node %s%s, ' "$number" "${name:+ ($name)}"
    number=$((number + 1))
  done
}

nobody() {
  absent=$(missing)
  absent="${absent%, } did not begin within $begin_within s: are the run's files there?"
  say "$absent"
  asked_to_end
}
trap nobody USR2

(
  trap - EXIT TERM USR1 USR2
  called=
  while sleep 3; do
    if [ -e "$directory/failed" ]; then kill -USR1 $$; exit; fi
    [ -z "$called" ] && [ "$SECONDS" -ge "$begin_within" ] || continue
    called=1
    if [ -n "$(missing)" ]; then kill -USR2 $$; exit; fi
  done
) &
watcher=$!
"#;

const NODE_RUN: &str = r#"
place=$(mktemp -d -- "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/maddock-${SLURM_JOB_ID:-0}-$rank-XXXXXXXX") ||
  give_up 'no directory for the work can be made on this node'
cp -R -- "$directory/workspace/." "$place/" && mkdir -p -- "$place/.maddock" &&
  cp -- "$node/entry.sh" "$place/.maddock/entry.sh" || give_up 'the workspace cannot be copied to this node'

if [ "$heard" -eq 0 ]; then
  # In a subshell, and with nothing but arguments: the job's variables are not this script's.
  set -- "$place/.maddock/entry.sh" "$node/env.sh"
  ( trap - EXIT TERM USR1 USR2; . "$2"; exec bash "$1" ) &
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
[ -z "$absent" ] || code=125
[ -z "$peers" ] || [ "$code" -eq 0 ] || : > "$directory/failed"

# Whatever became of it.
[ ! -f "$place/.maddock/result" ] || leave result < "$place/.maddock/result"
"#;

const NODE_END: &str = "report\n";

const ENV_HEAD: &str = "# The variables of one node's part of a job. Written by maddock.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_keep_their_stars_and_nothing_else() {
        assert_eq!(glob("*_output.csv").as_deref(), Some("./*_output.csv"));
        assert_eq!(glob("a b/$(id)?.csv").as_deref(), Some("./'a b/$(id)'?.csv"));
        assert_eq!(glob("[ab]{c,d}.csv").as_deref(), Some("./'[ab]{c,d}.csv'"));
        for elsewhere in ["/etc/passwd", "../x", "a/../../x", "", "."] {
            assert_eq!(glob(elsewhere), None, "{elsewhere}");
        }
    }
}
