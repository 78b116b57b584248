# shellcheck shell=sh
# What must hold before anything is changed; each finding with what mends it. Part of install.sh.
#
# A failure keeps it from being installed, unless --skip-checks was given; a warning tells what will be slower or missing.

failures=0

fail() { failures=$((failures + 1)); printf 'check: failure: %s\n' "$1" >&2; [ -z "${2:-}" ] || printf '       mend it: %s\n' "$2" >&2; }
warn() { printf 'check: warning: %s\n' "$1" >&2; [ -z "${2:-}" ] || printf '       mend it: %s\n' "$2" >&2; }

run_checks() {
    check_machine
    check_kernel
    check_setpriv
    check_kvm
    check_tun
    check_modules
    check_vhost
    check_cgroups
    check_memory
    check_places
    check_space
    check_firewall
    check_selinux
    check_apparmor
    check_other_networks
    check_other_installations
    check_containerd
    check_systemd
    [ $failures -gt 0 ] || return 0
    if [ $skip_checks = yes ]; then
        say "going on all the same (--skip-checks)"
    else
        die "$failures of the checks failed (see above): nothing was changed; mend that, or go on all the same with --skip-checks"
    fi
}

# Where a package is what is missing, the command of this host that brings it: "by_package DEBIAN FEDORA".
by_package() {
    if command -v apt-get >/dev/null; then echo "apt-get install $1"
    elif command -v dnf >/dev/null; then echo "dnf install $2"
    elif command -v zypper >/dev/null; then echo "zypper install $2"
    else echo "install $1"
    fi
}

# The nearest directory that there is.
nearest() {
    nearest=$1
    while [ ! -d "$nearest" ]; do nearest=$(dirname "$nearest"); done
    echo "$nearest"
}

# Where things go can be written to; and programs of PREFIX can be run there.
check_places() {
    if [ "$(id -u)" -ne 0 ]; then say "not checked without root: whether things can be written to where they go"; return; fi
    for path in "$prefix" /etc /var/lib /var/cache /run; do
        place=$(nearest "$path")
        # access(2) says EROFS to root, too.
        [ -w "$place" ] || fail "$place cannot be written to (a read-only file system?)" "mount -o remount,rw $(mount_of "$place"), or another --prefix"
    done
    case ,$(options_of "$(nearest "$prefix")"), in
    *,noexec,*) fail "$(mount_of "$(nearest "$prefix")") is mounted noexec: nothing in $prefix could be run" "mount -o remount,exec $(mount_of "$(nearest "$prefix")"), or another --prefix" ;;
    esac
}

mount_of() { df -P "$1" 2>/dev/null | awk 'NR == 2 { print $6 }'; }
options_of() { awk -v at="$(mount_of "$1")" '$2 == at { found = $4 } END { print found }' /proc/self/mounts; }

# MiB that a file system has free.
free_mib() { df -Pk "$(nearest "$1")" | awk 'NR == 2 { print int($4 / 1024) }'; }

check_space() {
    needed=300 # a checkout's environment, kernel and image
    [ $source = checkout ] || needed=$(($(du -sk "$here/tree" | cut -f 1) / 1024 * 11 / 10 + 20))
    free=$(free_mib "$prefix")
    [ "$free" -ge "$needed" ] || fail "$prefix: $free MiB are free on $(mount_of "$(nearest "$prefix")"), and $needed are needed" "free some, or another --prefix"
    free=$(free_mib /var/cache)
    if [ "$free" -lt 256 ]; then
        fail "/var/cache: $free MiB are free; the template and the images' layers need 256 at the least" "free some, or put /var/cache/qemubox on another file system"
    elif [ "$free" -lt 2048 ]; then
        warn "/var/cache: only $free MiB are free for the template and the images' layers" "free some, or set runtime.cache_dir in $config"
    fi
}

# An installation before: another prefix, another kind, another mode, or files that are somebody else's.
check_other_installations() {
    if [ -n "$recorded_prefix" ] && [ "$recorded_prefix" != "$prefix" ]; then
        fail "qemubox is installed in $recorded_prefix already, and a host has one" "$0 --uninstall --prefix $recorded_prefix, or install with --prefix $recorded_prefix"
    elif [ -n "$recorded_prefix" ] && [ "$recorded_source" != $source ]; then
        fail "what is installed in $prefix is from a $recorded_source, and this is a $source" "$0 --uninstall"
    elif [ -n "$recorded_mode" ] && [ "$recorded_mode" != "$mode" ] && [ "$recorded_mode-$mode" != host-shim-only ]; then
        again=$0
        [ "$recorded_mode" != shim-only ] || again="$0 --shim-only"
        fail "$prefix is installed as $recorded_mode, and this would be $mode" "$again, for the same; or $0 --uninstall"
    elif [ $source = release ]; then
        for path in $(foreign_files); do fail "$path is there, and not qemubox's" "move it away, or another --prefix"; done
    fi
    for name in qemubox containerd-shim-qemubox-v1; do
        path=/usr/local/bin/$name
        [ "$prefix" != /usr/local ] && [ -e $path ] && [ ! -L $path ] || continue
        [ "$recorded_prefix" = /usr/local ] || fail "$path is there, and no link of qemubox's" "move it away"
    done
}

check_containerd() {
    [ "$mode" = shim-only ] || return 0
    command -v containerd >/dev/null || [ -S /run/containerd/containerd.sock ] ||
        fail "--shim-only: there is no containerd here" "$(by_package containerd containerd), or install without --shim-only"
}

check_systemd() {
    has_systemd || warn "systemd does not run here: nothing is started, now or at boot" "start what is named at the end by the means of this host"
}
