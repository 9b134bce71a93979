#!/usr/bin/env bash
# venv.sh PACKAGE...: a virtual environment in target/venv, or $VENV, with these packages (arguments as for
# `pip install`).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh
venv=${VENV:-target/venv}

if [ ! -x "$venv/bin/pip" ]; then
    mkdir -p target
    rm -rf "$venv"
    if ! python3 -m venv "$venv" >/dev/null 2>&1; then
        apt_install "Python's venv module" python3-venv
        rm -rf "$venv"
        python3 -m venv "$venv"
    fi
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
