#!/bin/sh
# Installs qemubox from this checkout; see usage below. Everything is put in place by renaming, so that containers
# that run, and containers that start meanwhile, find either the old or the new, never half of one.
set -eu
umask 022

usage() {
    cat <<END
usage: ./install.sh [--prefix DIR] [--otel] [--demo]
       ./install.sh [--prefix DIR] --uninstall
       ./install.sh --help

Installs the containerd runtime io.containerd.qemubox.v1: what is missing on this host (by apt), the guest's kernel
and image (built here the first time, some minutes), and the shim. Run it again after a change: it does only what is
not done yet. Containers that run are not disturbed.

  --prefix DIR   where to install (default /usr/local): DIR/bin, DIR/lib/qemubox, DIR/share/qemubox
  --otel         with what sends spans to an OpenTelemetry collector (docs/observability.md); without it next time, not
  --demo         then run a container in a virtual machine, and show where its start time went
  --uninstall    remove what an installation brought; packages, caches and a changed configuration stay
  --help         this text

The configuration is /etc/qemubox/config.toml, and the containers' network /etc/qemubox/net.d/qemubox.conflist; neither
is overwritten once it was changed.
END
}

say() { echo "==> $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
prefix=/usr/local
action=install
demo=no
lock=requirements.lock
while [ $# -gt 0 ]; do
    case $1 in
    --prefix) [ $# -gt 1 ] || die "--prefix wants a directory"; prefix=$2; shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --otel) lock=requirements-otel.lock ;;
    --demo) demo=yes ;;
    --uninstall) action=uninstall ;;
    --help | -h) usage; exit 0 ;;
    *) die "unknown option: $1 (see ./install.sh --help)" ;;
    esac
    shift
done
case $prefix in
/*) prefix=${prefix%/} ;;
*) die "--prefix $prefix: must be an absolute path" ;;
esac

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C.UTF-8
export PATH LC_ALL
lib=$prefix/lib/qemubox
share=$prefix/share/qemubox
shim=$prefix/bin/containerd-shim-qemubox-v1
config=/etc/qemubox/config.toml
networks=/etc/qemubox/net.d
daemon=$lib/vhost-device-vsock

# A file into place, whole or not at all; nothing happens if it is there already.
put() {
    if ! cmp -s "$1" "$2"; then
        mkdir -p "$(dirname "$2")"
        install -m "$3" "$1" "$2.new.$$"
        mv -T "$2.new.$$" "$2"
    fi
}

# Everything that the installation is made from, as one hash.
inputs() {
    {
        echo "$prefix $lock"
        /usr/bin/python3 -ISc 'import sys; print(sys.version)'
        dpkg-query -W -f '${Version}\n' linux-source-6.12
        cd "$here"
        find api archive cni netlink shim ttrpc vminitd kernel initrd deploy install.sh pyproject.toml requirements.lock \
            requirements-otel.lock requirements-build.lock -name __pycache__ -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d ' ' -f 1
}

# The shim's Python environment, under a name of its own; `venv` is a link to the one in force.
install_python() {
    key=$({
        /usr/bin/python3 -ISc 'import sys; print(sys.version)'
        cd "$here"
        find api archive cni netlink shim ttrpc vminitd pyproject.toml "$lock" requirements-build.lock -name __pycache__ -prune -o \
            -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c 1-16)
    venv=$lib/venv-$key
    if [ ! -f "$venv/complete" ]; then
        say "Python environment"
        rm -rf "$venv"
        mkdir -p "$lib"
        /usr/bin/python3 -I -m venv "$venv"
        # The checkout is copied, for a build writes beside what it builds.
        mkdir "$work/source" "$work/wheel"
        (cd "$here" && cp -r api archive cni netlink shim ttrpc vminitd pyproject.toml README.md LICENSE "$work/source")
        pip install --require-hashes -r "$here/$lock"
        pip install --require-hashes --target "$work/backend" -r "$here/requirements-build.lock"
        PYTHONPATH=$work/backend pip wheel --no-build-isolation --no-deps --no-index -w "$work/wheel" "$work/source"
        pip install --no-deps --no-index "$work"/wheel/qemubox-*.whl
        : >"$venv/complete"
    fi
    if [ "$(readlink "$lib/venv" || true)" != "venv-$key" ]; then
        ln -s "venv-$key" "$lib/venv.new.$$"
        mv -T "$lib/venv.new.$$" "$lib/venv"
    fi
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" >"$work/pip.log" 2>&1 ||
        { tail -n 20 "$work/pip.log" >&2; die "failed: pip $*"; }
}

# The units, where systemd runs: the process that shims are forked from, and at each boot the template, and the removal
# of what a power loss has left.
units="qemubox.service qemubox-template.service qemubox-gc.service"
install_units() {
    if [ ! -d /run/systemd/system ]; then
        say "no systemd here: start \`$prefix/bin/qemubox service\` at boot, as root; without it containers start slower"
        say "and run \`$prefix/bin/qemubox gc\` after a power loss"
        return
    fi
    # A service that runs looks for new code itself, and nobody finds it missing meanwhile; a new unit wants a restart.
    verb=reload-or-restart
    for unit in $units; do
        sed "s|@PREFIX@|$prefix|" "$here/deploy/systemd/$unit" >"$work/$unit"
        cmp -s "$work/$unit" "/etc/systemd/system/$unit" || verb=restart
        put "$work/$unit" "/etc/systemd/system/$unit" 644
    done
    systemctl daemon-reload
    # shellcheck disable=SC2086 # a list
    systemctl --quiet enable $units
    systemctl start --no-block qemubox-template.service
    systemctl $verb qemubox.service ||
        say "the service does not run: containers start slower; see journalctl -u qemubox"
}

# Whether the units that are installed are those of this prefix, and not another's.
units_are_ours() {
    [ -d /run/systemd/system ] && grep -qs "^ExecStart=$prefix/bin/qemubox " /etc/systemd/system/qemubox.service
}

remove_units() {
    units_are_ours || return 0
    for unit in $units; do
        [ ! -f "/etc/systemd/system/$unit" ] || systemctl --quiet disable "$unit"
        rm -f "/etc/systemd/system/$unit"
    done
    systemctl daemon-reload
}

# Environments that are no longer in force, less those that a running shim has mapped.
remove_old_environments() {
    for old in "$lib"/venv-*; do
        [ "$old" = "$venv" ] || grep -qs "$old/" /proc/[0-9]*/maps || rm -rf "$old"
    done
}

