# shellcheck shell=sh
# What is installed on this host, and where: /etc/qemubox/installation. Part of install.sh.

record=/etc/qemubox/installation

# As variables; empty where nothing is known. Installations from before there was a record are known by their unit.
read_record() {
    recorded_prefix=$(recorded prefix)
    recorded_source=$(recorded source)
    recorded_mode=$(recorded mode)
    recorded_user=$(recorded user)
    recorded_modules=$(recorded modules)
    recorded_containerd_config=$(recorded containerd_config)
    if [ -z "$recorded_prefix" ]; then
        recorded_prefix=$(sed -n 's|^ExecStart=\(/.*\)/bin/qemubox service$|\1|p' /etc/systemd/system/qemubox.service 2>/dev/null || true)
        [ -z "$recorded_prefix" ] || recorded_source=checkout
    fi
}

recorded() { sed -n "s|^$1=||p" $record 2>/dev/null || true; }

write_record() {
    version=$(cat "$here/VERSION" 2>/dev/null || sed -n 's/^version = "\(.*\)"/\1/p' "$here/pyproject.toml")
    cat >"$work/installation" <<END
# What install.sh has installed, for it to know; see it there.
prefix=$prefix
source=$source
mode=$mode
version=$version
user=$user_made
containerd_config=$changed_containerd_config
END
    put "$work/installation" $record 644
}
