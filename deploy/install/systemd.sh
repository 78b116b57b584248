# shellcheck shell=sh
# Units, the directories of /run, and modules: now, and at each boot. Part of install.sh.

# The process that shims are forked from, and at each boot the template, and the removal of what a power loss has left.
units="qemubox.service qemubox-template.service qemubox-gc.service"
# With a containerd of its own.
own_units="qemubox-containerd.service"
unit_directory=/etc/systemd/system
tmpfiles=/etc/tmpfiles.d/qemubox.conf
modules_file=/etc/modules-load.d/qemubox.conf

has_systemd() { [ -d /run/systemd/system ]; }

# Whether the units that are installed are those of this prefix, and not another's.
units_are_ours() { has_systemd && grep -qs "^ExecStart=$prefix/bin/qemubox " $unit_directory/qemubox.service; }

# First of all in the journal, so last of all undone: then what ran before runs with the old files again.
note_running_units() {
    has_systemd || return 0
    for unit in $units $own_units; do
        [ $unit != qemubox-template.service ] && [ $unit != qemubox-gc.service ] || continue
        if systemctl --quiet is-active $unit; then note restarted $unit; fi
    done
    note units
}

install_units() {
    put "$here/deploy/systemd/tmpfiles.conf" $tmpfiles 644
    if ! has_systemd; then
        without_systemd
        return
    fi
    wanted=$units
    [ "$mode" != full ] || wanted="$units $own_units"
    changed=
    for unit in $wanted; do
        sed "s|@PREFIX@|$prefix|g" "$here/deploy/systemd/$unit" >"$work/$unit"
        same "$work/$unit" "$unit_directory/$unit" || changed="$changed $unit "
        put "$work/$unit" "$unit_directory/$unit" 644
    done
    if [ $dry = yes ]; then would "enable and start: $wanted"; return; fi
    systemctl daemon-reload
    new=
    for unit in $wanted; do
        if ! systemctl --quiet is-enabled $unit >/dev/null 2>&1; then
            note enabled $unit
            new="$new $unit"
        fi
    done
    # In one call, after each of which systemd reads all units anew.
    # shellcheck disable=SC2086 # a list
    [ -z "$new" ] || systemctl --quiet enable $new
    start_service
    [ "$mode" != full ] || start_own_containerd
}

# A service that runs looks for new code itself, and nobody finds it missing meanwhile; a new unit wants a restart.
start_service() {
    verb=reload-or-restart
    case $changed in
    *" qemubox.service "*) verb=restart ;;
    esac
    systemctl --quiet is-active qemubox.service || note started qemubox.service
    systemctl $verb qemubox.service || say "the service does not run: containers start slower; see journalctl -u qemubox"
}

# Its containers do not end with it (KillMode=process). It is restarted for a new program, unit or configuration.
start_own_containerd() {
    if systemctl --quiet is-active qemubox-containerd.service; then
        for path in $unit_directory/qemubox-containerd.service "$prefix/bin/containerd" /etc/qemubox/containerd.toml; do
            [ ! -e "$path.qemubox-old" ] || changed="$changed containerd "
        done
        [ -n "$changed" ] || return 0
    else
        note started qemubox-containerd.service
    fi
    systemctl restart qemubox-containerd.service || {
        journalctl --no-pager -n 20 -u qemubox-containerd.service >&2 || true
        die "qemubox-containerd.service does not start (see above)"
    }
}

without_systemd() {
    say "no systemd here: start at each boot, as root, what follows"
    echo "    $prefix/bin/qemubox service &       # without it containers start slower"
    if [ "$mode" = full ]; then
        echo "    PATH=$prefix/bin:\$PATH:$tools $prefix/bin/containerd --config /etc/qemubox/containerd.toml &"
    fi
    echo "    $prefix/bin/qemubox template build --if-used; $prefix/bin/qemubox gc"
}

remove_units() {
    units_are_ours || return 0
    there=
    for unit in $own_units $units; do
        [ ! -f "$unit_directory/$unit" ] || there="$there $unit"
    done
    [ -n "$there" ] || return 0
    if [ $dry = no ]; then
        # shellcheck disable=SC2086 # a list; in one call each, as above
        systemctl --quiet disable $there
        # shellcheck disable=SC2086
        systemctl stop $there # those that run once, too
    fi
    for unit in $there; do remove "$unit_directory/$unit"; done
    if [ $dry = no ]; then systemctl daemon-reload; fi
}

# Modules that machines and their networks want, as far as this kernel has them as modules: one that is missing would
# leave the host's systemd-modules-load.service failed.
wanted_modules="tun vhost_net vhost_vsock overlay loop bridge veth sch_ingress cls_u32 act_mirred"

# KVM's own, which udev loads too, but at some moment of the boot: a machine that is started before runs without KVM.
kvm_module() {
    if grep -qw svm /proc/cpuinfo; then echo kvm_amd; fi
    if grep -qw vmx /proc/cpuinfo; then echo kvm_intel; fi
}

install_modules() {
    command -v modprobe >/dev/null || return 0
    {
        echo "# What qemubox's machines and their networks want of the kernel; install.sh has left out what it has not."
        for module in $(kvm_module) $wanted_modules; do
            if modprobe -n -v "$module" 2>/dev/null | grep -q '^insmod'; then echo "$module"
            elif [ -f "/lib/modules/$(uname -r)/modules.dep" ] && grep -q "/$module\.ko" "/lib/modules/$(uname -r)/modules.dep"; then echo "$module"
            fi
        done
    } >"$work/modules"
    [ "$(wc -l <"$work/modules")" -gt 1 ] || return 0
    put "$work/modules" $modules_file 644
    sed 1d "$work/modules" | while read -r module; do
        [ ! -d "/sys/module/$module" ] || continue
        if [ $dry = yes ]; then would "load the module $module"; continue; fi
        note module "$module"
        modprobe "$module" || say "the module $module cannot be loaded (see above)"
    done
}
