#!/bin/sh
# usage: deploy/tree-python.sh TREE ARGUMENT...
#
# Runs the Python 3.13 of an unpacked Debian tree through the tree's own loader: no chroot, no root needed, and what is
# compiled is for just that Python. It finds our packages in this checkout. Nothing of the environment but PATH counts.
# No columns in tracebacks: it makes compiled code a fifth smaller, and libraries may be there without their source.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 TREE ARGUMENT..." >&2; exit 2; }
project=$(cd "$(dirname "$0")/.." && pwd)
usr=$1/usr
libraries=$usr/lib/x86_64-linux-gnu
shift
exec env -i PATH="$PATH" PYTHONHOME="$usr" PYTHONPATH="$project" PYTHONHASHSEED=0 \
    "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$usr/bin/python3.13" -X no_debug_ranges -sB "$@"
