//! The script that is a job's main process, the same on every target: hooks, model, result file, exit code.
//!
//! A target writes it to [`SCRIPT`] below the job's workspace and runs it with bash, in a container, a pod or on the host.
//! Every value of the job goes through [`quote`]; nothing of it may ever be expanded by the shell. The one exception is
//! `encapsulate`, a shell fragment by contract, which stands in the text as it is, in a file of its own so that a mistake in it
//! cannot take the result file along. No value may ever stand in a comment: a line break would end it.

use std::fmt::Write as _;

use crate::target::{Hook, Job, JobOptions, NodeRole};
use crate::{quote, references};

/// Where the script belongs, relative to the workspace.
pub const SCRIPT: &str = ".maddock/entry.sh";
/// Where the script leaves the outcome, relative to the workspace. See [`crate::job_result`].
pub const RESULT: &str = ".maddock/result";
/// The directory of both.
pub const STATE: &str = ".maddock";

/// Seconds past the time limit after which the script ends the job by itself: whoever watches is expected to come first.
const PATIENCE: u64 = 5;

impl JobOptions {
    /// Whether all of `asked` are set.
    #[must_use]
    pub fn has(&self, asked: Self) -> bool {
        self.bits() & asked.bits() == asked.bits()
    }
}

/// The entry script of one node's part of a job.
///
/// It ends with the model's exit code; a failed clone or before-script ends it with theirs, a failed after-script only counts
/// when the model succeeded. With `keep-alive` it stays after the result is written, until it is asked to end.
#[must_use]
pub fn script(job: &Job, role: Option<&NodeRole>) -> String {
    let mut text = String::from(HEAD);
    let work = &job.paths.work_directory;
    let _ = writeln!(text, "work=$workspace/{}\n", quote::word(work));
    text.push_str(FUNCTIONS);
    text.push_str(if job.options.has(JobOptions::KEEP_ALIVE) { STAY } else { LEAVE });
    text.push_str(&references::lines(job, role));
    text.push_str(&model_file(job, role));
    if let Some(limit) = job.time_limit {
        let _ = writeln!(text, "\nlimit={}", limit.saturating_add(PATIENCE));
        text.push_str(WATCHDOG);
    }
    text.push_str(START);
    if let Some(url) = &job.script.clone_url {
        text.push_str(&clone(job, url));
    }
    for hook in &job.script.before {
        let _ = writeln!(text, "before {}", hook_words(hook));
    }
    text.push_str(if job.options.has(JobOptions::SKIP_MODEL) { SKIP } else { MODEL });
    for hook in &job.script.after {
        let _ = writeln!(text, "after {}", hook_words(hook));
    }
    text.push_str("\nfinish\n");
    text
}

/// The model's command line as the script runs it, `encapsulate` included.
#[must_use]
pub fn command_line(job: &Job, role: Option<&NodeRole>) -> String {
    let script = &job.script;
    let command = match role.and_then(|role| role.command.as_deref()) {
        Some(command) => {
            let placeholder = format!("${}", references::SCRIPT);
            let element = |element: &String| {
                if *element == placeholder {
                    quote::words([&not_an_option(&script.file)].into_iter().chain(&script.arguments))
                } else {
                    references::word(element)
                }
            };
            command.iter().map(element).collect::<Vec<_>>().join(" ")
        }
        None => {
            let file = if script.interpreter.is_empty() && !script.file.contains('/') {
                format!("./{}", script.file)
            } else {
                not_an_option(&script.file)
            };
            quote::words(script.interpreter.iter().chain([&file]).chain(&script.arguments))
        }
    };
    match job.script.encapsulate.trim() {
        // `exec`: a signal then reaches the model itself.
        "" => format!("exec {command}"),
        _ if job.script.encapsulate.ends_with(char::is_whitespace) => format!("{}{command}", job.script.encapsulate),
        _ => format!("{} {command}", job.script.encapsulate),
    }
}

/// A file name that no program takes for an option.
fn not_an_option(file: &str) -> String {
    if file.starts_with('-') { format!("./{file}") } else { file.to_owned() }
}

fn hook_words(hook: &Hook) -> String {
    quote::words([&hook.file].into_iter().chain(&hook.arguments))
}

