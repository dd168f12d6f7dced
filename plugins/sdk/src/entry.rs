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
    let _ = writeln!(text, "maddock_work=$maddock_workspace/{}\n", quote::word(work));
    text.push_str(FUNCTIONS);
    text.push_str(if job.options.has(JobOptions::KEEP_ALIVE) { STAY } else { LEAVE });
    text.push_str(&references::lines(job, role));
    text.push_str(&model_file(job, role));
    if let Some(limit) = job.time_limit {
        let _ = writeln!(text, "\nmaddock_limit={}", limit.saturating_add(PATIENCE));
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
        "cat > \"$maddock_state/model.sh\" <<'{delimiter}'\n\
         # The model's own command: `bash` this file to run it by hand.\n\
         cd -- \"${{BASH_SOURCE[0]%/*}}/..\"/{directory} || exit 125\n\
         {command}\n\
         {delimiter}\n"
    )
}

/// Clones beside the work directory and merges: what was staged there wins, as it comes later by contract.
fn clone(job: &Job, url: &str) -> String {
    let mut text = String::from("\nmaddock_stage=clone\nproceed\nmaddock_git=(git)\n");
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
    let _ = writeln!(text, "maddock_url={}", quote::word(url));
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
maddock_here=${BASH_SOURCE[0]}
case $maddock_here in */*) maddock_here=${maddock_here%/*} ;; *) maddock_here=. ;; esac
cd -- "$maddock_here/.." || exit 125
maddock_workspace=$PWD
maddock_state=$maddock_workspace/.maddock
"#;

const FUNCTIONS: &str = r#"maddock_code=0 maddock_stage=setup maddock_model= maddock_seconds= maddock_commit=
maddock_child= maddock_watchdog= maddock_heard=0

say() { printf 'maddock: %s\n' "$*" >&2; }

now() {
  local maddock_at=${EPOCHREALTIME:-}
  if [ -n "$maddock_at" ]; then printf '%s' "${maddock_at/[.,]/}"; else printf '%s000000' "$(date +%s)"; fi
}

# A request to end goes to what runs now. As the first process of a container, to all that it holds.
asked_to_end() {
  maddock_heard=$((maddock_heard + 1))
  if [ $$ -eq 1 ]; then kill -TERM -1; elif [ -n "$maddock_child" ]; then kill -TERM "$maddock_child"; fi 2>/dev/null
}
trap asked_to_end TERM

# Runs a program and answers its exit code, hearing requests to end meanwhile.
attempt() {
  local maddock_status maddock_again maddock_before=$maddock_heard
  (trap - INT QUIT TERM; exec "$@") <&0 &
  maddock_child=$!
  [ "$maddock_heard" -eq "$maddock_before" ] || kill -TERM "$maddock_child" 2>/dev/null
  wait "$maddock_child"
  maddock_status=$?
  while [ "$maddock_heard" -ne "$maddock_before" ]; do
    maddock_before=$maddock_heard
    wait "$maddock_child" 2>/dev/null
    maddock_again=$?
    [ "$maddock_again" -eq 127 ] || maddock_status=$maddock_again
  done
  maddock_child=
  return "$maddock_status"
}

# FILE ARGUMENTS: a script of the workspace is copied into the work directory and run there.
hook() {
  local maddock_name=${1##*/}
  [ "$maddock_workspace/$1" -ef "$maddock_work/$maddock_name" ] || cp -f -- "$maddock_workspace/$1" "$maddock_work/$maddock_name" || return 125
  case $maddock_name in -*) maddock_name=./$maddock_name ;; esac
  shift
  attempt bash "$maddock_name" "$@"
}

proceed() {
  [ "$maddock_heard" -eq 0 ] || give_up 143 'asked to end'
}

before() {
  maddock_stage=before
  proceed
  hook "$@" || give_up "$?" "the script before the model, ${1##*/}, ended with an error"
}

after() {
  local maddock_status=0
  hook "$@" || maddock_status=$?
  [ "$maddock_status" -eq 0 ] && return
  say "the script after the model, ${1##*/}, ended with code $maddock_status"
  [ "$maddock_code" -ne 0 ] || maddock_code=$maddock_status maddock_stage=after
}

give_up() {
  maddock_code=$1
  shift
  say "$* (code $maddock_code)"
  finish
}

