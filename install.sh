#!/bin/sh
# Installs qemubox: from a checkout, where it is built, or from the release's archive, where everything is in `tree`.
# See usage below, and docs/install.md. Its parts, one idea each, are in deploy/install.
#
# What is put in place is put there whole, by renaming, so that containers that run, and containers that start meanwhile,
# find either the old or the new. All of it is written into a journal first: a run that fails, or is ended in the middle,
# is undone (deploy/install/journal.sh).
set -eu
umask 022

usage() {
    cat <<END
usage: ./install.sh [--prefix DIR] [--shim-only] [--demo] [--dry-run] [--skip-checks]
       ./install.sh --uninstall [--purge] [--prefix DIR] [--dry-run]
       ./install.sh --help

Installs the containerd runtime io.containerd.qemubox.v1. Run it again after a change, or from a newer release: it does
only what is not done yet. Containers that run are not disturbed.

From a release: with a containerd, QEMU, Python and everything else of its own; nothing is built, no network is used.
The containerd is the service qemubox-containerd, at /run/qemubox/containerd.sock, apart from any other of the host.
From a checkout: with the host's containerd, QEMU and Python. Installs what is missing by apt, and builds the guest's
kernel and image the first time, some minutes.

  --shim-only      use the containerd that is there, and make the runtime known to its CRI (Kubernetes)
  --prefix DIR     where to install: DIR/bin, DIR/lib/qemubox, DIR/share/qemubox
                   (default: /usr/share/qemubox from a release, /usr/local from a checkout)
  --demo           then run a container in a virtual machine, and show where its start time went
  --dry-run        check, and print what would be changed; change nothing
  --skip-checks    install also where a check fails
  --containerd-config FILE   with --shim-only: the configuration of that containerd
                   (default: what containerd.service is started with, or /etc/containerd/config.toml)
  --restart-containerd       with --shim-only: restart it where its configuration was changed; containers go on
  --otel           from a checkout: with what sends spans to an OpenTelemetry collector (docs/observability.md); a
                   release has it
  --uninstall      remove what an installation brought, caches of layers and templates too. Stays: a configuration that
                   was changed, /var/lib/qemubox (images and writable layers), what was built, packages
  --purge          with --uninstall: these too, but for packages
  --help           this text

The configuration is /etc/qemubox/config.toml, and the containers' network /etc/qemubox/net.d/qemubox.conflist; neither
is overwritten once it was changed.
END
}

say() { echo "==> $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
prefix=
action=install
demo=no
mode=
dry=no
skip_checks=no
purge=no
lock=requirements.lock
containerd_config=
restart_containerd=no
while [ $# -gt 0 ]; do
    case $1 in
    --prefix) [ $# -gt 1 ] || die "--prefix wants a directory"; prefix=$2; shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --containerd-config) [ $# -gt 1 ] || die "--containerd-config wants a file"; containerd_config=$2; shift ;;
    --containerd-config=*) containerd_config=${1#*=} ;;
    --restart-containerd) restart_containerd=yes ;;
    --otel) lock=requirements-otel.lock ;;
    --demo) demo=yes ;;
    --shim-only) mode=shim-only ;;
    --dry-run) dry=yes ;;
    --skip-checks) skip_checks=yes ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --help | -h) usage; exit 0 ;;
    *) die "unknown option: $1 (see ./install.sh --help)" ;;
    esac
    shift
done

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C.UTF-8
export PATH LC_ALL
unset CDPATH

for part in journal files record checks host_checks user python release configuration containerd systemd uninstall ending; do
    [ -f "$here/deploy/install/$part.sh" ] || die "$here/deploy/install/$part.sh is not there: unpack the archive whole"
    # shellcheck source=/dev/null
    . "$here/deploy/install/$part.sh"
done

# A release is told by its checksums; a checkout has none.
if [ -f "$here/SHA256SUMS" ] && [ -f "$here/VERSION" ]; then
    source=release
    : "${mode:=full}"
    default_prefix=/usr/share/qemubox
else
    source=checkout
    : "${mode:=host}" # the host's containerd, whose configuration is left alone
    default_prefix=/usr/local
fi
read_record
# A checkout's next run is of the kind of the first.
if [ $source-$mode-$recorded_mode = checkout-host-shim-only ]; then mode=shim-only; fi
if [ -z "$prefix" ]; then
    prefix=$default_prefix
    if [ $action = uninstall ] && [ -n "$recorded_prefix" ]; then prefix=$recorded_prefix; fi
fi
case $prefix in
/*) ;;
*) die "--prefix $prefix: must be an absolute path" ;;
esac
while [ "$prefix" != "${prefix%/}" ]; do prefix=${prefix%/}; done
# It stands in the first line of programs, which the kernel reads 127 bytes of, in units, and in configurations.
case $prefix in
"" | *[!A-Za-z0-9/._+-]* | */../* | */..) die "--prefix ${prefix:-/}: letters, digits and / . _ + - only, and not / itself" ;;
esac
[ ${#prefix} -le 80 ] || die "--prefix $prefix: is longer than 80 letters"
if [ $purge = yes ] && [ $action != uninstall ]; then die "--purge: goes with --uninstall only"; fi
if [ "$mode" != shim-only ]; then
    [ -z "$containerd_config" ] || die "--containerd-config $containerd_config: goes with --shim-only only"
    [ $restart_containerd = no ] || die "--restart-containerd: goes with --shim-only only"
fi
case $containerd_config in
"" | /*) ;;
*) die "--containerd-config $containerd_config: must be an absolute path" ;;
esac

lib=$prefix/lib/qemubox
share=$prefix/share/qemubox
shim=$prefix/bin/containerd-shim-qemubox-v1
config=/etc/qemubox/config.toml
networks=/etc/qemubox/net.d
daemon=$lib/vhost-device-vsock
tools=$lib/runtime/bin # the release's programs; a checkout has none
if [ $source = release ]; then python=$here/tree/lib/qemubox/runtime/bin/python3; else python=/usr/bin/python3; fi

# Of an installation there may be no more than what it takes to remove it.
if [ $action = uninstall ] && [ "$recorded_source" = release ] && [ ! -x "$python" ]; then python=$tools/python3; fi
if [ $action = install ] && [ ! -d "$here/tree" ] && [ ! -d "$here/shim" ]; then
    die "there is nothing to install beside $0: it is what an installation has left for --uninstall"
fi

if [ "$(id -u)" -ne 0 ] && [ $dry = no ]; then die "must be run as root: sudo $0"; fi
# One installation at a time; the lock is on a directory, so that it leaves no file.
command -v flock >/dev/null || die "flock is missing: install util-linux"
exec 9</run
flock -n 9 || { say "waiting for another installation to end"; flock -w 900 9 || die "another installation has not ended in 15 minutes (fuser /run)"; }
work=$(mktemp -d)
trap finish EXIT
trap 'exit 130' HUP INT TERM
recover

case $action-$source in
uninstall-*) uninstall ;;
install-release) install_release ;;
install-checkout) install_checkout ;;
esac
[ $dry = no ] || exit 0
if [ $action = install ]; then
    finish_installation
    if [ $demo = yes ]; then
        exec 9<&-
        sh "$here/deploy/demo.sh" "$prefix" "$mode"
    fi
fi
