#!/bin/sh
# Installs those packages of packages.txt that are missing; does nothing, in one dpkg-query call,
# when all are there. Works as root, or with sudo.
set -eu

list=$(dirname "$0")/packages.txt

wanted() {
    # A Node from elsewhere (nodesource, nvm) does as well, and Debian's npm would conflict with it.
    if command -v node >/dev/null && command -v npm >/dev/null; then
        skip='^(nodejs|npm)$'
    else
        skip='^$'
    fi
    sed 's/#.*//; s/[[:space:]]//g' "$list" | grep -Ev "$skip|^\$"
}

# The names of $1 that are not installed.
missing() {
    # dpkg-query fails when it knows one of the names not at all; the names it does print are what counts.
    have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $1 2>/dev/null | sed -n 's/^installed //p' || true)
    for package in $1; do
        case "
$have
" in
        *"
$package
"*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "install.sh: to install packages, run as root or install sudo" >&2
        exit 1
    fi
}

apt() {
    # The timeout: another apt may be at work, for example the nightly one.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}

if ! command -v dpkg-query >/dev/null; then
    echo "install.sh: this is no Debian; install the equivalents of $list yourself" >&2
    exit 1
fi

need=$(missing "$(wanted)")
[ -n "$need" ] || exit 0

echo "installing: $need" >&2
apt update >&2
# shellcheck disable=SC2086 # a list of names
apt install -y --no-install-recommends $need >&2
