#!/bin/sh
# usage: ./test.sh [--all] [--minutes N] [--plan] [LANE]...
#
# Runs the tests, on a bare machine too: as root, with apt, it installs what is missing, makes .venv from the locked
# dependencies, builds what is tested (kept outside the checkout), and runs the lanes that are named, or all:
#   check   ruff and mypy
#   unit    what boots no machine
#   vm      real containerds, runc, and emulated machines
#   kvm     the release on Debian 12 and 13 with systemd and a KVM, each in an emulated machine
# The last lines say of each lane whether it passed, and how long it took; the exit status is 0 if all did. --all runs
# the whole matrix, as before a release. docs/testing.md has the rest.
set -eu
cd "$(dirname "$0")"

case " $* " in *" -h "* | *" --help "*) sed -n '2,/^set/s/^#\{1\} \{0,1\}//p' "$0"; exit 0 ;; esac
sh deploy/host.sh run build demo test
sh deploy/venv.sh
exec .venv/bin/python -m tests.lanes "$@"