/// The lines that write the model's command to a file of its own.
fn model_file(job: &Job, role: Option<&NodeRole>) -> String {
    let command = command_line(job, role);
    // The here-document ends at the first line that is its delimiter: choose one that is no line of the text.
    let mut delimiter = String::from("MODEL");
    while command.lines().any(|line| line == delimiter) {
        delimiter.push('_');
    }
    let directory = quote::word(&job.paths.work_directory);
    format!(
        "cat > \"$state/model.sh\" <<'{delimiter}'\n\
         # The model's own command: `bash` this file to run it by hand.\n\
         cd -- \"${{BASH_SOURCE[0]%/*}}/..\"/{directory} || exit 125\n\
         {command}\n\
         {delimiter}\n"
    )
}

/// Clones beside the work directory and merges: what was staged there wins, as it comes later by contract.
fn clone(job: &Job, url: &str) -> String {
    let mut text = String::from("\nstage=clone\nproceed\ngit=(git)\n");
    let credential = serde_json::from_str::<serde_json::Value>(&job.card)
        .ok()
        .and_then(|card| card.get("cred").and_then(serde_json::Value::as_str).map(str::to_owned))
        .filter(|name| is_name(name));
    if let Some(name) = credential {
        for (variable, member) in [("USER", "USERNAME"), ("PASSWORD", "PASSWORD"), ("KEY_FILE", "SSH_KEY_FILE")] {
            let lower = member.to_lowercase();
            let _ = writeln!(text, "export MADDOCK_GIT_{variable}=\"${{{name}_{member}:-${{{name}_{lower}:-}}}}\"");
        }
        text.push_str(CREDENTIAL);
    }
    let _ = writeln!(text, "url={}", quote::word(url));
    text.push_str(CLONE);
    text
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

const HEAD: &str = r#"#!/usr/bin/env bash
# Runs one job's model in its workspace and leaves the outcome in .maddock/result. Written by maddock.
# There is no `set -e`: exit codes are data here, and what follows the model runs whatever became of it.
set -u
unset CDPATH
here=${BASH_SOURCE[0]}
case $here in */*) here=${here%/*} ;; *) here=. ;; esac
cd -- "$here/.." || exit 125
workspace=$PWD
state=$workspace/.maddock
"#;

const FUNCTIONS: &str = r#"code=0 stage=setup model= seconds= commit=
child= watchdog= heard=0

say() { printf 'maddock: %s\n' "$*" >&2; }

now() {
  local at=${EPOCHREALTIME:-}
  if [ -n "$at" ]; then printf '%s' "${at/[.,]/}"; else printf '%s000000' "$(date +%s)"; fi
}

# A request to end goes to what runs now. As the first process of a container, to all that it holds.
asked_to_end() {
  heard=$((heard + 1))
  if [ $$ -eq 1 ]; then kill -TERM -1; elif [ -n "$child" ]; then kill -TERM "$child"; fi 2>/dev/null
}
trap asked_to_end TERM

# Runs a program and answers its exit code, hearing requests to end meanwhile.
attempt() {
  local status again before=$heard
  (trap - INT QUIT TERM; exec "$@") <&0 &
  child=$!
  [ "$heard" -eq "$before" ] || kill -TERM "$child" 2>/dev/null
  wait "$child"
  status=$?
  while [ "$heard" -ne "$before" ]; do
    before=$heard
    wait "$child" 2>/dev/null
    again=$?
    [ "$again" -eq 127 ] || status=$again
  done
  child=
  return "$status"
}

# FILE ARGUMENTS: a script of the workspace is copied into the work directory and run there.
hook() {
  local name=${1##*/}
  [ "$workspace/$1" -ef "$work/$name" ] || cp -f -- "$workspace/$1" "$work/$name" || return 125
  case $name in -*) name=./$name ;; esac
  shift
  attempt bash "$name" "$@"
}

proceed() {
  [ "$heard" -eq 0 ] || give_up 143 'asked to end'
}

before() {
  stage=before
  proceed
  hook "$@" || give_up "$?" "the script before the model, ${1##*/}, ended with an error"
}

after() {
  local status=0
  hook "$@" || status=$?
  [ "$status" -eq 0 ] && return
  say "the script after the model, ${1##*/}, ended with code $status"
  [ "$code" -ne 0 ] || code=$status stage=after
}

