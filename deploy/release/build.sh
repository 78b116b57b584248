#!/bin/sh
# usage: deploy/release/build.sh [--version VERSION] [--fresh]
#
# Makes dist/qemubox-VERSION-linux-x86_64.tar.gz, and its .sha256 beside it, and prints its path, the only line on
# standard output. The archive is all that installing qemubox takes: no network, no compiler, nothing of the host's
# but a kernel and a shell (docs/decisions/0032). VERSION is pyproject.toml's, or the one given.
#
# Each part comes from its own script, kept where that says; the archive is kept in
# ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/release/<hash of all that goes in>/, so a second call takes
# seconds. The same commit and parts give the same bytes: times are SOURCE_DATE_EPOCH's, or the commit's. --fresh puts
# the archive together once more although it is there.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/release
# Archives that are kept: 150 MiB each.
keep=3

say() { echo "release: $*" >&2; }
die() { say "$*"; exit 1; }
usage() { echo "usage: $0 [--version VERSION] [--fresh]" >&2; exit 2; }

version=
fresh=no
while [ $# -gt 0 ]; do
    case $1 in
    --version) [ $# -gt 1 ] || usage; version=$2; shift ;;
    --fresh) fresh=yes ;;
    *) usage ;;
    esac
    shift
done

epoch=${SOURCE_DATE_EPOCH:-$(git -C "$project" log -1 --format=%ct 2>/dev/null || true)}
case $epoch in
"" | *[!0-9]*) die "SOURCE_DATE_EPOCH '$epoch': not seconds since 1970 (it is the commit's time where this is a git checkout)" ;;
esac
# What is made here is dated by `epoch`; the parts have times of their own, and are the same for many commits.
unset SOURCE_DATE_EPOCH

# The parts; what one of them says goes to standard error.
get_parts() {
    own=$(sh "$project/deploy/wheel.sh" ${version:+--version "$version"})
    version=$(basename "$own" | cut -d - -f 2)
    runtime=$(sh "$here/runtime.sh")
    wheels=$(sh "$project/deploy/wheels.sh" <"$project/requirements-otel.lock")
    containerd=$(sh "$project/deploy/parts.sh" containerd)
    plugins=$(sh "$project/deploy/parts.sh" plugins)
    vsock=$(sh "$project/deploy/vhost-device-vsock.sh")
    busybox=$(sh "$project/deploy/suite.sh" trixie busybox-static)
    image=$(sh "$project/initrd/build.sh")
    base=$(sh "$project/initrd/base.sh")
    kernel=$(sh "$project/kernel/build.sh")
}

# Files that are as in the checkout: those that git knows, for what else lies about there is nobody's release.
sources() {
    cd "$project"
    {
        ls install.sh LICENSE README.md
        if [ -e .git ]; then git ls-files deploy docs; else find deploy docs -type f ! -name '*.pyc'; fi
    } | grep -v '^docs/.*/' | LC_ALL=C sort # docs/benchmarks and decisions are for developers
}

key() {
    {
        echo "$version $epoch"
        printf '%s\n' "$own" "$runtime" "$wheels" "$containerd" "$plugins" "$vsock" "$busybox" "$image" "$kernel"
        tar --version | head -n 1
        gzip --version | head -n 1
        sources | (cd "$project" && xargs stat -c '%A %n' && sources | xargs sha256sum)
    } | sha256sum | cut -c 1-24
}

# The release's own Python, with nothing but the checkout's packages or those that are named.
python() {
    packages=$1
    shift
    env -i PATH="$PATH" PYTHONPATH="$packages" PYTHONHASHSEED=0 "$runtime/tree/bin/python3" -sSB "$@"
}

