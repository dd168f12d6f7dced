#!/usr/bin/env bash
# Fails after it has said why: the output must be found in the log, and the exit code in the row.
set -eu
echo "loading the data set"
echo "the data set has no shard 7" >&2
exit 3