give_up() {
  code=$1
  shift
  say "$* (code $code)"
  finish
}

finish() {
  [ -z "$watchdog" ] || kill -TERM "$watchdog" 2>/dev/null
  if [ -e "$state/overdue" ]; then
    stage=timed-out
    kill -KILL "$watchdog" 2>/dev/null
  fi
  # Whoever owns the workspace must be able to read and remove what was made as another user.
  chmod -R a+rwX "$work" 2>/dev/null
  chmod a+rwx "$state" 2>/dev/null
  {
    printf 'exit=%s\nstage=%s\n' "$code" "$stage"
    [ -z "$model" ] || printf 'model=%s\n' "$model"
    [ -z "$seconds" ] || printf 'seconds=%s\n' "$seconds"
    [ -z "$commit" ] || printf 'git_commit=%s\n' "$commit"
  } > "$state/result.tmp"
  chmod a+rw "$state/result.tmp" 2>/dev/null
  mv -f "$state/result.tmp" "$state/result"
"#;

const LEAVE: &str = r#"  exit "$code"
}

"#;

const STAY: &str = r#"  # Kept alive, for a person to look around.
  child=
  trap '[ -z "$child" ] || kill "$child"; exit "$code"' TERM
  while :; do
    sleep 86400 &
    child=$!
    wait "$child"
  done
}

"#;

const WATCHDOG: &str = r#"# Whoever watches the job ends it at its limit, before this: it is for a job that nobody watches any more.
(
  nap=
  trap 'kill "$nap" 2>/dev/null; exit' TERM
  sleep "$limit" &
  nap=$!
  # Woken by a signal to all, the limit has not passed.
  wait "$nap" || exit
  trap '' TERM
  : > "$state/overdue"
  kill -TERM $$
  while sleep 10; do
    if [ $$ -eq 1 ]; then kill -KILL -1; else kill -KILL $$; exit; fi
  done
) < /dev/null > /dev/null 2>&1 &
watchdog=$!
disown "$watchdog"
"#;

const START: &str = r#"
rm -f "$state/result" "$state/overdue"
mkdir -p -- "$work" && cd -- "$work" || give_up 125 'the work directory cannot be entered'
"#;

const CREDENTIAL: &str = r#"# Credentials come in variables, and git gets them from a helper: they are in no argument.
if [ -n "$MADDOCK_GIT_USER" ]; then
  git+=(-c 'credential.helper=!f() { test "$1" = get && printf "username=%s\npassword=%s\n" "$MADDOCK_GIT_USER" "$MADDOCK_GIT_PASSWORD"; }; f')
fi
if [ -n "$MADDOCK_GIT_KEY_FILE" ]; then
  printf -v GIT_SSH_COMMAND 'ssh -o StrictHostKeyChecking=accept-new -i %q -l %q' "$MADDOCK_GIT_KEY_FILE" "${MADDOCK_GIT_USER:-git}"
  export GIT_SSH_COMMAND
fi
"#;

const CLONE: &str = r#"export GIT_TERMINAL_PROMPT=0
rm -rf "$state/clone"
attempt "${git[@]}" clone --recursive -- "$url" "$state/clone" || {
  status=$?
  rm -rf "$state/clone"
  give_up "$status" 'the repository of the model cannot be cloned'
}
commit=$(git -C "$state/clone" rev-parse HEAD)
# The scripts of the model lie in the work directory already and win over files of the repository.
cp -a "$work/." "$state/clone/" && cp -a "$state/clone/." "$work/" || give_up 125 'the repository cannot be put into the work directory'
rm -rf "$state/clone"
unset GIT_SSH_COMMAND MADDOCK_GIT_USER MADDOCK_GIT_PASSWORD MADDOCK_GIT_KEY_FILE
"#;

const MODEL: &str = r#"
stage=model
proceed
started=$(now)
attempt bash "$state/model.sh"
model=$? code=$model
milliseconds=$((($(now) - started + 500) / 1000))
[ "$milliseconds" -ge 0 ] || milliseconds=0
printf -v seconds '%d.%03d' "$((milliseconds / 1000))" "$((milliseconds % 1000))"
"#;

const SKIP: &str = r#"
stage=skipped
say 'the model is not run, as asked; its command:'
cat "$state/model.sh"
"#;

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
