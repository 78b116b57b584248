# shellcheck shell=sh
# The containerd that is used: one of its own, or the host's, whose CRI is told of the runtime. Part of install.sh.

changed_containerd_config=
containerd_target=

# What is to become of the configuration of the host's containerd; told before anything is changed. The program writes
# the new content into $work, and prints the path of the file that it is for, or nothing where nothing is to be done.
plan_containerd() {
    changed_containerd_config=$recorded_containerd_config
    [ "$mode" = shim-only ] || return 0
    [ -n "$containerd_config" ] || containerd_config=$(service_configuration)
    containerd_target=$("$python" -I "$here/deploy/containerd_config.py" add "$containerd_config" --output "$work/containerd-config") ||
        die "the configuration of containerd was not changed, and neither was anything else"
}

# What containerd.service starts it with. Other processes of the name may be docker's own, k3s's or a test's.
service_configuration() {
    named=
    if has_systemd; then
        named=$(systemctl show --property=ExecStart --value containerd.service 2>/dev/null |
            sed -n 's/.* argv\[\]=[^;]* \(--config\|-c\)[ =]\(\/[^ ;]*\).*/\2/p' | head -n 1)
    fi
    echo "${named:-/etc/containerd/config.toml}"
}

put_containerd() {
    if [ "$mode" = full ]; then
        put_unless_changed containerd "$here/deploy/containerd/containerd.toml" /etc/qemubox/containerd.toml
        return
    fi
    [ -n "$containerd_target" ] || return 0
    changed_containerd_config=$containerd_target
    if [ ! -e "$containerd_target" ]; then
        put "$work/containerd-config" "$containerd_target" 644
    else
        if [ ! -e "$containerd_target.before-qemubox" ] && [ $dry = no ]; then
            note made "$containerd_target.before-qemubox"
            cp -a "$containerd_target" "$containerd_target.before-qemubox" || die "cannot write $containerd_target.before-qemubox (see above)"
        fi
        put_over "$work/containerd-config" "$containerd_target"
    fi
    [ $dry = no ] || return 0
    if [ $restart_containerd = no ]; then
        say "Kubernetes knows the runtime once containerd has been restarted, which leaves containers alone: systemctl restart containerd"
    elif [ -d /run/systemd/system ]; then
        note restarted containerd.service
        systemctl restart containerd.service || die "containerd does not start with its new configuration: journalctl -u containerd"
    else
        say "no systemd here: restart containerd by hand"
    fi
}

# Out of the file that it was put into, which is then, if nobody else has changed it, as it was before, byte by byte.
restore_containerd() {
    file=$recorded_containerd_config
    if [ -z "$file" ] || [ ! -f "$file" ]; then return 0; fi
    "$python" -I "$here/deploy/containerd_config.py" remove "$file" --output "$work/containerd-config" >"$work/target" ||
        { say "$file still names the runtime qemubox: take that out by hand"; return 0; }
    [ -s "$work/target" ] || return 0
    if [ -s "$work/containerd-config" ] || [ -e "$file.before-qemubox" ]; then
        if [ $dry = yes ]; then would "change $file"; return 0; fi
        cp -a "$file" "$file.qemubox-new"
        cat "$work/containerd-config" >"$file.qemubox-new"
        mv -f -T "$file.qemubox-new" "$file"
        if same "$file" "$file.before-qemubox"; then rm -f "$file.before-qemubox"; fi
        [ ! -e "$file.before-qemubox" ] || say "$file was changed by others, too; as it was before qemubox: $file.before-qemubox"
    else
        remove "$file"
        [ $dry = yes ] || rmdir "$(dirname "$file")" 2>/dev/null || true
    fi
    say "the runtime is out of $file; containerd forgets it when it is restarted: systemctl restart containerd"
}
