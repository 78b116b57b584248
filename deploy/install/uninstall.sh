# shellcheck shell=sh
# Removing what an installation has brought. Part of install.sh.
#
# As apt does: what can be had again goes, what is the user's stays until --purge.

remove() {
    if [ $dry = yes ]; then
        [ ! -e "$1" ] && [ ! -L "$1" ] || would "remove $1"
    else
        rm -rf "$1"
    fi
}

# "namespace/container" of each that runs, from the command lines of their shims. A shim maps its environment's compiled
# modules as long as it lives; those of another prefix are not meant.
running_containers() {
    grep -lsE " $lib/(venv|runtime)-" /proc/[0-9]*/maps | while read -r maps; do
        words=$({ tr '\0' ' ' <"${maps%maps}cmdline"; } 2>/dev/null) || continue
        case $words in
        *containerd-shim-qemubox-v1*" -id "*) echo "$words" | sed -n 's|.* -namespace \([^ ]*\) .*-id \([^ ]*\) .*|\1/\2|p' ;;
        esac
    done | sort -u | tr '\n' ' '
}

refuse_if_used() {
    containers=$(running_containers)
    if [ -n "$containers" ]; then
        die "containers are running (namespace/container): ${containers% }: end them first (ctr -n NAMESPACE task kill -s SIGKILL CONTAINER)"
    fi
    if units_are_ours && [ $dry = no ]; then systemctl stop qemubox.service; fi
    users=$(grep -lsE " $lib/(venv|runtime)-" /proc/[0-9]*/maps | cut -d / -f 3 | tr '\n' ' ')
    if [ -n "$users" ] && [ $dry = no ]; then
        if units_are_ours; then systemctl start qemubox.service; fi
        die "processes of this installation are running: ${users}(pids): end them first"
    fi
}

uninstall() {
    if [ ! -e "$lib" ] && [ ! -e "$prefix/bin/qemubox" ] && [ ! -f $record ]; then
        die "qemubox is not installed in $prefix${recorded_prefix:+; it is in $recorded_prefix}"
    fi
    if [ -n "$recorded_prefix" ] && [ "$recorded_prefix" != "$prefix" ]; then
        say "the installation of this host's units is in $recorded_prefix, and stays; only the files in $prefix are removed"
        remove_files
        return
    fi
    refuse_if_used
    remove_units
    restore_containerd
    export QEMUBOX_TOOLS="$tools"
    if [ $dry = yes ]; then remove $networks/qemubox.conflist; else sh "$here/deploy/network.sh" uninstall $networks "$share/network.sha256"; fi
    remove_configuration config $config
    remove_configuration containerd /etc/qemubox/containerd.toml
    remove_links
    remove $tmpfiles
    remove $modules_file
    remove_state
    remove_user
    directories=$work/directories
    cat "$share/directories" >"$directories" 2>/dev/null || true
    remove_files
    remove $record
    if [ $purge = yes ]; then
        for path in /etc/qemubox /var/lib/qemubox /var/cache/qemubox /var/lib/cni/networks/qemubox; do remove $path; done
    fi
    # Those that are empty now, and that an installation has made.
    sort -r "$directories" | while read -r path; do
        if [ $dry = yes ]; then would "remove $path if nothing is left in it"; else rmdir "$path" 2>/dev/null || true; fi
    done
    [ $dry = no ] || return 0
    say "removed from $prefix"
    for path in /etc/qemubox /var/lib/qemubox /var/cache/qemubox; do
        [ ! -d $path ] || say "$path stays (--uninstall --purge would have removed it)"
    done
}

remove_configuration() {
    [ -f "$2" ] || return 0
    if is_ours "$1" "$2"; then remove "$2"; elif [ $purge = no ]; then say "$2 was changed and stays"; fi
}

# What can be made again, and what a boot of the host would remove: caches, /run, the bridge that no container has.
remove_state() {
    for path in /var/cache/qemubox/*; do
        case $path in
        */build | */'*') ;; # what a checkout has built takes minutes to have again
        *) remove "$path" ;;
        esac
    done
    remove /run/qemubox
    if [ -d /sys/class/net/qemubox0 ]; then
        if [ $dry = yes ]; then would "remove the bridge qemubox0"; else ip link delete qemubox0 || say "the bridge qemubox0 stays (see above)"; fi
    fi
}

remove_files() {
    if [ -f "$share/files" ]; then
        while read -r file; do remove "$prefix/$file"; done <"$share/files"
    fi
    for path in "$shim" "$prefix/bin/qemubox" "$lib" "$share"; do remove "$path"; done
}
