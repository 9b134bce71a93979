#!/usr/bin/env bash
# Brings two more software GPU adapters for the tests, where that is possible: SwiftShader (in Debian's chromium-common),
# unpacked below target/, and Mesa's OpenGL through EGL. Tests run on every adapter there is, so less is no error.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

[ "$(uname)" = Linux ] && command -v apt-get >/dev/null || exit 0

if ! ldconfig -p | grep libEGL_mesa.so.0 >/dev/null; then
    apt_install "OpenGL without a display" libegl1 libgl1-mesa-dri || echo "going on without OpenGL" >&2
fi

scripts/chromium.sh target/swiftshader vk_swiftshader_icd.json libvk_swiftshader.so >/dev/null 2>&1 ||
    echo "going on without SwiftShader" >&2