finish() {
  [ -z "$maddock_watchdog" ] || kill -TERM "$maddock_watchdog" 2>/dev/null
  if [ -e "$maddock_state/overdue" ]; then
    maddock_stage=timed-out
    kill -KILL "$maddock_watchdog" 2>/dev/null
  fi
  # Whoever owns the workspace must be able to read and remove what was made as another user.
  chmod -R a+rwX "$maddock_work" 2>/dev/null
  chmod a+rwx "$maddock_state" 2>/dev/null
  {
    printf 'exit=%s\nstage=%s\n' "$maddock_code" "$maddock_stage"
    [ -z "$maddock_model" ] || printf 'model=%s\n' "$maddock_model"
    [ -z "$maddock_seconds" ] || printf 'seconds=%s\n' "$maddock_seconds"
    [ -z "$maddock_commit" ] || printf 'git_commit=%s\n' "$maddock_commit"
  } > "$maddock_state/result.tmp"
  chmod a+rw "$maddock_state/result.tmp" 2>/dev/null
  mv -f "$maddock_state/result.tmp" "$maddock_state/result"
"#;

const LEAVE: &str = r#"  exit "$maddock_code"
}

"#;

const STAY: &str = r#"  # Kept alive, for a person to look around.
  maddock_child=
  trap '[ -z "$maddock_child" ] || kill "$maddock_child"; exit "$maddock_code"' TERM
  while :; do
    sleep 86400 &
    maddock_child=$!
    wait "$maddock_child"
  done
}

"#;

const WATCHDOG: &str = r#"# Whoever watches the job ends it at its limit, before this: it is for a job that nobody watches any more.
(
  maddock_nap=
  trap 'kill "$maddock_nap" 2>/dev/null; exit' TERM
  sleep "$maddock_limit" &
  maddock_nap=$!
  # Woken by a signal to all, the limit has not passed.
  wait "$maddock_nap" || exit
  trap '' TERM
  : > "$maddock_state/overdue"
  kill -TERM $$
  while sleep 10; do
    if [ $$ -eq 1 ]; then kill -KILL -1; else kill -KILL $$; exit; fi
  done
) < /dev/null > /dev/null 2>&1 &
maddock_watchdog=$!
disown "$maddock_watchdog"
"#;

const START: &str = r#"
rm -f "$maddock_state/result" "$maddock_state/overdue"
mkdir -p -- "$maddock_work" && cd -- "$maddock_work" || give_up 125 'the work directory cannot be entered'
"#;

const CREDENTIAL: &str = r#"# Credentials come in variables, and git gets them from a helper: they are in no argument.
if [ -n "$MADDOCK_GIT_USER" ]; then
  maddock_git+=(-c 'credential.helper=!f() { test "$1" = get && printf "username=%s\npassword=%s\n" "$MADDOCK_GIT_USER" "$MADDOCK_GIT_PASSWORD"; }; f')
fi
if [ -n "$MADDOCK_GIT_KEY_FILE" ]; then
  printf -v GIT_SSH_COMMAND 'ssh -o StrictHostKeyChecking=accept-new -i %q -l %q' "$MADDOCK_GIT_KEY_FILE" "${MADDOCK_GIT_USER:-git}"
  export GIT_SSH_COMMAND
fi
"#;

const CLONE: &str = r#"export GIT_TERMINAL_PROMPT=0
rm -rf "$maddock_state/clone"
attempt "${maddock_git[@]}" clone --recursive -- "$maddock_url" "$maddock_state/clone" || {
  maddock_status=$?
  rm -rf "$maddock_state/clone"
  give_up "$maddock_status" 'the repository of the model cannot be cloned'
}
maddock_commit=$(git -C "$maddock_state/clone" rev-parse HEAD)
# The scripts of the model lie in the work directory already and win over files of the repository.
cp -a "$maddock_work/." "$maddock_state/clone/" && cp -a "$maddock_state/clone/." "$maddock_work/" || give_up 125 'the repository cannot be put into the work directory'
rm -rf "$maddock_state/clone"
unset GIT_SSH_COMMAND MADDOCK_GIT_USER MADDOCK_GIT_PASSWORD MADDOCK_GIT_KEY_FILE
"#;

const MODEL: &str = r#"
maddock_stage=model
proceed
maddock_started=$(now)
attempt bash "$maddock_state/model.sh"
maddock_model=$? maddock_code=$maddock_model
maddock_milliseconds=$((($(now) - maddock_started + 500) / 1000))
[ "$maddock_milliseconds" -ge 0 ] || maddock_milliseconds=0
printf -v maddock_seconds '%d.%03d' "$((maddock_milliseconds / 1000))" "$((maddock_milliseconds % 1000))"
"#;

const SKIP: &str = r#"
maddock_stage=skipped
say 'the model is not run, as asked; its command:'
cat "$maddock_state/model.sh"
"#;

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
