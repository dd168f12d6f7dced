#!/usr/bin/env bash
# Shipped with maddock: proves that post-scripts run, and in which order.
echo "Post-Script test called ${1:-0}"
