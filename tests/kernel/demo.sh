#!/bin/bash
# The demo: a Vite dev server frozen and thawed on a kernel of its own. KEEP=1 leaves a shell there.
# Installs what is missing. Needs no privileges beyond that, and touches nothing else on this machine.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

colour=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ] && [ -z "${NO_COLOR:-}" ]; then
    colour=1
fi

tests/support/install.sh
make --silent all
app=$(tests/support/app.sh)

guest=(tests/kernel/guest --memory 2048 --swap 2048 --timeout 300)
if [ -n "${KEEP:-}" ]; then
    [ -t 0 ] || { echo "demo: KEEP=1 needs a terminal" >&2; exit 1; }
    guest+=(--shell)
fi
exec "${guest[@]}" -- env DEMO_APP="$app" DEMO_COLOUR="$colour" DEMO_KEEP="${KEEP:-}" \
    PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/kernel/demo.py
