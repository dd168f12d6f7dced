#!/usr/bin/env bash
# Runs one job's model in its workspace and leaves the outcome in .maddock/result. Written by maddock.
# There is no `set -e`: exit codes are data here, and what follows the model runs whatever became of it.
set -u
unset CDPATH
maddock_here=${BASH_SOURCE[0]}
case $maddock_here in */*) maddock_here=${maddock_here%/*} ;; *) maddock_here=. ;; esac
cd -- "$maddock_here/.." || exit 125
maddock_workspace=$PWD
maddock_state=$maddock_workspace/.maddock
maddock_work=$maddock_workspace/run_directory

maddock_code=0 maddock_stage=setup maddock_model= maddock_seconds= maddock_commit=
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
  exit "$maddock_code"
}

cat > "$maddock_state/model.sh" <<'MODEL'
# The model's own command: `bash` this file to run it by hand.
cd -- "${BASH_SOURCE[0]%/*}/.."/run_directory || exit 125
exec torchrun '--standalone' 'a b.py'
MODEL

rm -f "$maddock_state/result" "$maddock_state/overdue"
mkdir -p -- "$maddock_work" && cd -- "$maddock_work" || give_up 125 'the work directory cannot be entered'

maddock_stage=skipped
say 'the model is not run, as asked; its command:'
cat "$maddock_state/model.sh"

finish
