#!/bin/sh
# usage: kernel/build.sh
#
# Builds the guest's kernel from Debian's linux-source-6.12 and kernel/config/*.config and prints the
# path of its vmlinux, the only line on standard output. Progress goes to standard error.
# What was built before is kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/kernel/<hash of the
# inputs>/ and found again in milliseconds, with no compiler. Beside vmlinux: its whole configuration.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/kernel
package=linux-source-6.12
tarball=/usr/src/$package.tar.xz
tools="gcc make libc6-dev binutils flex bison bc libelf-dev xz-utils"

say() { echo "kernel: $*" >&2; }
die() { say "$*"; exit 1; }

# Whatever the kernel is made from: one hash over fragments, scripts and the source package's version.
key() {
    {
        echo "$package $1"
        cd "$here" && sha256sum build.sh check-config.sh config/*.config
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

# Runs a step with its output in the log; a failure shows the end of it.
step() {
    "$@" </dev/null >>"$log" 2>&1 || { tail -n 25 "$log" >&2; die "failed: $* (whole log: $log)"; }
}

# The sources less what no option of ours compiles: a third of the time and half of the space.
unpack() {
    tar -C "$work" -xf "$tarball" --strip-components=1 \
        --exclude='*/Documentation/*/*' --exclude='*/tools/testing/*' --exclude='*/arch/*/boot/dts/*' \
        --exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/media/*.[ch]' --exclude='*/drivers/staging/*.[ch]' \
        --exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' --exclude='*/sound/*.[ch]'
}

# An empty configuration and the fragments: an option that no fragment asks for stays off even if one that
# was asked for makes it visible (tinyconfig and a merge afterwards would give it the default).
configure() {
    cat "$here"/config/*.config >"$work/fragments"
    step make -C "$work" KCONFIG_ALLCONFIG="$work/fragments" allnoconfig
    step make -C "$work" olddefconfig
    sh "$here/check-config.sh" "$here/config" "$work/.config" || die "the configuration is not what was asked for"
}

# Time, user and host would otherwise be part of the kernel.
compile() {
    step env KBUILD_BUILD_TIMESTAMP="@$(stat -c %Y "$tarball")" KBUILD_BUILD_USER=qemubox KBUILD_BUILD_HOST=qemubox \
        make -C "$work" -j"$(nproc)" vmlinux
}

build() {
    started=$(date +%s)
    sh "$here/check-config.sh" "$here/config" || die "the fragments contradict themselves"
    say "unpacking $package $version"
    step unpack
    configure
    say "compiling with $(nproc) jobs, about five minutes on two idle cores"
    compile
    mkdir "$work/result"
    strip -s -o "$work/result/vmlinux" "$work/vmlinux"
    cp "$work/.config" "$work/result/config"
    chmod 644 "$work/result/vmlinux" "$work/result/config"
    mv "$work/result" "$cache/$key"
    say "built in $(($(date +%s) - started)) s"
}

version=$(dpkg-query -W -f '${Version}' $package 2>/dev/null) && [ -f $tarball ] ||
    die "$package is not installed (run: apt-get install $package $tools)"
key=$(key "$version")
if [ ! -f "$cache/$key/vmlinux" ]; then
    need_tools
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/work
    log=$cache/build.log
    exec 9>"$cache/lock"
    flock 9
    # Whoever held the lock before may have built just this; whoever was killed left its work behind.
    if [ ! -f "$cache/$key/vmlinux" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir "$work"
        : >"$log"
        build
    fi
fi
echo "$cache/$key/vmlinux"
