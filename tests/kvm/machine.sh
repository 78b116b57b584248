#!/bin/sh
# usage: tests/kvm/machine.sh SUITE bare|host
#
# Prints the directory of a Debian machine for tests/kvm, as root: root.img (ext4, to be booted without an initrd,
# for the kernel has NVMe and ext4 built in), vmlinuz, id (its ssh key) and versions. `bare` has systemd and nothing
# that runs containers; `host` has the suite's containerd, runc, QEMU and iptables. What is in root/ beside this is in it, too.
#
# Kept in ${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/kvm/<hash of this recipe, suite and kind>/: a second call
# needs no network. Remove that directory to get newer packages. The host's apt is read (its mirror), never changed.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}/kvm
packages=linux-image-cloud-amd64,systemd-sysv,udev,kmod,dbus,iproute2,openssh-server
# What a container's host has no use for while it is tested, and what would only make its boot longer under emulation.
masked="apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    systemd-tmpfiles-clean.timer getty.target systemd-logind.service systemd-pstore.service systemd-random-seed.service
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-user-sessions.service
    modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service
    modprobe@fuse.service modprobe@loop.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    sys-fs-fuse-connections.mount"

say() { echo "machine: $*" >&2; }
die() { say "$*"; exit 1; }

[ $# -eq 2 ] || { echo "usage: $0 SUITE bare|host" >&2; exit 2; }
suite=$1
kind=$2
case $kind in
bare) ;;
host) packages=$packages,containerd,runc,qemu-system-x86,iptables ;;
*) die "unknown kind: $kind (there are bare, host)" ;;
esac
for program in mmdebstrap mkfs.ext4 apt-get ssh-keygen; do
    command -v $program >/dev/null || die "$program is not there: run ./test.sh, which installs what the tests need"
done

# One line for each package index of Debian's main that the host's apt has: "site release codename".
indexes() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        sed -n 's/ main$//p'
}

# The site that the host gets RELEASE from, by the name in its sources or in the release itself.
site_of() {
    indexes | awk -v release="$1" '$2 == release || $3 == release { print $1; exit }'
}

# Into the file system of the machine: its settings, its name, what it does not start, and who may log in.
configure() {
    cp -R "$here/root/." "$tree"
    echo kvm-"$suite" >"$tree/etc/hostname"
    printf '127.0.0.1\tlocalhost kvm-%s\n' "$suite" >"$tree/etc/hosts"
    : >"$tree/etc/fstab"
    # shellcheck disable=SC2086 # lists
    systemctl_in mask $masked
    systemctl_in enable lane-network.service lane-ready.service
    systemctl_in set-default multi-user.target
    chroot "$tree" systemd-machine-id-setup >/dev/null 2>&1
    # One host key: each takes a part of a second to load.
    rm -f "$tree"/etc/ssh/ssh_host_rsa_key* "$tree"/etc/ssh/ssh_host_ecdsa_key*
    ssh-keygen -q -t ed25519 -N '' -C kvm -f "$work/id"
    install -d -m 700 "$tree/root/.ssh"
    install -m 600 "$work/id.pub" "$tree/root/.ssh/authorized_keys"
    # Or systemd takes the machine for one whose /usr is newer than its /etc, and brings that up to date at each boot.
    touch "$tree/etc/.updated" "$tree/var/.updated"
}

systemctl_in() { chroot "$tree" systemctl "$@" >/dev/null 2>&1 || die "failed in the new machine: systemctl $*"; }

make() {
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    site=$(site_of "$release")
    [ -n "$site" ] || die "the host's apt has no mirror of Debian ${release:-(no VERSION_CODENAME in /etc/os-release)}" \
        "(see: apt-get indextargets)"
    security=$(site_of "$release-security")
    say "making a machine of $suite ($kind), some minutes"
    work=$cache/work
    rm -rf "$work"
    mkdir "$work" "$work/tmp"
    tree=$work/tree
    set -- "deb $site $suite main"
    [ -z "$security" ] || set -- "$@" "deb $security $suite-security main"
    TMPDIR=$work/tmp mmdebstrap --variant=minbase --mode=root --format=directory --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "$suite" "$tree" "$@" >"$cache/$suite-$kind.log" 2>&1 ||
        { tail -n 20 "$cache/$suite-$kind.log" >&2; die "mmdebstrap $suite failed ($cache/$suite-$kind.log)"; }
    # shellcheck disable=SC2016 # dpkg's own variables
    chroot "$tree" dpkg-query -W -f '${Package} ${Version}\n' >"$work/versions"
    configure
    cp "$tree"/boot/vmlinuz-* "$work/vmlinuz" || die "there is not one kernel in $tree/boot"
    rm -f "$tree"/boot/initrd.img-* "$tree"/initrd.img*
    truncate -s 8G "$work/root.img"
    mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1,nodiscard -d "$tree" "$work/root.img"
    rm -rf "$tree" "$work/tmp"
    mv -T "$work" "$result"
}

key=$({
    echo "$suite $kind"
    cd "$here"
    find machine.sh root -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -c 1-24)
result=$cache/$key
if [ ! -d "$result" ]; then
    [ "$(id -u)" -eq 0 ] || die "must be run as root"
    mkdir -p "$cache" || die "cannot write to $cache (set QEMUBOX_BUILD_CACHE to a directory that can be written to)"
    exec 9>"$cache/lock"
    flock 9
    [ -d "$result" ] || make
fi
echo "$result"
