# shellcheck shell=sh
# What follows once all is in place: nothing of it takes the installation back. Part of install.sh.

finish_installation() {
    remove_old_versions
    make_template
    say "checking what is installed: $prefix/bin/qemubox check"
    "$prefix/bin/qemubox" check ||
        die "qemubox is installed in $prefix, but not everything that containers need is there: see what the check says above"
}

make_template() {
    say "template: containers start as clones of it"
    "$prefix/bin/qemubox" template build --if-used || say "there is no template: containers boot, which takes longer"
}
