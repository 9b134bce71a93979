#!/usr/bin/env bash
# Installs a software Vulkan driver (Mesa's lavapipe) on a Linux machine on which the command, built before, finds no GPU
# adapter at all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

[ "$(uname)" = Linux ] || exit 0
if ! target/release/kuat devices --json | grep '"name"' >/dev/null; then
    apt_install "A GPU adapter (none is on this machine; a software one will do)" mesa-vulkan-drivers libvulkan1
fi
