#!/usr/bin/env bash
# Runs one job's model in its workspace and leaves the outcome in .maddock/result. Written by maddock.
# There is no `set -e`: exit codes are data here, and what follows the model runs whatever became of it.
set -u
unset CDPATH
here=${BASH_SOURCE[0]}
case $here in */*) here=${here%/*} ;; *) here=. ;; esac
cd -- "$here/.." || exit 125
workspace=$PWD
state=$workspace/.maddock
work=$workspace/run_directory

code=0 stage=setup model= seconds= commit=
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
  chmod -R a+rwX "$work" "$state" 2>/dev/null
  {
    printf 'exit=%s\nstage=%s\n' "$code" "$stage"
    [ -z "$model" ] || printf 'model=%s\n' "$model"
    [ -z "$seconds" ] || printf 'seconds=%s\n' "$seconds"
    [ -z "$commit" ] || printf 'git_commit=%s\n' "$commit"
  } > "$state/result.tmp"
  chmod a+rw "$state/result.tmp" 2>/dev/null
  mv -f "$state/result.tmp" "$state/result"
  # Kept alive, for a person to look around.
  child=
  trap '[ -z "$child" ] || kill "$child"; exit "$code"' TERM
  while :; do
    sleep 86400 &
    child=$!
    wait "$child"
  done
}

cat > "$state/model.sh" <<'MODEL'
# The model's own command: `bash` this file to run it by hand.
cd -- "${BASH_SOURCE[0]%/*}/.."/run_directory || exit 125
echo cmd_A && python3 '-u' train.py 'it'\''s' '$(id)' ''
MODEL

limit=7205
# Whoever watches the job ends it at its limit, before this: it is for a job that nobody watches any more.
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

rm -f "$state/result" "$state/overdue"
mkdir -p -- "$work" && cd -- "$work" || give_up 125 'the work directory cannot be entered'

stage=clone
proceed
git=(git)
export MADDOCK_GIT_USER="${PRIVATE_USERNAME:-${PRIVATE_username:-}}"
export MADDOCK_GIT_PASSWORD="${PRIVATE_PASSWORD:-${PRIVATE_password:-}}"
export MADDOCK_GIT_KEY_FILE="${PRIVATE_SSH_KEY_FILE:-${PRIVATE_ssh_key_file:-}}"
# Credentials come in variables, and git gets them from a helper: they are in no argument.
if [ -n "$MADDOCK_GIT_USER" ]; then
  git+=(-c 'credential.helper=!f() { test "$1" = get && printf "username=%s\npassword=%s\n" "$MADDOCK_GIT_USER" "$MADDOCK_GIT_PASSWORD"; }; f')
fi
if [ -n "$MADDOCK_GIT_KEY_FILE" ]; then
  printf -v GIT_SSH_COMMAND 'ssh -o StrictHostKeyChecking=accept-new -i %q -l %q' "$MADDOCK_GIT_KEY_FILE" "${MADDOCK_GIT_USER:-git}"
  export GIT_SSH_COMMAND
fi
url='https://example.com/a b.git'
export GIT_TERMINAL_PROMPT=0
rm -rf "$state/clone"
attempt "${git[@]}" clone --recursive -- "$url" "$state/clone" || give_up "$?" 'the repository of the model cannot be cloned'
commit=$(git -C "$state/clone" rev-parse HEAD)
# The scripts of the model lie in the work directory already and win over files of the repository.
cp -a "$work/." "$state/clone/" && cp -a "$state/clone/." "$work/" || give_up 125 'the repository cannot be put into the work directory'
rm -rf "$state/clone"
unset GIT_SSH_COMMAND MADDOCK_GIT_USER MADDOCK_GIT_PASSWORD MADDOCK_GIT_KEY_FILE
before scripts/common/pre_scripts/pre_test.sh 1

stage=model
proceed
started=$(now)
attempt bash "$state/model.sh"
model=$? code=$model
hundredths=$((($(now) - started + 5000) / 10000))
[ "$hundredths" -ge 0 ] || hundredths=0
printf -v seconds '%d.%02d' "$((hundredths / 100))" "$((hundredths % 100))"
after scripts/common/post_scripts/post_test.sh 2

finish
