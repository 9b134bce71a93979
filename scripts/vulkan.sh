#!/usr/bin/env bash
# Installs a software Vulkan driver (Mesa's lavapipe) on a Linux machine that has no Vulkan driver at all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

[ "$(uname)" = Linux ] || exit 0
has_driver() {
    [ -n "${VK_DRIVER_FILES-}${VK_ICD_FILENAMES-}" ] && return
    local folder
    for folder in /usr/share/vulkan /etc/vulkan /usr/local/share/vulkan; do
        compgen -G "$folder/icd.d/*.json" >/dev/null && return
    done
    return 1
}
if ! has_driver || ! ldconfig -p | grep libvulkan.so.1 >/dev/null; then
    apt_install "A Vulkan driver (none is on this machine; a software one will do)" mesa-vulkan-drivers libvulkan1
fi
