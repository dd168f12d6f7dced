#!/usr/bin/env bash
# Every check that there is: formatting, lints, documentation, tests. Needs rustup, git, the C linker that Rust needs, and
# python3, which model trees of the tests call; tests that need a container engine or another service say which variable
# names it, and that they were skipped. Stops at the first failure.
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

# Compute nodes run other systems: the cluster's tests use what they would. Without debug information, which is most of it,
# and in a directory of its own, so that its profile undoes nothing of the other.
if [ -n "${SLURM_CONF:-}" ] && [ "$(uname -m)" = x86_64 ]; then
  say "kernel: the static program for compute nodes"
  static=x86_64-unknown-linux-musl
  rustup target list --installed | grep -qx "$static" || rustup target add "$static"
  CARGO_PROFILE_DEV_DEBUG=none cargo build --locked -p maddock --bin maddock --target "$static" --target-dir target/static
  export MADDOCK_TEST_STATIC=${MADDOCK_TEST_STATIC:-$PWD/target/static/$static/debug/maddock}
fi

say "kernel: tests"
cargo test --locked --workspace

# Outsiders are built, tested, signed, installed and used by the test crate `outsiders`; here is what only their source shows.
say "outsiders' plugins: format and lints"
target/debug/maddock plugin vendor --directory examples/plugins/target-queue
(
  cd examples/plugins/target-queue
  cargo fmt --all --check
  cargo clippy --locked --workspace --all-targets --target-dir ../../../target/outsiders/target -- -D warnings
)

say "all checks passed"
