#!/bin/sh
# usage: tests/distro.sh SUITE
#
# Prints the path of a tar file with the smallest system of a Debian suite that has apt (mmdebstrap, variant minbase),
# without documentation and translations, from the host's own mirror. As root.
# Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/distros/; remove a file to have it made anew.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/distros

say() { echo "distro: $*" >&2; }
die() { say "$*"; exit 1; }

[ $# -eq 1 ] || { echo "usage: $0 SUITE" >&2; exit 2; }
suite=$1
command -v mmdebstrap >/dev/null || die "mmdebstrap is not there: run ./test.sh, which installs what the tests need"

make() {
    site=$(sh "$here/../deploy/mirror.sh")
    [ -n "$site" ] || die "the host's apt has no mirror of its own release (see: apt-get indextargets)"
    say "making the minbase of $suite, a minute or two"
    rm -f "$result.new.tar"
    log=$cache/$suite.log
    mmdebstrap --variant=minbase --mode=root --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        "$suite" "$result.new.tar" "$site" >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "mmdebstrap $suite failed"; }
    mv "$result.new.tar" "$result"
}

result=$cache/$suite-$(sha256sum <"$here/distro.sh" | cut -c 1-12).tar
if [ ! -f "$result" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    exec 9>"$cache/lock"
    flock 9
    [ -f "$result" ] || make
fi
echo "$result"
