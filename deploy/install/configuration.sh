# shellcheck shell=sh
# The configuration, the containers' network, and the links by which programs are found. Part of install.sh.

# The host's program where it has one that will do, else the release's: "program NAME LEAST", least version or empty.
program() {
    found=$(command -v "$1" || true)
    if [ "$mode" = full ] || [ -z "$found" ] || ! is_at_least "$2" "$found"; then found=$tools/$1; fi
    echo "$found"
}

# is_at_least VERSION PROGRAM: what `PROGRAM --version` says, by its first two numbers.
is_at_least() {
    [ -n "$1" ] || return 0
    # mkfs.ext4 and mkfs.erofs of some versions know it as -V.
    is=$({ "$2" --version || "$2" -V; } 2>&1 </dev/null | sed -n 's/^[^0-9]*\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1)
    [ -n "$is" ] && [ "$(printf '%s\n%s\n' "$1" "$is" | sort -t . -k 1,1n -k 2,2n | head -n 1)" = "$1" ]
}

# deploy/config.toml with this installation's paths.
configure() {
    sed -e "s|^# kernel = .*|kernel = \"$share/vmlinux\"|" -e "s|^# image = .*|image = \"$share/guest.erofs\"|" \
        -e "s|^# daemon = \"vhost-device-vsock\"|daemon = \"$daemon\"|" "$here/deploy/config.toml" >"$work/config.plain"
    if [ $source = release ]; then
        plugin_dirs="\"$lib/cni\""
        [ "$mode" = full ] || plugin_dirs="\"/opt/cni/bin\", \"/usr/lib/cni\", $plugin_dirs"
        sed -e "s|^# qemu = .*|qemu = \"$(program qemu-system-x86_64 7.2)\"|" \
            -e "s|^# mkfs_erofs = .*|mkfs_erofs = \"$(program mkfs.erofs 1.5)\"|" \
            -e "s|^# mkfs_ext4 = .*|mkfs_ext4 = \"$(program mkfs.ext4 1.43)\"|" \
            -e "s|^# daemon = \"auto\"|daemon = \"$(virtiofsd)\"|" \
            -e "s|^# plugin_dirs = .*|plugin_dirs = [$plugin_dirs]|" "$work/config.plain" >"$work/config.toml"
    else
        cp "$work/config.plain" "$work/config.toml"
    fi
    put_unless_changed config "$work/config.toml" $config
}

# Where distributions have it, it is found without being named.
virtiofsd() {
    if [ "$mode" != full ]; then
        for path in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd /usr/lib/virtiofsd "$(command -v virtiofsd || true)"; do
            [ ! -x "$path" ] || { echo "$path"; return; }
        done
    fi
    echo "$tools/virtiofsd"
}

# deploy/network.sh writes two files; their old content is kept beside.
install_network() {
    export QEMUBOX_TOOLS="$tools" QEMUBOX_CNI="$lib/cni"
    if [ $dry = yes ]; then
        [ -f "$networks/qemubox.conflist" ] || would "write $networks/qemubox.conflist"
        sh "$here/deploy/network.sh" check "$networks" "$share/network.sha256"
        return
    fi
    make_directory "$networks"
    make_directory "$share"
    keep "$networks/qemubox.conflist"
    keep "$share/network.sha256"
    sh "$here/deploy/network.sh" install "$networks" "$share/network.sha256"
}

# containerd's units have /usr/local/bin in their PATH, and so have people; man and shells look below /usr/local/share.
install_links() {
    case $prefix in
    /usr/local | /usr) return 0 ;;
    esac
    if [ $source = release ] || [ "$mode" = shim-only ]; then link "$prefix/bin/qemubox" /usr/local/bin/qemubox; fi
    if [ "$mode" = shim-only ]; then link "$shim" "/usr/local/bin/${shim##*/}"; fi
    [ $source = release ] || return 0
    while read -r file; do
        case $file in
        share/man/* | share/bash-completion/* | share/zsh/* | share/fish/*) link "$prefix/$file" "/usr/local/$file" ;;
        esac
    done <"$work/files"
}

# Links of this prefix, and no other's.
remove_links() {
    {
        echo bin/qemubox
        echo "bin/${shim##*/}"
        cat "$share/files" 2>/dev/null || true
    } | while read -r file; do
        [ "$(readlink "/usr/local/$file" || true)" != "$prefix/$file" ] || remove "/usr/local/$file"
    done
}

# What containers keep on the host; the shims would make them, too.
make_state() {
    for path in /run/qemubox /var/lib/qemubox /var/cache/qemubox; do
        [ ! -d $path ] || continue
        if [ $dry = yes ]; then would "make $path"; continue; fi
        # Not `made`: what containers have put in there is not for undoing.
        note directory $path
        mkdir -m 711 $path
    done
}

# SELinux: files have the labels of their paths' rules, which the check has asked for.
relabel() {
    [ "$(cat /sys/fs/selinux/enforce 2>/dev/null || true)" = 1 ] || return 0
    if [ $dry = yes ]; then would "give $prefix the labels of SELinux's rules"; return 0; fi
    restorecon -RF "$prefix/bin" "$lib" "$share" || say "restorecon failed (see above): SELinux may keep containers from starting"
}
