#!/usr/bin/env bash
# A virtual environment in target/venv-torch, or $VENV, that has torch: the one of the python3 here if there is one, else
# Debian's (python3-torch, for the CPU), else the registry's. Arguments are further packages, as for `pip install`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh
venv=${VENV:-target/venv-torch}

has_torch() {
    "$1" -c "import torch" >/dev/null 2>&1
}

if [ ! -x "$venv/bin/pip" ]; then
    rm -rf "$venv"
    python=
    for candidate in python3 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null && has_torch "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ] && command -v apt-get >/dev/null; then
        apt_install "torch" python3-torch python3-venv || echo "going on with the registry's torch" >&2
        if has_torch /usr/bin/python3; then
            python=/usr/bin/python3
        fi
    fi
    if ! "${python:-python3}" -m venv --system-site-packages "$venv" >/dev/null 2>&1; then
        apt_install "Python's venv module" python3-venv
        rm -rf "$venv"
        "${python:-python3}" -m venv --system-site-packages "$venv"
    fi
    if [ -z "$python" ]; then
        "$venv/bin/pip" install --quiet --disable-pip-version-check torch
    fi
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
