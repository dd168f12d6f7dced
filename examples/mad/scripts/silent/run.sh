#!/usr/bin/env bash
# Ends well and reports nothing: missing evidence is a failure.
set -eu
echo "trained, and told nobody how fast"
