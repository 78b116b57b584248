#!/bin/sh
# usage: deploy/wheel.sh [--version VERSION]
#
# Makes the wheel of our own packages from this checkout and prints its path. With --version: as that version, which
# `qemubox --version` tells too; else pyproject.toml's. The checkout is copied first, for a build writes beside what it
# builds. Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/wheel/<hash of the sources and the version>/.
set -eu
umask 022

project=$(cd "$(dirname "$0")/.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/wheel
sources="api archive cni netlink shim ttrpc vminitd pyproject.toml README.md LICENSE"
keep=4

die() { echo "wheel: $*" >&2; exit 1; }

version=
case $# in
0) ;;
2) [ "$1" = --version ] || { echo "usage: $0 [--version VERSION]" >&2; exit 2; }; version=$2 ;;
*) echo "usage: $0 [--version VERSION]" >&2; exit 2 ;;
esac
# What pip, file names and VERSION files can all bear.
if [ $# -eq 2 ] && ! printf '%s\n' "$version" | grep -Exq '[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\+[a-z0-9.]+)?'; then
    die "--version $version: not a version such as 1.2.3, 1.2.3rc1 or 1.2.3+local"
fi

key() {
    {
        echo "$version"
        cd "$project"
        # shellcheck disable=SC2086  # a list
        find $sources deploy/wheel.sh requirements-build.lock -name __pycache__ -prune -o -type f -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c 1-24
}

# The backend as its own lock has it, in a directory of its own.
build() {
    mkdir "$work/source" "$work/result" "$work/backend"
    backend=$(sh "$project/deploy/wheels.sh" <"$project/requirements-build.lock")
    for wheel in "$backend"/*.whl; do
        /usr/bin/python3 -I -m zipfile -e "$wheel" "$work/backend"
    done
    # shellcheck disable=SC2086  # a list
    (cd "$project" && cp -r $sources "$work/source")
    if [ -n "$version" ]; then
        sed -i "s/^version = .*/version = \"$version\"/" "$work/source/pyproject.toml"
        sed -i "s/^VERSION = .*/VERSION = \"$version\"/" "$work/source/shim/version.py"
    fi
    # Nothing in it depends on when it was made; a zip file's times begin in 1980.
    (cd "$work/source" && SOURCE_DATE_EPOCH=315532800 PYTHONPATH=$work/backend PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -sc 'import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])' \
        "$work/result" >&2) || die "hatchling cannot make the wheel"
    [ "$(key)" = "$key" ] || die "the sources changed while the wheel was made (run it again)"
    mv "$work/result" "$cache/$key"
    find "$cache" -mindepth 2 -maxdepth 2 -name '*.whl' -printf '%T@ %h\n' | sort -rn | tail -n +$((keep + 1)) |
        while read -r _ directory; do rm -rf "$directory"; done
}

wheel() {
    find "$cache/$key" -name 'qemubox-*.whl' 2>/dev/null || true
}

key=$(key)
if [ -z "$(wheel)" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/work
    exec 9>"$cache/lock"
    flock 9
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ -z "$(wheel)" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir "$work"
        echo "wheel: our own packages" >&2
        build
    fi
fi
wheel
