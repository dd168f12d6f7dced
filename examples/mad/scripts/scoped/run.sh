#!/usr/bin/env bash
# A script that two models share: its arguments say which one it is.
set -eu
case "${2:-}" in
    small) rate=900 ;;
    large) rate=120 ;;
    *) echo "usage: run.sh --size small|large" >&2; exit 2 ;;
esac
echo "performance: $rate tokens_per_second"
