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

if [ ! -e target/swiftshader/vk_swiftshader_icd.json ]; then
    echo "unpacking SwiftShader below target/" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    if { apt_update $([ "$(id -u)" -eq 0 ] || echo sudo) && cd "$work" && apt-get download -qq chromium-common \
        && dpkg-deb -x chromium-common_*.deb . ; } >/dev/null 2>&1; then
        cd "$OLDPWD"
        mkdir -p target/swiftshader
        cp "$work"/usr/lib/chromium/{libvk_swiftshader.so,vk_swiftshader_icd.json} target/swiftshader/
    else
        echo "going on without SwiftShader" >&2
    fi
fi