# deploy/config.toml with this prefix's paths.
configure() {
    sed -e "s|^# kernel = .*|kernel = \"$share/vmlinux\"|" -e "s|^# image = .*|image = \"$share/guest.erofs\"|" \
        -e "s|^# daemon = \"vhost-device-vsock\"|daemon = \"$daemon\"|" "$here/deploy/config.toml" >"$work/config.toml"
    if [ ! -f $config ] || is_unchanged; then
        put "$work/config.toml" $config 644
        sha256sum <$config >"$work/config.sha256"
        put "$work/config.sha256" "$share/config.sha256" 644
    elif ! cmp -s "$work/config.toml" $config; then
        say "$config was changed and stays as it is; the default is $share/config.toml"
    fi
    put "$work/config.toml" "$share/config.toml" 644
}

# Whether the configuration is the one that we wrote.
is_unchanged() {
    [ -f "$share/config.sha256" ] && [ "$(sha256sum <$config)" = "$(cat "$share/config.sha256")" ]
}

# What a build script prints: the path of what it built, or had built before.
built() {
    script=$1
    path=$(PATH=$venv/bin:$PATH sh "$here/$script" 2>"$work/build.log") || { tail -n 25 "$work/build.log" >&2; die "failed: $script"; }
    echo "$path"
}

install_all() {
    sh "$here/deploy/host.sh" "$@"
    stamp=$(inputs)
    if [ -f "$share/stamp" ] && [ "$(cat "$share/stamp")" = "$stamp" ] && [ -f "$config" ] && [ -x "$shim" ]; then
        say "qemubox is installed in $prefix"
        return
    fi
    install_python
    say "guest kernel (built here the first time: about five minutes on two cores)"
    kernel=$(built kernel/build.sh)
    say "guest image"
    image=$(built initrd/build.sh)
    vsock=$(built deploy/vhost-device-vsock.sh)
    put "$kernel" "$share/vmlinux" 644
    put "$image" "$share/guest.erofs" 644
    put "$vsock" "$daemon" 755
    configure
    sh "$here/deploy/network.sh" install "$networks" "$share/network.sha256"
    put "$here/deploy/launcher" "$shim" 755
    put "$here/deploy/qemubox" "$prefix/bin/qemubox" 755
    say "template: containers start as clones of it"
    "$prefix/bin/qemubox" template build || say "there is no template: containers boot, which takes longer"
    install_units
    remove_old_environments
    echo "$stamp" >"$work/stamp"
    put "$work/stamp" "$share/stamp" 644
    say "qemubox is installed in $prefix: ctr run --runtime io.containerd.qemubox.v1 ..."
}

uninstall() {
    [ "$(id -u)" -eq 0 ] || die "must be run as root"
    if units_are_ours; then systemctl stop qemubox.service; fi
    # A shim maps its environment's compiled modules as long as it lives.
    if grep -qs "$lib/venv-" /proc/[0-9]*/maps; then
        if units_are_ours; then systemctl start qemubox.service; fi
        die "containers, or a service by hand, of this installation are running: $(grep -ls "$lib/venv-" /proc/[0-9]*/maps | cut -d / -f 3 | tr '\n' ' ')(pids)"
    fi
    remove_units
    sh "$here/deploy/network.sh" uninstall "$networks" "$share/network.sha256"
    if [ -f $config ] && is_unchanged; then
        rm -f $config
        rmdir --ignore-fail-on-non-empty /etc/qemubox
    elif [ -f $config ]; then
        say "$config was changed and stays"
    fi
    rm -rf "$shim" "$prefix/bin/qemubox" "$lib" "$share"
    say "removed from $prefix; /var/cache/qemubox, /var/lib/qemubox and the user qemubox stay"
}

if [ $action = uninstall ]; then
    uninstall
    exit 0
fi
[ "$(id -u)" -eq 0 ] || die "must be run as root"
exec 9>/run/qemubox-install.lock
flock 9 # one installation at a time
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
if [ $demo = no ]; then
    install_all run build
else
    install_all run build demo
    exec 9>&-
    sh "$here/deploy/demo.sh" "$prefix"
fi
