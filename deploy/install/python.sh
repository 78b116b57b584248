# shellcheck shell=sh
# From a checkout: what is missing by apt, the Python environment, the kernel and the image, built. Part of install.sh.

# Everything that the installation is made from, as one hash.
inputs() {
    {
        echo "$prefix $lock $mode"
        /usr/bin/python3 -ISc 'import sys; print(sys.version)'
        dpkg-query -W -f '${Version}\n' linux-source-6.12
        cd "$here"
        find api archive cni netlink shim ttrpc vminitd kernel initrd deploy install.sh pyproject.toml requirements.lock \
            requirements-otel.lock requirements-build.lock -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d ' ' -f 1
}

# The shim's Python environment, under a name of its own; `venv` is a link to the one in force.
make_environment() {
    key=$({
        /usr/bin/python3 -ISc 'import sys; print(sys.version)'
        cd "$here"
        find api archive cni netlink shim ttrpc vminitd pyproject.toml "$lock" requirements-build.lock -name __pycache__ -prune -o \
            -type f -print0 | sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c 1-16)
    venv=$lib/venv-$key
    [ ! -f "$venv/complete" ] || return 0
    say "Python environment"
    rm -rf "$venv"
    make_directory "$lib"
    note made "$venv"
    /usr/bin/python3 -I -m venv "$venv"
    pip install --require-hashes -r "$here/$lock"
    wheel=$(built deploy/wheel.sh)
    pip install --no-deps --no-index "$wheel"
    : >"$venv/complete"
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" >"$work/pip.log" 2>&1 ||
        { tail -n 20 "$work/pip.log" >&2; die "failed: pip $*"; }
}

# What a build script prints: the path of what it built, or had built before.
built() {
    script=$1
    path=$(PATH=$venv/bin:$PATH sh "$here/$script" 2>"$work/build.log") || { tail -n 25 "$work/build.log" >&2; die "failed: $script"; }
    echo "$path"
}

install_checkout() {
    run_checks
    if [ $dry = yes ]; then
        would "install by apt what is missing (deploy/host.sh), build the guest's kernel and image where the cache has none"
        would "install in $prefix: bin/qemubox, bin/containerd-shim-qemubox-v1, lib/qemubox, share/qemubox"
        make_user
        plan_containerd
        configure
        install_network
        make_state
        install_links
        put_containerd
        write_record
        install_modules
        install_units
        return
    fi
    purposes="run build"
    [ $demo = no ] || purposes="$purposes demo"
    # shellcheck disable=SC2086 # a list
    sh "$here/deploy/host.sh" $purposes
    stamp=$(inputs)
    if [ -f "$share/stamp" ] && [ "$(cat "$share/stamp")" = "$stamp" ] && [ -f "$config" ] && [ -x "$shim" ] && [ -f $record ]; then
        say "qemubox is installed in $prefix"
        return
    fi
    plan_containerd
    begin
    note_running_units
    make_user
    make_environment
    say "guest kernel (built here the first time: about five minutes on two cores)"
    kernel=$(built kernel/build.sh)
    say "guest image"
    image=$(built initrd/build.sh)
    vsock=$(built deploy/vhost-device-vsock.sh)
    put "$kernel" "$share/vmlinux" 644
    put "$image" "$share/guest.erofs" 644
    put "$vsock" "$daemon" 755
    configure
    install_network
    make_state
    remember_versions
    link "venv-$key" "$lib/venv"
    put "$here/deploy/launcher" "$shim" 755
    put "$here/deploy/qemubox" "$prefix/bin/qemubox" 755
    install_links
    put_containerd
    echo "$stamp" >"$work/stamp"
    put "$work/stamp" "$share/stamp" 644
    write_record
    install_modules
    install_units
    commit
    say "qemubox is installed in $prefix: ctr run --runtime io.containerd.qemubox.v1 ..."
}
