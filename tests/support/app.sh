#!/bin/sh
# Prepares the demo's app with its packages, and prints the directory. Outside of the checkout, so
# that a fresh clone finds what an earlier one installed: named for what went into it.
set -eu

source=$(dirname "$(realpath "$0")")/app
cache=${XDG_CACHE_HOME:-$HOME/.cache}/torpor

# Of the names and the contents of every file, and of the Node that the packages were chosen for.
key=$({ node --version; cd "$source" && find . -type f -not -path './node_modules/*' | LC_ALL=C sort | xargs sha256sum; } |
    sha256sum | cut -c 1-16)
app=$cache/app-$key

if [ ! -e "$app/node_modules" ]; then
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    (cd "$source" && tar -c --exclude=node_modules .) | tar -x -C "$new"
    echo "installing the demo app's packages" >&2
    # Scripts of packages are not run: none of these needs one.
    (cd "$new" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
    # Whole or not at all; when somebody else was faster, theirs is as good.
    mv -T "$new" "$app" 2> /dev/null || [ -e "$app/node_modules" ]
fi
echo "$app"
