#!/bin/sh
# usage: deploy/wheels.sh <LOCK
#
# Fetches the wheels that a lock (requirements.lock, or entries of it) pins, by their hashes, for the Python 3.13 that
# the guest and a release have, whatever Python this machine has; prints the directory that holds them, and nothing
# else. Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/wheels/<hash of the lock and this file>/.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/wheels

die() { echo "wheels: $*" >&2; exit 1; }

# The pip of the project's own environment, or the system's.
find_pip() {
    for python in "$here/../.venv/bin/python" python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then echo "$python"; return; fi
    done
    die "there is no pip to fetch wheels with (run: apt-get install python3-pip)"
}

fetch() {
    python=$(find_pip)
    echo "wheels: fetching" "$(sed -n 's/^\([^ =]*\)==.*/\1/p' "$lock" | tr '\n' ' ')" >&2
    "$python" -m pip --disable-pip-version-check download -q --no-deps --require-hashes --only-binary=:all: \
        --python-version 3.13 --implementation cp --abi cp313 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --platform any -r "$lock" -d "$work" >&2 ||
        die "pip cannot fetch what is locked"
}

[ $# -eq 0 ] || { echo "usage: $0 <LOCK" >&2; exit 2; }
lock=$(mktemp)
trap 'rm -f "$lock"' EXIT
trap 'exit 130' HUP INT TERM
cat >"$lock"
[ -s "$lock" ] || die "the lock is empty"
result=$cache/$(cat "$lock" "$here/wheels.sh" | sha256sum | cut -c 1-24)
if [ ! -d "$result" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/work
    exec 9>"$cache/lock"
    flock 9
    if [ ! -d "$result" ]; then
        rm -rf "$work"
        mkdir "$work"
        fetch
        mv "$work" "$result"
    fi
fi
echo "$result"
