#!/usr/bin/env bash
# chromium.sh FOLDER FILE...: unpacks files of Debian's chromium-common, which carries a software adapter and a validation
# layer of Vulkan, unless the first is there already. What cannot be had is an error.
set -euo pipefail
folder=$1
shift
[ ! -e "$folder/$1" ] || exit 0
. "$(dirname "$0")/apt.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The user that apt downloads as writes there.
chmod 755 "$work"
apt_update $([ "$(id -u)" -eq 0 ] || echo sudo)
(cd "$work" && apt-get download -qq chromium-common && dpkg-deb -x chromium-common_*.deb .)
mkdir -p "$folder"
for file; do
    cp "$work/usr/lib/chromium/$file" "$folder/"
done
