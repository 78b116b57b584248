#!/bin/sh
# usage: deploy/release/compare.sh
#
# Makes the release of this commit twice and compares the bytes: once as ever, and once from a clone elsewhere, with other
# settings, and without anything that was put together before: runtime, wheels, guest image, archive. Only what was
# fetched (Debian's packages, wheels) and what is long in compiling (kernel, Go) is taken from the same cache. Says what
# differs, file by file, and then ends with 1.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
cache=${QEMUBOX_BUILD_CACHE:-/var/cache/qemubox/build}

say() { echo "compare: $*" >&2; }
die() { say "$*"; exit 1; }

[ $# -eq 0 ] || { echo "usage: $0" >&2; exit 2; }
[ -z "$(git -C "$project" status --porcelain)" ] || die "this checkout has changes that no commit has (commit them first)"
one=$(sh "$here/build.sh")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
git clone -q --shared "$project" "$work/clone"
mkdir "$work/cache"
for part in debs kernel parts tools wheels; do
    ln -s "$cache/$part" "$work/cache/$part"
done
other=$(umask 077 && HOME=$work TZ=Asia/Tokyo LC_ALL=C.UTF-8 QEMUBOX_BUILD_CACHE=$work/cache \
    sh "$work/clone/deploy/release/build.sh")

if cmp -s "$one" "$other"; then
    say "the same, byte for byte: $(cut -d ' ' -f 1 "$one.sha256")"
    exit 0
fi
mkdir "$work/one" "$work/other"
tar -xzf "$one" -C "$work/one"
tar -xzf "$other" -C "$work/other"
diff -rq --no-dereference "$work/one" "$work/other" >&2 || true
tar -tvzf "$one" >"$work/one.list"
tar -tvzf "$other" >"$work/other.list"
diff "$work/one.list" "$work/other.list" | head -n 20 >&2
die "$one and a second one of the same commit differ"
