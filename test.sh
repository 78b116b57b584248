#!/bin/sh
# usage: ./test.sh [TASK]...
#
# Runs every test there is, on a bare machine too: as root, with apt, it installs what is missing, makes .venv from
# the locked dependencies, and calls `task check test` (or the tasks named). The last line is pytest's.
set -eu
cd "$(dirname "$0")"

sh deploy/host.sh run build demo test
sh deploy/venv.sh
[ $# -gt 0 ] || set -- check test
exec .venv/bin/task "$@"
