#!/usr/bin/env bash
# Brings torchvision to target/venv-torch: Debian's where torch is Debian's, else the registry's.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

has_torchvision() {
    target/venv-torch/bin/python -c "import torchvision" >/dev/null 2>&1
}

if ! has_torchvision && dpkg -s python3-torch >/dev/null 2>&1; then
    apt_install "torchvision" python3-torchvision
fi
if ! has_torchvision; then
    target/venv-torch/bin/pip install --quiet --disable-pip-version-check torchvision
fi
