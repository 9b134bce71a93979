#!/usr/bin/env bash
# venv.sh PACKAGE...: a virtual environment in target/venv with these packages (arguments as for `pip install`).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

if [ ! -x target/venv/bin/pip ]; then
    mkdir -p target
    rm -rf target/venv
    if ! python3 -m venv target/venv >/dev/null 2>&1; then
        apt_install "Python's venv module" python3-venv
        rm -rf target/venv
        python3 -m venv target/venv
    fi
fi
target/venv/bin/pip install --quiet --disable-pip-version-check "$@"
