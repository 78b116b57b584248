#!/bin/sh
# usage: initrd/build.sh
#
# Builds the guest's root image, an EROFS file, and prints its path, the only line on standard output.
# Progress goes to standard error. What is in it: initrd/README.md.
#
# Two steps, each kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/initrd/ under a hash of its
# inputs: the base tree (packages of the suite below, Python wheels of requirements.lock), which needs the
# network, and the image itself, which a change of vminitd makes anew in seconds. The same base and sources
# give the same image, byte for byte.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/initrd
suite=trixie
packages="libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 python3.13-minimal libpython3.13-minimal libpython3.13-stdlib
    crun libcap2 libseccomp2 libsystemd0 libyajl2"
wheels="protobuf"
epoch=${SOURCE_DATE_EPOCH:-0}

say() { echo "initrd: $*" >&2; }
die() { say "$*"; exit 1; }

hash() { sha256sum | cut -c 1-24; }

# The lock file's entries of the wheels, with their hashes.
locked() {
    for wheel in $wheels; do
        sed -n "/^$wheel==/,/[^\\\\]\$/p" "$project/requirements.lock"
    done
}

base_key() {
    { echo "$suite" $packages; locked; cat "$here/build.sh"; } | hash
}

image_key() {
    {
        echo "$1 $epoch"
        mkfs.erofs -V 2>&1 | head -n 1
        cd "$project"
        find api ttrpc vminitd initrd -name '*.py' -o -path 'initrd/root/*' -type f | LC_ALL=C sort | xargs sha256sum
    } | hash
}

# pip of the project's own environment or the system's.
find_pip() {
    for python in "$project/.venv/bin/python" python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then echo "$python"; return; fi
    done
    die "there is no pip to fetch $wheels with (run: apt-get install python3-pip)"
}

# The wheels that the guest's Python would be given, whatever Python this machine has.
fetch_wheels() {
    python=$(find_pip)
    locked >"$1.lock"
    "$python" -m pip --disable-pip-version-check download -q --no-deps --require-hashes --only-binary=:all: \
        --python-version 3.13 --implementation cp --abi cp313 --abi abi3 --abi none \
        --platform manylinux2014_x86_64 --platform any -r "$1.lock" -d "$1" >&2 ||
        die "pip cannot fetch $wheels as locked in requirements.lock"
    rm "$1.lock"
}

# The guest's own Python, run here through the guest's own loader: no chroot, no root needed.
guest_python() {
    tree=$1
    shift
    env -i PATH="$PATH" PYTHONHOME="$tree/usr" "$tree/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \
        --library-path "$tree/usr/lib/x86_64-linux-gnu" "$tree/usr/bin/python3.13" -X no_debug_ranges -sB "$@"
}

build_base() {
    say "base: packages of $suite and wheels"
    debs=$(sh "$project/deploy/suite.sh" "$suite" $packages)
    mkdir "$work/base"
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$work/base"
    done
    fetch_wheels "$work/wheels"
    mkdir -p "$work/base/usr/lib/qemubox/google" "$work/base/usr/share/qemubox"
    for wheel in "$work"/wheels/*.whl; do
        guest_python "$work/base" -m zipfile -e "$wheel" "$work/base/usr/lib/qemubox"
    done
    # A namespace package is looked for in every directory of sys.path; this one is not shared with anybody.
    : >"$work/base/usr/lib/qemubox/google/__init__.py"
    {
        LC_ALL=C sort "$debs/versions"
        (cd "$work/wheels" && sha256sum -- *.whl | awk '{ print $2, $1 }')
    } >"$work/base/usr/share/qemubox/manifest"
    mv "$work/base" "$cache/$base"
}

# -T: one time for all files; -U: a fixed identity; -x-1: no extended attributes; all owned by root.
build_image() {
    say "image"
    guest_python "$cache/$base" "$here/contents.py" "$cache/$base" "$project" "$work/root" >&2
    install -D -m 644 "$cache/$base/usr/share/qemubox/manifest" "$work/root/usr/share/qemubox/manifest"
    mkdir "$work/result"
    mkfs.erofs --quiet -T "$epoch" -U 71656d75-626f-7800-8000-000000000000 -x-1 --all-root -E force-inode-compact \
        "$work/result/guest.erofs" "$work/root" >&2
    chmod 644 "$work/result/guest.erofs"
    mv "$work/result" "$cache/$image"
    say "$(du -h --apparent-size "$cache/$image/guest.erofs" | cut -f 1) in $cache/$image"
}

command -v mkfs.erofs >/dev/null || die "missing: mkfs.erofs (run: apt-get install erofs-utils)"
[ -f "$project/requirements.lock" ] || die "missing: $project/requirements.lock"
base=base-$(base_key)
image=$(image_key "$base")
if [ ! -f "$cache/$image/guest.erofs" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/work
    exec 9>"$cache/lock"
    flock 9
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ ! -f "$cache/$image/guest.erofs" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir "$work"
        [ -d "$cache/$base" ] || build_base
        build_image
    fi
fi
echo "$cache/$image/guest.erofs"
