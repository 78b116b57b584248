#!/bin/sh
# usage: deploy/vhost-device-vsock.sh
#
# Prints the path of the vhost-device-vsock daemon, which gives a VM vsock where the host's kernel has no
# /dev/vhost-vsock. Debian has it since forky; its binary needs nothing but a libc of 2.34 or newer, so it
# runs on Debian 12 too. Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/tools/, with a file `manifest` beside it:
# "package version sha256".
set -eu
umask 022

suite=forky
here=$(cd "$(dirname "$0")" && pwd)
debs=$(sh "$here/suite.sh" $suite vhost-device-vsock)
version=$(awk '$1 == "vhost-device-vsock" { print $2 }' "$debs/versions")
tool=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/tools/vhost-device-vsock_$version/vhost-device-vsock

manifest=$(dirname "$tool")/manifest
if [ ! -x "$tool" ] || [ ! -f "$manifest" ]; then
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    dpkg-deb -x "$debs"/vhost-device-vsock_*.deb "$unpacked"
    # What cannot run here must not be handed out.
    "$unpacked/usr/bin/vhost-device-vsock" --version >&2 ||
        { echo "vhost-device-vsock: version $version does not run on this machine" >&2; exit 1; }
    mkdir -p "$(dirname "$tool")"
    install -m 755 "$unpacked/usr/bin/vhost-device-vsock" "$tool.$$"
    mv "$tool.$$" "$tool"
    cp "$debs/versions" "$manifest.$$"
    mv "$manifest.$$" "$manifest"
fi
echo "$tool"
