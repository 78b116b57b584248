#!/bin/sh
# usage: deploy/release/runtime.sh
#
# Makes what a release has of Debian 13 and prints its directory: `tree` is RUNTIME (runtime.py says what is in it),
# `manifest` names the packages that it is from: "package version sha256" a line. Nothing is installed, no package's
# script runs. Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/release/runtime-<hash of packages and recipe>;
# only a new set of packages needs the network.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/release

suite=trixie
packages="e2fsprogs erofs-utils iproute2 iptables libgcc-s1 libpython3.13-stdlib libstdc++6 nftables python3.13
    qemu-system-x86 virtiofsd"

say() { echo "release: $*" >&2; }
die() { say "$*"; exit 1; }

build() {
    say "runtime: programs of $suite and the libraries that they need"
    mkdir "$work/base" "$work/files" "$work/result"
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$work/base"
        dpkg-deb --fsys-tarfile "$deb" | tar -t >"$work/files/$(basename "$deb" | cut -d _ -f 1)"
    done
    gcc -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -s -Wl,--build-id=none -o "$work/launcher" \
        "$here/launcher.c" >&2 || die "cannot compile launcher.c (run: deploy/host.sh build)"
    sh "$project/deploy/tree-python.sh" "$work/base" -m deploy.release.runtime \
        "$work/base" "$work/files" "$work/launcher" "$work/result/tree" >"$work/packages"
    grep -Fxq libc6 "$work/packages" || die "runtime.py has named no packages"
    awk 'NR == FNR { used[$1]; next } $1 in used' "$work/packages" "$debs/versions" | LC_ALL=C sort \
        >"$work/result/manifest"
    mv "$work/result" "$result"
    # This one and the one before it: 100 MiB each.
    find "$cache" -maxdepth 1 -name 'runtime-*' -printf '%T@ %p\n' | sort -rn | tail -n +3 |
        while read -r _ directory; do rm -rf "$directory"; done
}

[ $# -eq 0 ] || { echo "usage: $0" >&2; exit 2; }
command -v gcc >/dev/null || die "missing: gcc (run: deploy/host.sh build)"
# shellcheck disable=SC2086  # a list
debs=$(sh "$project/deploy/suite.sh" --with-dependencies $suite $packages)
key=$({
    cat "$debs/versions"
    gcc --version | head -n 1
    cd "$project" && sha256sum deploy/release/runtime.sh deploy/release/runtime.py deploy/release/launcher.c \
        deploy/tree.py deploy/tree-python.sh
} | sha256sum | cut -c 1-24)
result=$cache/runtime-$key
if [ ! -d "$result" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/runtime.work
    exec 8>"$cache/runtime.lock"
    flock 8
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ ! -d "$result" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir "$work"
        build
    fi
fi
echo "$result"
