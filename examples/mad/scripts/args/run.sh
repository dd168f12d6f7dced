#!/usr/bin/env bash
# Shows its arguments, one a line, as they arrived: blanks inside a word survive, nothing is expanded.
set -eu
count=0
for argument in "$@"; do
    count=$((count + 1))
    printf 'argument %d: <%s>\n' "$count" "$argument"
done
echo "performance: $count arguments"
