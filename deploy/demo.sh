#!/bin/sh
# usage: deploy/demo.sh PREFIX [MODE]
#
# Runs a container in a virtual machine by the qemubox that is installed in PREFIX, and shows what came of it and
# where its start time went. Uses qemubox's own containerd where it is installed in full (MODE is "full"), else the
# host's, where systemd runs them; otherwise one for the demo, with root, state and socket in a temporary directory,
# that is gone afterwards.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
prefix=$1
mode=${2:-host}
image=localhost/qemubox/demo:1
timeline=/run/qemubox/timeline.jsonl
runtime=io.containerd.qemubox.v1
containerd=
socket=/run/containerd/containerd.sock

say() { echo "==> $*"; }
die() { echo "demo: $*" >&2; exit 1; }

tools=$prefix/lib/qemubox/runtime/bin
PATH=$prefix/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$tools
export PATH CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1

clean_up() {
    trap - EXIT
    if [ -n "$containerd" ]; then
        kill "$containerd" 2>/dev/null || true
        wait "$containerd" 2>/dev/null || true
    fi
    rm -rf "$work"
}

# The release brings both.
python=/usr/bin/python3
[ ! -x "$tools/python3" ] || python=$tools/python3
busybox=/usr/bin/busybox
[ ! -x "$prefix/lib/qemubox/demo/busybox" ] || busybox=$prefix/lib/qemubox/demo/busybox
[ -x $busybox ] || die "there is no static busybox to make an image of: install busybox-static"

client() { ctr --address "$socket" "$@"; }

# Bounded: a containerd that does not come up says why in its log.
wait_for_containerd() {
    tries=0
    until client version >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] || { [ ! -f "$work/log" ] || tail -n 20 "$work/log" >&2; die "containerd does not answer at $socket"; }
        sleep 0.2
    done
}

use_own_service() {
    socket=/run/qemubox/containerd.sock
    systemctl start qemubox-containerd
}

use_service() {
    systemctl start containerd
    # The service finds shims in its own PATH only.
    [ "$prefix" = /usr/local ] || [ "$prefix" = /usr ] || [ -e /usr/local/bin/containerd-shim-qemubox-v1 ] ||
        runtime=$prefix/bin/containerd-shim-qemubox-v1
}

start_own() {
    socket=$work/containerd.sock
    mkdir "$work/root" "$work/state"
    case $(containerd --version) in
    *" 1."* | *" v1."*) version=2 ;;
    *) version=3 ;;
    esac
    cat >"$work/config.toml" <<END
version = $version
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]
[grpc]
address = "$socket"
[ttrpc]
address = "$socket.ttrpc"
END
    containerd --config "$work/config.toml" >"$work/log" 2>&1 &
    containerd=$!
}

# Shows a command as a user would type it, runs it, and shows its output and where its start time went.
show() {
    container=qemubox-demo-$$-$1
    shift
    shown="ctr run --rm --runtime $runtime $image $container $*"
    [ "$socket" = /run/containerd/containerd.sock ] || shown="ctr --address $socket ${shown#ctr }"
    echo
    echo "\$ $shown"
    begin=$(date +%s%N)
    client run --rm --runtime "$runtime" "$image" "$container" "$@" || {
        status=$?
        [ ! -f "$work/log" ] || tail -n 20 "$work/log" >&2
        die "the container ended with status $status"
    }
    took_ms=$((($(date +%s%N) - begin) / 1000000))
}

# Not in /tmp: an overlay's upper directory is not possible on every tmpfs.
work=$(mktemp -d /var/tmp/qemubox-demo.XXXXXX)
trap clean_up EXIT
trap 'exit 130' HUP INT TERM
if [ -d /run/systemd/system ] && [ "$mode" = full ]; then use_own_service
elif [ -d /run/systemd/system ] && systemctl cat containerd >/dev/null 2>&1; then use_service
else start_own
fi
wait_for_containerd
say "$(containerd --version | cut -d ' ' -f 1-3) at $socket; importing an image made here"
"$python" -I "$here/image.py" --busybox "$busybox" "$work/image.tar" "$image"
client images import "$work/image.tar" >/dev/null

show 1 uname -r
echo
say "the guest's kernel; this host's is $(uname -r)"
say "from the command to its end: $took_ms ms, of which:"
"$python" -I "$here/phases.py" "$timeline" default "$container"
show 2 free -m
echo
say "the guest's memory; this host has $(awk '/^MemTotal:/ { printf "%d", $2 / 1024 }' /proc/meminfo) MiB"
show 3 ip address show eth0
echo
say "the container's network, by CNI (docs/networking.md)"
