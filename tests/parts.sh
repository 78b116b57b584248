#!/bin/sh
# usage: tests/parts.sh [containerd|plugins]
#
# Prints the directory with the newest containerd, or the newest CNI plugins, that the tests run against: a release's own
# (deploy/parts.sh).
set -eu
exec sh "$(dirname "$0")/../deploy/parts.sh" "$@"