# What goes below PREFIX.
lay_out_tree() {
    tree=$root/tree
    lib=$tree/lib/qemubox
    mkdir -p "$tree/bin" "$lib/cni" "$lib/demo" "$tree/share/qemubox"
    cp "$containerd/containerd" "$containerd/ctr" "$tree/bin"
    for plugin in bandwidth bridge firewall host-local loopback macvlan portmap ptp static tuning; do
        cp "$plugins/$plugin" "$lib/cni"
    done
    cp -a "$runtime/tree" "$lib/runtime"
    python "$project" -m deploy.release.site_packages "$lib/runtime" "$lib/site-packages" "$own" "$wheels"/*.whl >&2
    cp "$vsock" "$lib/vhost-device-vsock"
    dpkg-deb --fsys-tarfile "$busybox"/busybox-static_*.deb | tar -xO ./usr/bin/busybox >"$lib/demo/busybox"
    chmod 755 "$lib/demo/busybox"
    cp "$kernel" "$tree/share/qemubox/vmlinux"
    cp "$image" "$tree/share/qemubox/guest.erofs"
}

# What our own commands write about themselves.
lay_out_documents() {
    share=$tree/share
    mkdir -p "$share/man" "$share/bash-completion/completions" "$share/zsh/site-functions" \
        "$share/fish/vendor_completions.d"
    python "$lib/site-packages" -m shim.cli man "$share/man" >&2
    python "$lib/site-packages" -m shim.cli completion bash >"$share/bash-completion/completions/qemubox"
    python "$lib/site-packages" -m shim.cli completion zsh >"$share/zsh/site-functions/_qemubox"
    python "$lib/site-packages" -m shim.cli completion fish >"$share/fish/vendor_completions.d/qemubox.fish"
}

# The kernel's sources, and the C library in the launchers, are this machine's packages.
write_sbom() {
    dpkg-query -W -f '${Package} ${Version} -\n' linux-source-6.12 >"$work/kernel"
    dpkg-query -W -f '${Package} ${Version} -\n' libc6-dev >"$work/launchers"
    sha256sum "$wheels"/*.whl >"$work/wheels"
    host=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
    python "$project" -m deploy.release.sbom "$version" "$epoch" "$root/sbom.spdx.json" \
        "debian:trixie:lib/qemubox/runtime=$runtime/manifest" \
        "debian:$host:lib/qemubox/runtime/bin=$work/launchers" \
        "debian:trixie:share/qemubox/guest.erofs=$base/usr/share/qemubox/manifest" \
        "debian:$host:share/qemubox/vmlinux=$work/kernel" \
        "debian:forky:lib/qemubox/vhost-device-vsock=$(dirname "$vsock")/manifest" \
        "debian:trixie:lib/qemubox/demo/busybox=$busybox/versions" \
        "wheels:lib/qemubox/site-packages=$work/wheels" \
        "go:bin=$containerd/modules" "go:lib/qemubox/cni=$plugins/modules"
}

assemble() {
    say "putting $name together"
    root=$work/$name
    mkdir -p "$root/deploy" "$work/result"
    sources | grep -v '^deploy/release/' | tar -C "$project" -c --no-recursion -T - | tar -x -C "$root"
    echo "$version" >"$root/VERSION"
    lay_out_tree
    lay_out_documents
    write_sbom
    (cd "$root" && find . -type f ! -path ./SHA256SUMS -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum) \
        >"$work/SHA256SUMS"
    mv "$work/SHA256SUMS" "$root"
    LC_ALL=C tar -C "$work" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" \
        --mode=u+rwX,go+rX,go-w -c "$name" | gzip -n >"$work/result/$name.tar.gz"
    (cd "$work/result" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
    [ "$(key)" = "$key" ] || die "the sources changed while the archive was made (run it again)"
    rm -rf "${cache:?}/$key"
    mv "$work/result" "$cache/$key"
    find "$cache" -mindepth 2 -maxdepth 2 -name '*.tar.gz' -printf '%T@ %h\n' | sort -rn | tail -n +$((keep + 1)) |
        while read -r _ directory; do rm -rf "$directory"; done
}

if [ -n "$(git -C "$project" status --porcelain 2>/dev/null || true)" ]; then
    say "this checkout has changes that no commit has: they are in the archive too, and it is no commit's"
fi
get_parts
name=qemubox-$version-linux-x86_64
key=$(key)
if [ $fresh = yes ] || [ ! -d "$cache/$key" ]; then
    work=$cache/work
    exec 9>"$cache/lock"
    flock 9
    # Whoever held the lock before may have made just this; whoever was killed left its work behind.
    if [ $fresh = yes ] || [ ! -d "$cache/$key" ]; then
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' HUP INT TERM
        rm -rf "$work"
        mkdir "$work"
        assemble
    fi
fi
mkdir -p "$project/dist"
for file in "$name.tar.gz" "$name.tar.gz.sha256"; do
    if ! cmp -s "$cache/$key/$file" "$project/dist/$file"; then
        cp "$cache/$key/$file" "$project/dist/$file.$$"
        mv "$project/dist/$file.$$" "$project/dist/$file"
    fi
done
echo "$project/dist/$name.tar.gz"
