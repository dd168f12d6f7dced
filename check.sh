#!/usr/bin/env bash
# Every check that there is: formatting, lints, documentation, tests. Needs rustup and git; tests that need a container
# engine or another service say which variable names it, and that they were skipped. Stops at the first failure.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

say "toolchain"
# Where automatic installation is turned off, the target of the plugins may be missing.
rustup target list --installed | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2

say "format"
cargo fmt --all --check
cargo fmt --all --check --manifest-path plugins/Cargo.toml

say "plugins: lints and tests of their logic"
cargo clippy --locked --workspace --all-targets --manifest-path plugins/Cargo.toml --target-dir target/plugins-check -- -D warnings
cargo test --locked --workspace --manifest-path plugins/Cargo.toml --target-dir target/plugins-check

say "kernel: lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

say "kernel: documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

say "kernel: tests"
cargo test --locked --workspace

say "outsiders' plugins"
if command -v python3 >/dev/null; then
  (cd examples/plugins/report-markdown && python3 -m unittest -q)
  venv=target/outsiders-venv
  if [ -x $venv/bin/componentize-py ] || { python3 -m venv $venv && $venv/bin/pip install -q componentize-py==0.25.1; }; then
    $venv/bin/componentize-py -d wit -w reporter-plugin componentize --stub-wasi -p examples/plugins/report-markdown app -o target/report_markdown.wasm
    target/debug/maddock plugin pack target/report_markdown.wasm --manifest examples/plugins/report-markdown/plugin.json
    target/debug/maddock plugin test target/report_markdown.wasm
  else
    echo "skipped: componentize-py cannot be had here"
  fi
else
  echo "skipped: there is no python3"
fi

say "all checks passed"
