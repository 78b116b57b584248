#!/bin/sh
# usage: deploy/mirror.sh [RELEASE]
#
# Prints the site from which the host's apt gets RELEASE (its own release where none is named; bookworm-security is
# one, too), or nothing if it has none: whatever we fetch for ourselves comes from there, as all else on the host.
set -eu

[ $# -le 1 ] || { echo "usage: $0 [RELEASE]" >&2; exit 2; }
release=${1:-$(. /etc/os-release && echo "${VERSION_CODENAME:-}")}

# One line for each package index of Debian that the host's apt has, by the name in the sources or in the release.
apt-get indextargets --format '$(SITE) $(RELEASE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' \
    "Architecture: $(dpkg --print-architecture)" |
    awk -v release="$release" '$4 == "main" && ($2 == release || $3 == release) { print $1; exit }'
