#!/usr/bin/env bash
# deny.sh: what deny.toml asks of the dependencies, with cargo-deny. Where the advisory database cannot be fetched the
# rest is checked all the same, and the result says so.
set -euo pipefail
cd "$(dirname "$0")/../.."

export PATH="$PWD/target/tools/bin:$PATH"
command -v cargo-deny >/dev/null || cargo install --root target/tools --locked cargo-deny
cargo deny check bans licenses sources
if cargo deny fetch db; then
    cargo deny check advisories
else
    echo "NOT CHECKED: the advisory database cannot be fetched from here; elsewhere: cargo deny check advisories" >&2
fi
