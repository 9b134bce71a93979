#!/usr/bin/env bash
# Brings torchvision to target/venv-torch, or $VENV: Debian's where torch is Debian's, else the registry's.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh
venv=${VENV:-target/venv-torch}

has_torchvision() {
    "$venv/bin/python" -c "import torchvision" >/dev/null 2>&1
}

if ! has_torchvision && dpkg -s python3-torch >/dev/null 2>&1; then
    apt_install "torchvision" python3-torchvision
fi
if ! has_torchvision; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check torchvision
fi
