# shellcheck shell=sh
# Files, directories and links into place, each whole or not at all, and each in the journal. Part of install.sh.

would() { echo "would $*"; }

# Never into another file system: what is mounted below is somebody's. Busybox's rm cannot be told.
one_file_system=--one-file-system
rm --help 2>&1 | grep -q one-file-system || one_file_system=
# shellcheck disable=SC2086 # nothing, or one word
remove_tree() { rm -rf $one_file_system "$@"; }

# Whether two files have the same content; cmp is not everywhere.
same() { [ -f "$2" ] && [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]; }

make_directory() {
    [ ! -d "$1" ] || return 0
    make_directory "$(dirname "$1")"
    note directory "$1"
    mkdir "$1"
}

# The old content stays beside the new until the end.
keep() {
    [ ! -d "$1" ] || [ -L "$1" ] || die "$1 is a directory: move it away"
    ! grep -qxF -e "replaced $1 ;" -e "made $1 ;" "$journal/journal" || return 0
    if [ -e "$1" ] || [ -L "$1" ]; then
        rm -rf "$1.qemubox-old"
        note replaced "$1"
        # Whole or not at all, as everything.
        ln -P "$1" "$1.qemubox-old" 2>/dev/null || { cp -a "$1" "$1.qemubox-new" && mv -f -T "$1.qemubox-new" "$1.qemubox-old"; } ||
            die "cannot keep a copy of $1 (see above)"
    else
        note made "$1"
    fi
}

# put SOURCE PATH MODE
put() {
    if same "$1" "$2" && [ ! -L "$2" ] && [ "$(stat -c %a "$2")" = "$3" ]; then return 0; fi
    if [ $dry = yes ]; then would "write $2"; return 0; fi
    make_directory "$(dirname "$2")"
    keep "$2"
    { cp "$1" "$2.qemubox-new" && chmod "$3" "$2.qemubox-new" && mv -f -T "$2.qemubox-new" "$2"; } ||
        die "cannot write $2 (see above)"
}

# put_over SOURCE PATH: only the content is new; owner, mode and attributes stay. PATH is there, and no link.
put_over() {
    if same "$1" "$2"; then return 0; fi
    if [ $dry = yes ]; then would "change $2"; return 0; fi
    keep "$2"
    { cp -a "$2" "$2.qemubox-new" && cat "$1" >"$2.qemubox-new" && mv -f -T "$2.qemubox-new" "$2"; } ||
        die "cannot write $2 (see above)"
}

# link TARGET PATH
link() {
    [ "$(readlink "$2" || true)" != "$1" ] || return 0
    if [ -e "$2" ] && [ ! -L "$2" ]; then die "$2 is in the way: it is not qemubox's; move it away"; fi
    if [ $dry = yes ]; then would "make the link $2 -> $1"; return 0; fi
    make_directory "$(dirname "$2")"
    keep "$2"
    ln -s "$1" "$2.qemubox-new"
    mv -f -T "$2.qemubox-new" "$2"
}

# link_versions RUNTIME VENV: both at once, as near as that can be, for the packages are of one Python's version.
link_versions() {
    if [ $dry = yes ]; then
        link "$1" "$lib/runtime"
        link "$2" "$lib/venv"
        return
    fi
    for pair in "runtime $1" "venv $2"; do
        keep "$lib/${pair%% *}"
        rm -f "$lib/${pair%% *}.qemubox-new"
        ln -s "${pair#* }" "$lib/${pair%% *}.qemubox-new"
    done
    mv -f -T "$lib/runtime.qemubox-new" "$lib/runtime"
    mv -f -T "$lib/venv.qemubox-new" "$lib/venv"
}

# stage SOURCE DIRECTORY: a whole tree under a name that nobody looks for yet, root's.
stage() {
    if [ $dry = yes ]; then would "make $2"; return 0; fi
    make_directory "$(dirname "$2")"
    note made "$2"
    rm -rf "$2" "$2.qemubox-new"
    cp -a "$1" "$2.qemubox-new" || die "cannot write $2 (see above)"
    chown -R 0:0 "$2.qemubox-new"
    chmod -R u=rwX,go=rX "$2.qemubox-new" # whatever umask the archive was unpacked with
    mv -T "$2.qemubox-new" "$2"
}

# put_unless_changed NAME SOURCE PATH: a configuration that people may change. What we wrote is known by its sum, in
# NAME.sha256, and the default stands in NAME.toml.
put_unless_changed() {
    if [ ! -f "$3" ] || is_ours "$1" "$3"; then
        put "$2" "$3" 644
        sha256sum <"$2" >"$work/$1.sha256"
        put "$work/$1.sha256" "$share/$1.sha256" 644
    elif ! same "$2" "$3"; then
        say "$3 was changed and stays as it is; the default is $share/$1.toml"
    fi
    put "$2" "$share/$1.toml" 644
}

# Whether the configuration is the one that we wrote.
is_ours() { [ -f "$share/$1.sha256" ] && [ "$(sha256sum <"$2")" = "$(cat "$share/$1.sha256")" ]; }

# Versions of environments that are no longer in force, less those that a running process has mapped, and less the one
# before this: a shim that has just been started may have found that, and not yet read all of it.
remove_old_versions() {
    for link in venv runtime; do
        now=$(readlink "$lib/$link" || true)
        for old in "$lib/$link"-*; do
            [ -d "$old" ] || continue
            case $lib/$now:$before in
            "$old":* | *:"$old":*) continue ;;
            esac
            is_mapped "$old" || rm -rf "$old"
        done
    done
}

# To be asked before the links are made anew.
before=
remember_versions() {
    for link in venv runtime; do before="$before$lib/$(readlink "$lib/$link" 2>/dev/null || echo none):"; done
}

# Whether a process has a file from this directory in its memory, as a shim has its environment's modules, or QEMU itself.
is_mapped() { grep -qs " $1/" /proc/[0-9]*/maps; }
