#!/bin/sh
# usage: deploy/suite.sh [--with-dependencies] SUITE PACKAGE...
#
# Downloads the named packages from a Debian suite that is not the host's own (say a newer one), and prints the
# directory that holds them: PACKAGE_VERSION_ARCH.deb each, and a file `versions` with a line
# "package version sha256" for each. Nothing is installed, and the host's apt configuration is read (its mirror,
# its proxy) but never changed: lists, cache and sources are private. Only those that are named; with the option,
# what they depend on too (not what they recommend), down to the libc, as on a machine that has nothing yet.
#
# Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/debs/<hash of suite and names>/, so a second
# call needs no network; remove that directory to get newer versions.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/debs
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

die() { echo "suite: $*" >&2; exit 1; }

option=
fetch=fetch_named
if [ "${1:-}" = --with-dependencies ]; then
    option=$1
    fetch=fetch_all
    shift
fi
[ $# -ge 2 ] || { echo "usage: $0 [--with-dependencies] SUITE PACKAGE..." >&2; exit 2; }
suite=$1
shift

# Where the host gets its own release from, the suite is too; the same for security updates.
write_sources() {
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    site=$(sh "$here/mirror.sh" "$release")
    [ -n "$site" ] || die "the host's apt has no mirror of Debian ${release:-(no VERSION_CODENAME in /etc/os-release)}, component main" \
        "(see: apt-get indextargets)"
    [ -f $keyring ] || die "no $keyring (run: apt-get install debian-archive-keyring)"
    options="[arch=$arch signed-by=$keyring lang=none target=Packages]"
    echo "deb $options $site $suite main"
    site=$(sh "$here/mirror.sh" "$release-security")
    [ -z "$site" ] || echo "deb $options $site $suite-security main"
}

private_apt() {
    "$@" -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$apt" -o Dir::State::Lists="$apt/lists" -o Dir::State::Status="$apt/status" \
        -o Dir::Cache="$apt/cache" -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
        -o APT::Update::Error-Mode=any -o Acquire::Retries=3 1>&2
}

# apt fetches as its own unprivileged user, if it may write there.
for_apt() {
    mkdir -p "$@"
    if [ "$(id -u)" -eq 0 ] && getent passwd _apt >/dev/null; then chown _apt "$@"; fi
}

fetch_named() {
    (cd "$work" && private_apt apt-get download "$@")
}

# To apt this is the installation of a machine whose packages it knows nothing of: the status is empty.
fetch_all() {
    for_apt "$work/partial"
    private_apt apt-get install --download-only --yes --no-install-recommends -o Dir::Cache::Archives="$work" "$@" &&
        rm -r "$work/partial" "$work/lock"
}

download() {
    apt=$cache/apt/$suite-$arch
    mkdir -p "$apt/cache"
    for_apt "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    write_sources >"$apt/sources.list"
    echo "suite: fetching from $suite: $*" >&2
    private_apt apt-get update || die "apt cannot read the suite $suite from the host's mirror (is its name right?)"
    rm -rf "$work"
    for_apt "$work"
    $fetch "$@" || die "apt cannot download from $suite: $*"
    [ "$(id -u)" -ne 0 ] || chown -R 0:0 "$work"
    for package in "$@"; do
        [ -f "$(echo "$work/${package}"_*.deb)" ] || die "$suite has no package $package"
    done
    for deb in "$work"/*.deb; do
        package=${deb##*/}
        echo "${package%%_*} $(dpkg-deb -f "$deb" Version) $(sha256sum <"$deb" | cut -d ' ' -f 1)"
    done >"$work.versions"
    mv "$work.versions" "$work/versions"
    chmod 755 "$work"
    mv "$work" "$result"
}

arch=$(dpkg --print-architecture)
result=$cache/$(printf '%s\n' "$arch" "$suite" "$@" $option | sha256sum | cut -c 1-24)
if [ ! -d "$result" ]; then
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    work=$cache/work
    exec 9>"$cache/lock"
    flock 9
    [ -d "$result" ] || download "$@"
fi
echo "$result"
