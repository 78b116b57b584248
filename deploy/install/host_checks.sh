# shellcheck shell=sh
# What the host's kernel and its security have for machines. Part of install.sh; see checks.sh.

check_machine() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "this is $(uname -s) on $(uname -m): there is only Linux on x86_64"
}

# Pidfds, openat2(2) and open_tree(2) are older than 5.10; mount_setattr(2), for volumes, is of 5.12.
check_kernel() {
    release=$(uname -r)
    major=${release%%.*}
    minor=${release#*.}
    minor=${minor%%[!0-9]*}
    if [ $((major * 1000 + minor)) -lt 5010 ]; then
        fail "the kernel is $release, and the oldest that will do is 5.10" "upgrade this host's kernel"
    elif [ $((major * 1000 + minor)) -lt 5012 ]; then
        warn "the kernel is $release: containers with volumes want 5.12" "upgrade this host's kernel"
    fi
}

# By which QEMU and its helpers become an unprivileged user (shim/vm/process.py).
check_setpriv() {
    [ -x /usr/bin/setpriv ] || [ $source = checkout ] || fail "there is no /usr/bin/setpriv: no machine could be started" "$(by_package util-linux util-linux)"
}

check_kvm() {
    [ -e /dev/kvm ] || warn "there is no /dev/kvm: machines run under QEMU's TCG, which is slower and no security boundary" \
        "modprobe kvm_intel, or kvm_amd; in a virtual machine, have nested virtualization switched on"
}

check_tun() {
    [ -c /dev/net/tun ] || modprobe -n -q tun 2>/dev/null ||
        fail "there is no /dev/net/tun: machines could have no network" "modprobe tun; in a container: mkdir -p /dev/net && mknod /dev/net/tun c 10 200"
}

# has_module NAME SYMBOL: loaded, built in, or there to be loaded. SYMBOL is a function of it, for kernels that say nothing
# else of what is built into them.
has_module() {
    [ -d "/sys/module/$1" ] || modprobe -n -q "$1" 2>/dev/null || grep -qs "/$1\.ko" "/lib/modules/$(uname -r)/modules.builtin" ||
        grep -qsw "$2" /proc/kallsyms
}

# By which frames go between a container's interface and its machine's.
check_modules() {
    missing=
    for pair in sch_ingress:ingress_init cls_u32:u32_classify act_mirred:tcf_mirred_init; do
        has_module "${pair%:*}" "${pair#*:}" || missing="$missing ${pair%:*}"
    done
    [ -n "$missing" ] || return 0
    if [ -d "/lib/modules/$(uname -r)" ]; then
        fail "this kernel ($(uname -r)) lacks the modules$missing: machines could have no network" \
            "$(by_package "linux-modules-extra-$(uname -r) on Ubuntu, linux-image-amd64 in place of a cloud kernel on Debian" kernel-modules-extra), or boot a kernel with them"
    else
        warn "there is no /lib/modules/$(uname -r) to tell whether the kernel has$missing; \`qemubox check\` tries them" \
            "$(by_package linux-image-amd64 kernel-modules-extra), and boot it"
    fi
}

check_vhost() {
    [ -e /dev/vhost-vsock ] || has_module vhost_vsock vhost_vsock_init ||
        warn "there is no /dev/vhost-vsock: machines talk by virtio-serial, which is slower" "modprobe vhost_vsock"
    [ -e /dev/vhost-net ] || has_module vhost_net vhost_net_init ||
        warn "there is no /dev/vhost-net: QEMU carries the frames, which is slower" "modprobe vhost_net"
}

check_cgroups() {
    grep -q ' cgroup2\? ' /proc/self/mounts ||
        fail "no control groups are mounted: containerd starts no container" "mount -t cgroup2 none /sys/fs/cgroup"
}

check_memory() {
    total=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
    [ "$total" -ge 900 ] || warn "this host has $total MiB of memory; a machine takes 640 unless configured or limited otherwise" \
        "set vm.default_memory_mib in $config"
}

# The network's own check is deploy/network.sh's, which knows the subnet.
check_firewall() {
    command -v iptables >/dev/null || [ -x "$here/tree/lib/qemubox/runtime/bin/iptables" ] || [ $source = checkout ] ||
        warn "there is no iptables: containers have no network" "$(by_package iptables iptables-nft)"
}

# What SELinux lets be run is told by labels, and those by rules for paths, which the owner of the host makes.
check_selinux() {
    [ "$(cat /sys/fs/selinux/enforce 2>/dev/null || true)" = 1 ] || return 0
    case $prefix in
    /usr/local) return 0 ;; # its bin is labelled bin_t everywhere
    esac
    rules="semanage fcontext -a -t bin_t '$prefix/bin(/.*)?' && semanage fcontext -a -t bin_t '$lib/.*/bin(/.*)?' && semanage fcontext -a -t bin_t '$lib/.*/libexec(/.*)?'"
    if ! command -v matchpathcon >/dev/null; then
        warn "SELinux is enforcing, and matchpathcon is not there to tell whether it lets $prefix/bin be run" "$(by_package selinux-utils libselinux-utils); $rules"
    elif ! matchpathcon -n "$prefix/bin/qemubox" | grep -q ':bin_t:\|_exec_t:'; then
        fail "SELinux is enforcing, and has no rule that lets systemd run $prefix/bin/qemubox" "$rules (semanage: $(by_package policycoreutils-python-utils policycoreutils-python-utils)); then this again"
    fi
}

# A profile confines whoever is run by its path; ours have none, but a distribution's QEMU or virtiofsd may.
check_apparmor() {
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || true)" = Y ] || return 0
    profiles=$(grep -E '^[^ ]*(qemubox|qemu-system|virtiofsd)[^ ]* \(enforce\)' /sys/kernel/security/apparmor/profiles 2>/dev/null | cut -d ' ' -f 1 | tr '\n' ' ')
    [ -z "$profiles" ] || warn "AppArmor confines ${profiles}: machines may not start" "aa-complain $profiles, if they do not"
}

check_other_networks() {
    others=$(find /etc/cni/net.d -maxdepth 1 \( -name '*.conflist' -o -name '*.conf' -o -name '*.json' \) 2>/dev/null | sort | tr '\n' ' ')
    [ -z "$others" ] || say "other CNI networks are left alone: ${others% }; qemubox's is in $networks"
}
