#!/bin/sh
# usage: deploy/network.sh check DIR SUM
#        deploy/network.sh install DIR SUM
#        deploy/network.sh uninstall DIR SUM
#
# `check` only tells what the network needs and this host lacks. QEMUBOX_TOOLS and QEMUBOX_CNI name directories of
# programs, and of plugins, that an installation has brought beside the host's own.
# The network of containers that come with none of their own: qemubox.conflist, in DIR. SUM is a file that remembers
# what was put there, so that a file that was changed is never overwritten or removed. DIR is not CNI's own directory,
# /etc/cni/net.d, where a kubelet's containerd would take the first network that it finds for the cluster's.
set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin${QEMUBOX_TOOLS:+:$QEMUBOX_TOOLS}
LC_ALL=C.UTF-8
export PATH LC_ALL

say() { echo "network: $*"; }

[ $# -eq 3 ] || { echo "usage: $0 check|install|uninstall DIR SUM" >&2; exit 2; }
action=$1
sum=$3
file=$2/qemubox.conflist
here=$(cd "$(dirname "$0")" && pwd)

# Whether the file is the one that we wrote.
is_unchanged() { [ -f "$sum" ] && [ "$(sha256sum <"$file")" = "$(cat "$sum")" ]; }

# Other files in DIR that configure a network of our name: two would be an error.
others() {
    for other in "${file%/*}"/*.conflist "${file%/*}"/*.conf "${file%/*}"/*.json; do
        [ "$other" = "$file" ] || grep -lsE '"name"[[:space:]]*:[[:space:]]*"qemubox"' "$other" || true
    done
}

# Why containers can have no IPv6; nothing where they can.
without_ipv6() {
    if [ ! -d /proc/sys/net/ipv6 ]; then
        echo "this host's kernel runs without it"
    elif [ "$(cat /proc/sys/net/ipv6/conf/all/disable_ipv6)" = 1 ] ||
        [ "$(cat /proc/sys/net/ipv6/conf/default/disable_ipv6)" = 1 ]; then
        echo "it is switched off on this host (net.ipv6.conf.all.disable_ipv6)"
    elif ! ip6tables -w 5 -t nat -S >/dev/null 2>&1; then
        echo "ip6tables has no nat table here"
    fi
}

# What the network needs and this host lacks, or has already.
warn() {
    for plugin in $(sed -n 's/.*"type": "\([a-z-]*\)".*/\1/p' "$1"); do
        [ -x "/opt/cni/bin/$plugin" ] || [ -x "/usr/lib/cni/$plugin" ] || [ -x "${QEMUBOX_CNI:-/opt/cni/bin}/$plugin" ] ||
            say "the CNI plugin $plugin is missing: install containernetworking-plugins, or containers have no network"
    done
    iptables -w 5 -t nat -S >/dev/null 2>&1 ||
        say "iptables does not work here (iptables -t nat -S): containers have no network"
    subnet=$(sed -n 's/.*"subnet": "\([0-9./]*\)".*/\1/p' "$1")
    for family in "match $subnet" "root $subnet"; do
        # shellcheck disable=SC2086 # two words
        ip -4 route show table all $family
    done 2>/dev/null | grep -vE '^(default|unreachable default)|dev qemubox0' | sort -u | while read -r route; do
        say "this host has a route into the containers' network $subnet ($route): see $file"
    done
    if grep -q '::/0' "$1" && [ -n "$(ip -6 route show default proto ra)" ]; then
        say "this host has its IPv6 route from router advertisements, which it ignores once a container has made it a" \
            "router: set net.ipv6.conf.INTERFACE.accept_ra to 2, or take the IPv6 range out of $file"
    fi
}

put_in_place() {
    mkdir -p "${2%/*}"
    cp "$1" "$2.new.$$"
    chmod 644 "$2.new.$$"
    mv -T "$2.new.$$" "$2"
}

install_network() {
    found=$(others)
    if [ -n "$found" ]; then
        say "$found has the network qemubox: that is the containers' one"
        return
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    reason=$(without_ipv6)
    if [ -n "$reason" ]; then
        sed -e 's/, \[{ "subnet": "[^"]*::[^"]*" }\]//' -e 's/, { "dst": "::[^"]*" }//' \
            "$here/net.d/qemubox.conflist" >"$work/new"
    else
        cp "$here/net.d/qemubox.conflist" "$work/new"
    fi
    if [ -f "$file" ] && ! is_unchanged; then
        cmp -s "$work/new" "$file" || say "$file was changed and stays as it is; the default is $here/net.d/qemubox.conflist"
        return
    fi
    if ! cmp -s "$work/new" "$file"; then
        [ -z "$reason" ] || say "containers get no IPv6 addresses: $reason"
        warn "$work/new"
        sha256sum <"$work/new" >"$work/sum"
        put_in_place "$work/sum" "$sum"
        put_in_place "$work/new" "$file"
    fi
}

uninstall_network() {
    if [ -f "$file" ] && is_unchanged; then
        rm -f "$file"
    elif [ -f "$file" ]; then
        say "$file was changed and stays"
    fi
    rm -f "$sum"
    [ ! -d "${file%/*}" ] || rmdir --ignore-fail-on-non-empty "${file%/*}"
}

case $action in
check) warn "$here/net.d/qemubox.conflist" ;;
install) install_network ;;
uninstall) uninstall_network ;;
*) echo "$0: $action: there are check, install and uninstall" >&2; exit 2 ;;
esac
