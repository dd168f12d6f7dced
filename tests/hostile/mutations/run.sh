#!/usr/bin/env bash
# Takes checks away, one at a time, and demands that the attack that each of them stops succeeds: a test that passes without its
# check proves nothing. Each `NN-name.patch` beside this removes one; its `Attack:` line names the test.
#
#   run.sh [--here] [--together] [PATCH…]
#
# It works in a scratch worktree of HEAD, which shares the target directory of this one for what is compiled of others.
# `--here` works in this tree, whose patched files must have no changes: much faster, since only what a patch touches is
# compiled again. `--together` applies all patches at once and runs every attack: one build, and a first look.
# Prints one line a mutation; ends with 1 where an attack did not succeed, or a patch does not apply.
set -euo pipefail
mutations=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$mutations/../../.." && pwd)
here=no together=no patches=()
for word in "$@"; do
    case $word in
        --here) here=yes ;;
        --together) together=yes ;;
        *) patches+=("$(cd "$(dirname "$word")" && pwd)/$(basename "$word")") ;;
    esac
done
[ ${#patches[@]} -gt 0 ] || patches=("$mutations"/*.patch)

applied=()
if [ "$here" = yes ]; then
    tree=$root
    mapfile -t touched < <(sed -n 's|^+++ b/||p' "${patches[@]}" | sort -u)
    git -C "$tree" diff --quiet HEAD -- "${touched[@]}" || { echo "there are changes in: ${touched[*]}" >&2; exit 2; }
    restore() { for patch in "${applied[@]}"; do git -C "$tree" apply --reverse "$patch"; done; applied=(); }
    trap restore EXIT
else
    tree=$(mktemp -d)/maddock
    git -C "$root" worktree add --quiet --detach "$tree" HEAD
    restore() { git -C "$tree" checkout --quiet -- .; applied=(); }
    trap 'git -C "$root" worktree remove --force "$tree"; rmdir "$(dirname "$tree")"' EXIT
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"

# The binary of the tests, built once for what is applied.
built() {
    (cd "$tree" && cargo test --locked --package maddock --test hostile --no-run --message-format=json 2>"$log") |
        sed -n 's/.*"executable":"\([^"]*deps\/hostile-[^"]*\)".*/\1/p' | tail -1
}
log=$(mktemp)
failed=0
verdict() { # PATCH BINARY
    local attack seconds
    attack=$(sed -n 's/^Attack: //p' "$1")
    seconds=$SECONDS
    if [ -z "$2" ]; then
        printf '%-44s does not compile\n' "$(basename "$1")"
        failed=1
    elif (cd "$tree/host" && "$2" --exact "$attack" >"$log" 2>&1); then
        printf '%-44s NOT NOTICED by %s\n' "$(basename "$1")" "$attack"
        failed=1
    elif ! grep -q "^test $attack .* FAILED$" "$log"; then
        printf '%-44s %s did not run\n' "$(basename "$1")" "$attack"
        failed=1
    else
        printf '%-44s noticed by %s (%d s)\n' "$(basename "$1")" "$attack" $((SECONDS - seconds))
    fi
}

if [ "$together" = yes ]; then
    for patch in "${patches[@]}"; do
        git -C "$tree" apply "$patch"
        applied=("$patch" "${applied[@]}")
    done
    binary=$(built)
    for patch in "${patches[@]}"; do verdict "$patch" "$binary"; done
else
    for patch in "${patches[@]}"; do
        git -C "$tree" apply "$patch"
        applied=("$patch")
        verdict "$patch" "$(built)"
        restore
    done
fi
exit $failed
