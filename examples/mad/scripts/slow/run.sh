#!/usr/bin/env bash
# Never ends by itself in the time that its card gives it.
set -eu
echo "waiting for a peer that does not come"
sleep 600
echo "performance: 1 samples_per_second"
