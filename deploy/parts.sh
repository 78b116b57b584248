#!/bin/sh
# usage: deploy/parts.sh [containerd|plugins]
#
# Prints the directory with the newest of what a release brings and the tests run against, built from the Go module
# proxy by the ordinary `go install`: `containerd`, `ctr` and runc's shim of the same version; or the CNI plugins, and
# `cnitool`, which is libcni with a command line. All are static, and the same bytes wherever they are built: one
# toolchain, no C, no paths. The toolchain is fetched by the host's go if it is 1.24 or newer, else by the one of a newer
# Debian suite, unpacked privately.
# Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/parts/; beside them lies `modules`, what each is made of, as
# `go version -m` tells it.
set -eu
umask 022

containerd=2.3.4
plugins=1.10.0
libcni=1.3.1
toolchain=go1.26.8 # the oldest that these modules take
suite=forky
here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/parts

say() { echo "parts: $*" >&2; }
die() { say "$*"; exit 1; }

part=${1:-containerd}
case $part in
containerd)
    result=$cache/containerd-$containerd-$toolchain
    module=github.com/containerd/containerd/v2/cmd
    packages="$module/containerd@v$containerd $module/ctr@v$containerd $module/containerd-shim-runc-v2@v$containerd" ;;
plugins)
    result=$cache/plugins-$plugins-$libcni-$toolchain
    module=github.com/containernetworking
    packages=$module/cni/cnitool@v$libcni
    for plugin in main/bridge main/loopback main/macvlan main/ptp ipam/host-local ipam/static \
        meta/bandwidth meta/firewall meta/portmap meta/tuning; do
        packages="$packages $module/plugins/plugins/$plugin@v$plugins"
    done ;;
*) die "unknown part: $part (there are containerd, plugins)" ;;
esac

# Go fetches the toolchain that a module asks for since 1.21; 1.24 is the oldest this was tried with.
is_new_enough() {
    [ -n "$1" ] || return 1
    minor=$("$1" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 24 ]
}

# The metapackage names the version that the suite has now.
fetch_go() {
    meta=$(sh "$here/suite.sh" $suite golang-go)
    go=$(dpkg-deb -f "$meta"/golang-go_*.deb Depends | grep -o 'golang-1\.[0-9]*-go' | head -n 1)
    [ -n "$go" ] || die "golang-go of $suite depends on no golang-1.N-go"
    debs=$(sh "$here/suite.sh" $suite "$go" "${go%-go}-src")
    tree=$cache/${go%-go}_$(awk 'NR == 1 { print $2 }' "$debs/versions")
    if [ ! -d "$tree" ]; then
        rm -rf "$tree.new"
        mkdir "$tree.new"
        for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$tree.new"; done
        mv "$tree.new" "$tree"
    fi
    echo "$tree/usr/lib/${go#golang-}" | sed 's/-go$//; s,/lib/,/lib/go-,'
}

build() {
    go=$(command -v go || true)
    if ! is_new_enough "$go"; then
        go=$(fetch_go)/bin/go
        is_new_enough "$go" || die "the go of $suite does not run here: $go"
    fi
    say "building $part with $toolchain, some minutes"
    rm -rf "$cache/work"
    mkdir "$cache/work"
    : "${HOME:=/root}"
    export HOME
    for package in $packages; do
        GOBIN=$cache/work GOTOOLCHAIN=$toolchain CGO_ENABLED=0 GOFLAGS= GOAMD64=v1 \
            "$go" install -trimpath -ldflags '-s -w -buildid=' "$package" >&2 || die "go install of $package failed"
    done
    (cd "$cache/work" && GOTOOLCHAIN=$toolchain "$go" version -m -- *) >"$cache/modules" || die "go version -m failed"
    mv "$cache/modules" "$cache/work/modules"
    rm -rf "$result"
    mv "$cache/work" "$result"
}

is_complete() {
    [ -f "$result/modules" ] || return 1
    for package in $packages; do
        program=${package##*/}
        [ -x "$result/${program%@*}" ] || return 1
    done
}

if ! is_complete; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    exec 9>"$cache/lock"
    flock 9
    is_complete || build
fi
echo "$result"
