#!/bin/sh
# usage: deploy/venv.sh
#
# Makes the checkout's own environment, .venv, from requirements-dev.lock with the system's Python; once for each
# content of the lock. Its Python finds the checkout's packages; Task itself is in it too: .venv/bin/task.
set -eu
cd "$(dirname "$0")/.."

stamp=$({ /usr/bin/python3 -ISc 'import sys; print(sys.version)'; cat requirements-dev.lock deploy/venv.sh; pwd; } | sha256sum | cut -d ' ' -f 1)
[ "$(cat .venv/qemubox-stamp 2>/dev/null || true)" != "$stamp" ] || exit 0
echo "venv: making .venv from requirements-dev.lock" >&2
[ -x .venv/bin/python ] || /usr/bin/python3 -I -m venv --clear .venv
.venv/bin/python -m pip --disable-pip-version-check --no-input install -q --require-hashes -r requirements-dev.lock >&2
pwd >"$(.venv/bin/python -Ic 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/checkout.pth"
echo "$stamp" >.venv/qemubox-stamp
