#!/bin/sh
# usage: initrd/base.sh [--path]
#
# Makes the tree that the guest's root image is taken from, and prints its directory: packages of a named Debian
# suite and Python wheels as locked in requirements.lock, unpacked and otherwise untouched, none of their
# scripts run. What of it goes into the image is decided later (contents.py). Kept in
# ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/initrd/base-<hash of suite, names, locks and this file>;
# only a new one needs the network. The versions that it got are in its usr/share/qemubox/manifest. With
# --path: where it is, or would be; nothing is built.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/initrd
lock=$project/requirements.lock

# Debian 13: the first suite whose crun takes containerd 2.3's ociVersion.
suite=trixie
packages="crun libc6 libcap2 libexpat1 libffi8 libgcc-s1 libpython3.13-minimal libpython3.13-stdlib libseccomp2
    libstdc++6 libsystemd0 libyajl2 python3.13-minimal zlib1g"
wheels="protobuf"

die() { echo "initrd: $*" >&2; exit 1; }

# The lock file's entries of the wheels, with their hashes.
locked() {
    for wheel in $wheels; do
        sed -n "/^$wheel==/,/[^\\\\]\$/p" "$lock"
    done
}

build() {
    echo "initrd: base: packages of $suite and wheels" >&2
    # shellcheck disable=SC2086  # a list
    debs=$(sh "$project/deploy/suite.sh" $suite $packages)
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$work/base"
    done
    wheels=$(locked | sh "$project/deploy/wheels.sh")
    python=$work/base/usr/lib/qemubox
    mkdir -p "$python" "$work/base/usr/share/qemubox"
    for wheel in "$wheels"/*.whl; do
        python3 -m zipfile -e "$wheel" "$python"
    done
    # Importing a namespace package looks into every directory of sys.path; nobody else has a part in this one.
    : >"$python/google/__init__.py"
    {
        LC_ALL=C sort "$debs/versions"
        cd "$wheels" && sha256sum -- *.whl | awk '{ print $2, $1 }'
    } >"$work/manifest"
    mv "$work/manifest" "$work/base/usr/share/qemubox/manifest"
    chmod 755 "$work/base"
    touch "$work/base"
    mv "$work/base" "$base"
    # This one and the one before it: 40 MiB each.
    find "$cache" -maxdepth 1 -name 'base-*' -printf '%T@ %p\n' | sort -rn | tail -n +3 |
        while read -r _ directory; do rm -rf "$directory"; done
}

case "$*" in
    "" | --path) ;;
    *) echo "usage: $0 [--path]" >&2; exit 2 ;;
esac
[ -f "$lock" ] || die "missing: $lock"
[ -n "$(locked)" ] || die "requirements.lock has none of: $wheels"
base=$cache/base-$({ locked; sha256sum <"$here/base.sh"; } | sha256sum | cut -c 1-24)
if [ $# -eq 0 ] && [ ! -d "$base" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/base.work
    exec 8>"$cache/base.lock"
    flock 8
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ ! -d "$base" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir -p "$work/base"
        build
    fi
fi
echo "$base"
