# Installs Debian packages; sourced by the other scripts.

# Where ldconfig is; not on the path of an ordinary Debian user.
PATH=$PATH:/usr/sbin:/sbin

# apt_install WHY PACKAGE...: says what it installs and why, then does it.
apt_install() {
    local why=$1
    shift
    if ! command -v apt-get >/dev/null; then
        echo "$why is missing. Install it with your system's package manager; on Debian: $*" >&2
        return 1
    fi
    local sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
    fi
    echo "$why is missing; installing $*" >&2
    apt_update $sudo
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" >/dev/null
}

# Once a run is enough.
apt_update() {
    if [ -z "${apt_updated-}" ]; then
        "$@" apt-get update -qq
        apt_updated=1
    fi
}
