#!/usr/bin/env bash
# Shipped with maddock: proves that a tool's scripts run where they should.
echo "Test echo called with: $*"
