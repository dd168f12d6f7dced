#!/usr/bin/env bash
# Its argument comes from update_model(): without it the model was not completed.
set -eu
[ "${1:-}" = --length ] || { echo "usage: run.sh --length N" >&2; exit 2; }
echo "performance: $((1048576 / $2)) tokens_per_second"
