# shellcheck shell=sh
# The unprivileged user that QEMU and its helpers run as. Part of install.sh.
# It is in no group but its own: shims give QEMU /dev/kvm's group where the device wants one (shim/vm/accel.py).

make_user() {
    user_made=${recorded_user:-no}
    if id qemubox >/dev/null 2>&1; then return 0; fi
    if [ $dry = yes ]; then would "make the system user qemubox"; return 0; fi
    note user qemubox
    user_made=yes
    shell=/usr/sbin/nologin
    [ -x $shell ] || shell=/sbin/nologin
    [ -x $shell ] || shell=/bin/false
    if command -v useradd >/dev/null; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell $shell qemubox
    else # busybox
        addgroup -S qemubox
        adduser -S -D -H -h /nonexistent -s $shell -G qemubox qemubox
    fi || die "cannot make the system user qemubox (see above)"
}

remove_user() {
    [ "$recorded_user" = yes ] || return 0
    id qemubox >/dev/null 2>&1 || return 0
    if [ $dry = yes ]; then would "remove the system user qemubox"; return 0; fi
    if command -v userdel >/dev/null; then userdel qemubox; else deluser qemubox; fi ||
        say "the system user qemubox stays (see above)"
}
