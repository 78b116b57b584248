#!/bin/sh
# usage: kernel/compile.sh WORK_DIR
#
# Compiles the guest's kernel in the empty directory WORK_DIR, whatever it takes: unpacks Debian's
# linux-source-6.12, configures it by kernel/config/*.config and leaves in WORK_DIR/result: vmlinux, its whole
# configuration (config) and its symbols (System.map). Progress and faults go to standard error, the
# compiler's words to WORK_DIR.log. Called by build.sh, which keeps the result; this file is part of its key.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
tarball=/usr/src/linux-source-6.12.tar.xz
work=$1
log=$work.log

say() { echo "kernel: $*" >&2; }
die() { say "$*"; exit 1; }

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

# Time, user and host would otherwise be part of the kernel. One job more than there are CPUs: some wait for the disk.
compile() {
    released=$(LC_ALL=C date -u -d "@$(stat -c %Y "$tarball")")
    step env KBUILD_BUILD_TIMESTAMP="$released" KBUILD_BUILD_USER=qemubox KBUILD_BUILD_HOST=qemubox \
        make -C "$work" -j$(($(nproc) + 1)) vmlinux
}

sh "$here/check-config.sh" "$here/config" || die "the fragments contradict themselves"
: >"$log"
say "unpacking $tarball"
step unpack
configure
say "compiling with $(nproc) CPUs, about five minutes on two idle ones"
compile
mkdir "$work/result"
strip -s -o "$work/result/vmlinux" "$work/vmlinux"
cp "$work/.config" "$work/result/config"
cp "$work/System.map" "$work/result/System.map"
chmod 644 "$work/result"/*
