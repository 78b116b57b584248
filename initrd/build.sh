#!/bin/sh
# usage: initrd/build.sh [--path]
#
# Builds the guest's root image, an EROFS file, and prints its path, the only line on standard output.
# Progress goes to standard error. What is in it and why: initrd/README.md.
#
# The base (base.sh) changes seldom and needs the network; the image is made from it and the checkout's vminitd,
# netlink, ttrpc and api in seconds, and kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/initrd/<hash of all
# inputs>/. The same inputs give the same file, byte for byte. With --path: where it is, or would be; nothing
# is built.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/initrd
epoch=${SOURCE_DATE_EPOCH:-0}
# Images of earlier sources that are kept.
keep=12

die() { echo "initrd: $*" >&2; exit 1; }

# One hash over the base, everything of ours that goes in or decides what does, and the tool that packs it.
key() {
    {
        echo "${base##*/} $epoch"
        mkfs.erofs -V 2>&1 | head -n 1
        sha256sum <"$here/build.sh"
        cd "$project"
        sha256sum deploy/tree.py deploy/tree-python.sh
        find api archive netlink ttrpc vminitd initrd -type f \( -name '*.py' -o -path 'initrd/root/*' \) |
            LC_ALL=C sort | xargs sha256sum
    } | sha256sum | cut -c 1-24
}

# -T: one time for all files; -U: a fixed identity; -x-1: no extended attributes; all owned by root.
# Not compressed: -zlz4hc gives 11 MiB instead of 18.5, and a cold boot takes 6 % more CPU under TCG.
build() {
    echo "initrd: image" >&2
    sh "$project/deploy/tree-python.sh" "$base" -m initrd.contents "$base" "$project" "$work/root" >&2
    mkdir "$work/result"
    mkfs.erofs --quiet -T "$epoch" -U 71656d75-626f-7800-8000-000000000000 -x-1 --all-root -E force-inode-compact \
        "$work/result/guest.erofs" "$work/root" >&2
    chmod 644 "$work/result/guest.erofs"
    [ "$(key)" = "$key" ] || die "the sources changed while the image was made (run it again)"
    mv "$work/result" "$cache/$key"
}

# Every change of vminitd makes an image; without this they would fill the disk.
prune() {
    find "$cache" -mindepth 2 -maxdepth 2 -name guest.erofs -printf '%T@ %h\n' | sort -rn | tail -n +$((keep + 1)) |
        while read -r _ directory; do rm -rf "$directory"; done
}

case "$*" in
    "" | --path) ;;
    *) echo "usage: $0 [--path]" >&2; exit 2 ;;
esac
command -v mkfs.erofs >/dev/null || die "missing: mkfs.erofs (run: apt-get install erofs-utils)"
base=$(sh "$here/base.sh" "$@")
key=$(key)
if [ $# -eq 0 ] && [ ! -f "$cache/$key/guest.erofs" ]; then
    work=$cache/work
    exec 9>"$cache/lock"
    flock 9
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ ! -f "$cache/$key/guest.erofs" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir "$work"
        build
        prune
    fi
fi
echo "$cache/$key/guest.erofs"
