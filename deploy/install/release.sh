# shellcheck shell=sh
# From the release's archive: its tree below PREFIX. Part of install.sh.
#
# The runtime (Python, QEMU, libraries) and our packages are directories with names of their content, and `runtime` and
# `venv` are links to those in force: a container that runs keeps what it began with.

verify_archive() {
    say "checking the archive's checksums"
    (cd "$here" && sha256sum -c SHA256SUMS) >"$work/sums.log" 2>&1 || {
        grep -v ': OK$' "$work/sums.log" | head -n 5 >&2
        die "the archive is damaged or was changed ($here/SHA256SUMS): unpack it again, or fetch it again"
    }
    [ -x "$python" ] || die "$python is not there: unpack the archive whole"
    "$python" -ISc '' 2>"$work/python.log" ||
        die "$python does not run here: $(head -n 1 "$work/python.log"); is $here on a file system that is mounted noexec? Unpack the archive elsewhere"
}

# The name of a directory of the tree, by what is in it.
content_key() {
    (
        cd "$here"
        grep " \**$1/" SHA256SUMS
        find "$1" -type l | sort | while read -r path; do echo "$path $(readlink "$path")"; done
    ) | sha256sum | cut -c 1-16
}

# Files and links of the tree but for those two directories; without containerd where the host's is used.
list_files() {
    (
        cd "$here/tree"
        find . -path ./lib/qemubox/runtime -prune -o -path ./lib/qemubox/site-packages -prune -o \( -type f -o -type l \) -print
    ) | sed 's|^\./||' | sort >"$work/all"
    if [ "$mode" = full ]; then cp "$work/all" "$work/files"; else grep -vx 'bin/containerd\|bin/ctr' "$work/all" >"$work/files"; fi
}

# What is in the way and not ours. The list is that of the installation before.
foreign_files() {
    while read -r file; do
        if [ -e "$prefix/$file" ] || [ -L "$prefix/$file" ]; then
            grep -qsx -F "$file" "$share/files" || echo "$prefix/$file"
        fi
    done <"$work/files"
}

put_files() {
    while read -r file; do
        if [ -L "$here/tree/$file" ]; then
            link "$(readlink "$here/tree/$file")" "$prefix/$file"
        elif [ -x "$here/tree/$file" ]; then
            put "$here/tree/$file" "$prefix/$file" 755
        else
            put "$here/tree/$file" "$prefix/$file" 644
        fi
    done <"$work/files"
}

# Files of the installation before that this one does not have go once all else is done; until then both are listed.
remember_files() {
    cat "$share/files" "$work/files" 2>/dev/null | sort -u >"$work/files.both"
    put "$work/files.both" "$share/files" 644
}

remove_obsolete_files() {
    if same "$work/files" "$share/files"; then return 0; fi
    grep -vx -F -f "$work/files" "$share/files" | while read -r file; do
        rm -f "$prefix/$file"
        [ "$(readlink "/usr/local/$file" || true)" != "$prefix/$file" ] || rm -f "/usr/local/$file"
    done
    cp "$work/files" "$share/files.new" && chmod 644 "$share/files.new" &&
        mv -f -T "$share/files.new" "$share/files"
}

# What it takes to uninstall, once the archive has been thrown away.
put_uninstaller() {
    (cd "$here" && ls install.sh VERSION deploy/network.sh deploy/containerd_config.py deploy/install/*.sh) >"$work/uninstaller"
    while read -r file; do
        mode_of=644
        [ ! -x "$here/$file" ] || mode_of=755
        put "$here/$file" "$share/installer/$file" $mode_of
    done <"$work/uninstaller"
}

put_launchers() {
    for pair in launcher:containerd-shim-qemubox-v1 qemubox:qemubox; do
        sed "1s|^#!/usr/bin/python3|#!$tools/python3|" "$here/deploy/${pair%:*}" >"$work/${pair#*:}"
        put "$work/${pair#*:}" "$prefix/bin/${pair#*:}" 755
    done
}

install_release() {
    verify_archive
    list_files
    run_checks
    plan_containerd
    runtime_key=$(content_key tree/lib/qemubox/runtime)
    packages=lib/python$("$python" -ISc 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages
    venv_key=$({ echo "$packages"; content_key tree/lib/qemubox/site-packages; } | sha256sum | cut -c 1-16)
    if [ $dry = no ]; then
        begin
        note_running_units
    fi
    make_user
    say "files in $prefix"
    [ -d "$lib/runtime-$runtime_key" ] || stage "$here/tree/lib/qemubox/runtime" "$lib/runtime-$runtime_key"
    [ -d "$lib/venv-$venv_key" ] || stage "$here/tree/lib/qemubox/site-packages" "$lib/venv-$venv_key/$packages"
    put_files
    remember_files
    put_uninstaller
    remember_versions
    link_versions "runtime-$runtime_key" "venv-$venv_key"
    put_launchers
    install_links
    configure
    install_network
    make_state
    put_containerd
    write_record
    relabel
    install_modules
    install_units
    [ $dry = no ] || return 0
    commit
    remove_obsolete_files || say "files of the version before could not be removed (see above)"
    say "qemubox is installed in $prefix (to remove it: $share/installer/install.sh --uninstall)"
    tell_use
}

tell_use() {
    if [ "$mode" = full ]; then
        say "its containerd: export CONTAINERD_ADDRESS=/run/qemubox/containerd.sock; $prefix/bin/ctr run --runtime io.containerd.qemubox.v1 ..."
    else
        say "ctr run --runtime io.containerd.qemubox.v1 ..."
    fi
}
