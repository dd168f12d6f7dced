#!/usr/bin/env bash
# Ends well and reports a number, but its log holds an error that the scan knows.
set -eu
echo "HIP out of memory. Tried to allocate 2.00 GiB"
echo "performance: 12 samples_per_second"
