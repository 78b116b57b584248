#!/bin/sh
# usage: kernel/build.sh [--path]
#
# Prints the path of the guest's kernel (vmlinux), the only line on standard output, and builds it first if need
# be: from Debian's linux-source-6.12 and kernel/config/*.config (compile.sh). Progress goes to standard error.
# Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/kernel/<hash of the inputs>/, where it is found
# again in milliseconds and with no compiler. With --path: where it is, or would be; nothing is built.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/kernel
package=linux-source-6.12
tools="gcc make libc6-dev binutils flex bison bc libelf-dev xz-utils"

die() { echo "kernel: $*" >&2; exit 1; }

# Whatever the kernel is made from: the version of the sources, the recipe, the fragments.
key() {
    {
        echo "$package $version"
        cd "$here" && sha256sum compile.sh config/*.config
    } | sha256sum | cut -d ' ' -f 1
}

need_tools() {
    missing=
    for tool in gcc make ld flex bison bc xz; do
        command -v $tool >/dev/null || missing="$missing $tool"
    done
    [ -f /usr/include/libelf.h ] || missing="$missing libelf.h"
    [ -z "$missing" ] || die "missing:$missing (run: apt-get install $tools)"
}

build() {
    started=$(date +%s)
    mkdir "$work"
    sh "$here/compile.sh" "$work"
    mv "$work/result" "$cache/$key"
    echo "kernel: built in $(($(date +%s) - started)) s" >&2
}

case "$*" in
    "" | --path) ;;
    *) echo "usage: $0 [--path]" >&2; exit 2 ;;
esac
version=$(dpkg-query -W -f '${Version}' $package 2>/dev/null || true)
[ -n "$version" ] || die "$package is not installed (run: apt-get install $package $tools)"
key=$(key)
if [ $# -eq 0 ] && [ ! -f "$cache/$key/vmlinux" ]; then
    need_tools
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/work
    exec 9>"$cache/lock"
    flock -n 9 || { echo "kernel: waiting for another build of it" >&2; flock 9; }
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ ! -f "$cache/$key/vmlinux" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        build
    fi
fi
echo "$cache/$key/vmlinux"
