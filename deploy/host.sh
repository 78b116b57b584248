#!/bin/sh
# usage: deploy/host.sh PURPOSE...
#
# Makes this host ready for the named purposes: installs, by apt, the packages that are missing, and makes the
# system user that QEMU runs as. Asks apt for nothing when nothing is missing. Purposes:
#   run     what a host needs to run containers in virtual machines
#   build   what building the guest's kernel and image, and the Python environment, takes
#   demo    a containerd and a static busybox
#   test    what the tests compare with and look through
set -eu

say() { echo "host: $*" >&2; }
die() { say "$*"; exit 1; }

# A package counts as there if what we need of it is there, whoever installed it: "package program-or-file".
needs() {
    case $1 in
    run) echo "qemu-system-x86 qemu-system-x86_64
$(virtiofsd)
python3 /usr/bin/python3
erofs-utils mkfs.erofs
e2fsprogs mkfs.ext4
iproute2 ip
util-linux flock
containernetworking-plugins /usr/lib/cni/bridge
iptables iptables" ;;
    build) echo "python3-venv /usr/lib/python$(python_version)/ensurepip/__init__.py
ca-certificates /etc/ssl/certs/ca-certificates.crt
debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
linux-source-6.12 /usr/src/linux-source-6.12.tar.xz
gcc gcc
libc6-dev /usr/include/stdio.h
make make
binutils ld
flex flex
bison bison
bc bc
xz-utils xz
erofs-utils mkfs.erofs
git git
util-linux flock
libelf-dev /usr/include/libelf.h" ;;
    demo) echo "containerd containerd
runc runc
busybox-static /usr/bin/busybox" ;;
    test) echo "containerd /usr/bin/containerd
runc runc
busybox-static /usr/bin/busybox
util-linux nsenter
mount mount
iproute2 ip
containernetworking-plugins /usr/lib/cni/bridge
iptables iptables
nftables nft
iperf3 iperf3
socat socat
xfsprogs mkfs.xfs
btrfs-progs mkfs.btrfs
procps ps
mmdebstrap mmdebstrap
dpkg dpkg-deb
openssh-client ssh-keygen
groff-base groff
systemd systemd-analyze
gcc gcc
libc6-dev /usr/include/stdio.h
git git" ;;
    *) die "unknown purpose: $1 (there are run, build, demo, test)" ;;
    esac
}

# Debian 12's is of QEMU's own sources, with its other programs; later ones have a package for it.
virtiofsd() {
    if grep -q '^VERSION_ID="12"' /etc/os-release; then
        echo "qemu-system-common /usr/lib/qemu/virtiofsd"
    else
        echo "virtiofsd /usr/libexec/virtiofsd"
    fi
}

# Before Python is there, the one that apt would bring.
python_version() {
    if [ -x /usr/bin/python3 ]; then
        /usr/bin/python3 -ISc 'import sys; print("%d.%d" % sys.version_info[:2])'
    else
        echo 3
    fi
}

is_there() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

missing() {
    for purpose; do needs "$purpose"; done | while read -r package probe; do
        is_there "$probe" || echo "$package"
    done | sort -u | tr '\n' ' '
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o APT::Install-Recommends=0 "$@" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "failed: apt-get $*"; }
}

install_packages() {
    packages=$(missing "$@")
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || die "missing: $packages(this host has no apt: install them by hand)"
    say "installing $packages"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    apt update
    # shellcheck disable=SC2086 # a list
    apt install -y $packages
    packages=$(missing "$@")
    [ -z "$packages" ] || die "still missing after installing it: $packages"
}

make_user() {
    getent passwd qemubox >/dev/null && return 0
    say "making the system user qemubox"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin qemubox
}

[ $# -gt 0 ] || { echo "usage: $0 run|build|demo|test..." >&2; exit 2; }
[ "$(uname -m)" = x86_64 ] || die "this is $(uname -m); there is only x86_64"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8
[ "$(id -u)" -eq 0 ] || die "must be run as root"
install_packages "$@"
make_user
/usr/bin/python3 -ISc 'import sys; sys.exit(sys.version_info < (3, 11))' || die "/usr/bin/python3 is older than 3.11"
