#!/usr/bin/env bash
# Shipped with maddock: proves that pre-scripts run, and in which order.
echo "Pre-Script test called ${1:-0}"
