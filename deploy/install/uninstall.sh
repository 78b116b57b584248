# shellcheck shell=sh
# Removing what an installation has brought. Part of install.sh.
#
# As apt does: what can be had again goes, what is the user's stays until --purge.

remove() {
    if [ $dry = yes ]; then
        [ ! -e "$1" ] && [ ! -L "$1" ] || would "remove $1"
    else
        remove_tree "$1"
    fi
}

# Processes that have files of this installation in their memory, by pid: shims, their machines, the service, containerd.
users() { grep -lsE " ($lib/(venv|runtime)-|$prefix/bin/containerd)" /proc/[0-9]*/maps | cut -d / -f 3; }

# "namespace/container" of each that runs, from the command lines of their shims; of its own containerd those of every
# runtime, of the host's only those of this prefix. A shim maps its environment's compiled modules as long as it lives.
running_containers() {
    {
        users
        grep -lszxF /run/qemubox/containerd.sock /proc/[0-9]*/cmdline | cut -d / -f 3
    } | sort -u | while read -r pid; do
        words=$({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null) || continue
        case $words in
        *containerd-shim-*" -id "*) echo "$words" | sed -n 's|.* -namespace \([^ ]*\) .*-id \([^ ]*\) .*|\1/\2|p' ;;
        esac
    done | sort -u | tr '\n' ' '
}

# With the services stopped, so that nothing starts meanwhile; they go on where it is refused, or ended by a signal before
# it has removed anything (`finish`).
stop_and_refuse_if_used() {
    if units_are_ours && [ $dry = no ]; then
        for unit in $own_units qemubox.service; do
            ! systemctl --quiet is-active $unit || active="$unit $active"
            [ ! -f $unit_directory/$unit ] || systemctl stop $unit
        done
    fi
    containers=$(running_containers)
    processes=$(users | while read -r pid; do echo "$pid ($({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | tail -c 60))"; done)
    if [ -n "$containers" ]; then
        die "containers are running (namespace/container): ${containers% }: end them first (ctr -n NAMESPACE task kill -s SIGKILL CONTAINER)"
    elif [ -n "$processes" ] && [ $dry = no ]; then
        die "processes of this installation are running: $(echo "$processes" | tr '\n' ' '): end them first"
    fi
}

# What is mounted below a directory that is to be removed is somebody's.
refuse_mounts() {
    [ $dry = no ] || return 0
    for path in "$@"; do
        mounted=$(awk -v below="$path/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo |
            if [ $purge = yes ]; then cat; else grep -v ^/var/cache/qemubox/build/; fi | head -n 1)
        [ -z "$mounted" ] || die "$mounted is mounted: unmount it first"
    done
}

# Whether there is an installation in this prefix at all, in whole or in part.
is_installation() { [ -f "$share/files" ] || [ -L "$lib/venv" ] || [ -f "$share/stamp" ]; }

uninstall() {
    if [ -n "$recorded_prefix" ] && [ "$recorded_prefix" != "$prefix" ]; then
        case $recorded_prefix/ in
        "$lib"/* | "$share"/*) die "qemubox is not installed in $prefix, but in $recorded_prefix: --prefix $recorded_prefix" ;;
        esac
        is_installation || die "qemubox is not installed in $prefix, but in $recorded_prefix"
        say "the installation of this host's units is in $recorded_prefix, and stays; only the files in $prefix are removed"
        stop_and_refuse_if_used
        remove_links
        remove_files
        return
    fi
    is_installation || [ -f $record ] || die "qemubox is not installed in $prefix"
    stop_and_refuse_if_used
    # What containers have left that had no end of their own: addresses, network namespaces, images.
    [ $dry = yes ] || [ ! -x "$prefix/bin/qemubox" ] || "$prefix/bin/qemubox" gc || say "some of what containers have left stays (see above)"
    refuse_mounts /run/qemubox /var/cache/qemubox
    [ $purge = no ] || refuse_mounts /etc/qemubox /var/lib/qemubox
    removing=$([ $dry = yes ] && echo no || echo yes)
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
    if users | grep -q .; then die "a container has been started meanwhile; end it, and run this again"; fi
    remove_user
    directories=$work/directories
    cat "$share/directories" >"$directories" 2>/dev/null || true
    remove_files
    remove $record
    if [ $purge = yes ]; then
        for path in /etc/qemubox /var/lib/qemubox /var/cache/qemubox; do remove $path; done
    fi
    # Those that are empty now, and that an installation has made.
    sort -r "$directories" | while read -r path; do
        if [ $dry = yes ]; then would "remove $path if nothing is left in it"; else rmdir "$path" 2>/dev/null || true; fi
    done
    [ $dry = no ] || return 0
    removing=no
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
    # Of its own network there are no leases that count; of the place for writable layers nothing where all came back.
    remove /var/lib/cni/networks/qemubox
    if [ $dry = no ]; then
        rmdir /var/lib/cni/networks /var/lib/cni/results /var/lib/cni /var/lib/qemubox/writable 2>/dev/null || true
    fi
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
