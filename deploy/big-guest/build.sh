#!/bin/sh
# usage: deploy/big-guest/build.sh [OUT.tar]
#
# Makes the image localhost/qemubox/debian:12, a whole Debian 12 with systemd as its first process and Docker inside
# (docs/big-guest.md), as an OCI archive for `ctr image import`: from the packages of the host's own mirror, by
# mmdebstrap, with the files of root/ over them. As root. Prints the archive's path; with OUT.tar it is copied there.
# Beside it lies NAME.packages, a line "package version" each; those alone decide what is in the image.
#
# Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/big-guest/, named by a hash of the recipe; remove the files
# there to have it made anew, with newer packages.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/big-guest
suite=bookworm
name=localhost/qemubox/debian:12
# What the default user is called, and the password; docs/big-guest.md tells everybody.
user=qemubox
password=qemubox

packages="
    systemd systemd-sysv dbus libpam-systemd login passwd sudo
    docker.io iptables ca-certificates e2fsprogs
    iproute2 iputils-ping netbase procps less nano bash-completion curl
"
# In a container these have nothing to do, or fail: devices, modules and kernel settings are the machine's, which the
# runtime has set up; the console has its own getty, and there are no others; what a first boot makes, packages have made.
# Timers load a machine that nobody has asked for it.
masked="
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-binfmt.service
    kmod-static-nodes.service systemd-modules-load.service systemd-tmpfiles-setup-dev.service
    systemd-remount-fs.service systemd-sysctl.service systemd-pstore.service systemd-random-seed.service
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-network-generator.service
    systemd-ask-password-console.path systemd-ask-password-wall.path
    getty-static.service getty@tty1.service modprobe@.service
    systemd-sysusers.service systemd-firstboot.service systemd-update-done.service systemd-machine-id-commit.service
    systemd-journal-catalog-update.service systemd-journal-flush.service
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
"

say() { echo "big-guest: $*" >&2; }
die() { say "$*"; exit 1; }

# The time of all files that the build makes: it says nothing of them, and would differ each time.
SOURCE_DATE_EPOCH=1764374400
export SOURCE_DATE_EPOCH

key() {
    (cd "$here" && find build.sh root ../image.py -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -c 1-12
}

# mmdebstrap calls the rest of this script with the new system's directory, once its packages are there.
customize() {
    target=$1
    cp -R --no-preserve=ownership "$here/root/." "$target/"
    chmod 440 "$target/etc/sudoers.d/$user"
    chroot "$target" useradd --create-home --shell /bin/bash --groups sudo,docker "$user"
    # The salt is fixed, so that the image is the same each time; nobody can mistake this password for a secret.
    chroot "$target" usermod --password "$(openssl passwd -6 -salt "$user" "$password")" "$user"
    for unit in $masked; do ln -sf /dev/null "$target/etc/systemd/system/$unit"; done
    ln -sf /usr/lib/systemd/system/multi-user.target "$target/etc/systemd/system/default.target"
    : >"$target/etc/machine-id"
    rm -rf "$target"/var/log/* "$target"/var/cache/ldconfig/aux-cache "$target"/var/cache/debconf/*-old \
        "$target"/var/lib/dpkg/*-old "$target"/etc/*- "$target"/var/lib/systemd/catalog/database \
        "$target"/var/lib/apt/lists/*
    # shellcheck disable=SC2016 # dpkg-query's own variables
    chroot "$target" dpkg-query -W -f '${Package} ${Version}\n' >"$QEMUBOX_PACKAGES"
}

build() {
    site=$(sh "$here/../mirror.sh")
    [ -n "$site" ] || die "the host's apt has no mirror of its own release (see: apt-get indextargets)"
    security=$(sh "$here/../mirror.sh" "$(. /etc/os-release && echo "$VERSION_CODENAME")-security")
    say "making a Debian of its own from $site, some minutes"
    rm -rf "$result.new" "$result.root.tar"
    log=$cache/log
    # shellcheck disable=SC2086 # a list of words
    QEMUBOX_PACKAGES=$result.packages mmdebstrap --variant=minbase --mode=root \
        --include="$(echo $packages | tr ' ' ',')" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --customize-hook="$here/build.sh --customize \"\$1\"" \
        "$suite" "$result.root.tar" "deb $site $suite main" ${security:+"deb $security $suite-security main"} \
        >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "mmdebstrap failed (whole log: $log)"; }
    # The first process, the signal that ends it (systemd(1), "SIGNALS"), and how it knows that it is in a container.
    python3 "$here/../image.py" "$result.new" "$name" --layer "$result.root.tar" --command /sbin/init \
        --stop-signal SIGRTMIN+3 --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env container=oci --env LANG=C.UTF-8
    rm "$result.root.tar"
    mv "$result.new" "$result"
}

if [ "${1:-}" = --customize ]; then
    customize "$2"
    exit
fi
[ $# -le 1 ] || { echo "usage: $0 [OUT.tar]" >&2; exit 2; }
result=$cache/$suite-$(key).tar
if [ ! -f "$result" ]; then
    [ "$(id -u)" -eq 0 ] || die "only root can make a root file system (run it with sudo)"
    for tool in mmdebstrap openssl python3; do
        command -v $tool >/dev/null || die "$tool is not there (run: apt-get install mmdebstrap openssl python3)"
    done
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    exec 9>"$cache/lock"
    flock 9
    [ -f "$result" ] || build
fi
[ $# -eq 0 ] || cp "$result" "$1"
echo "$result"
