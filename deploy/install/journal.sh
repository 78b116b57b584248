# shellcheck shell=sh
# What this run has changed, and its undoing. Part of install.sh.
#
# A line is written before each change; a failure, a signal, or (at the next run) a run that was cut short has the lines
# undone from the last to the first. A file that is replaced is kept beside the new one as FILE.qemubox-old, by a hard
# link: undoing is a rename, which needs no space. `commit` makes the new state the one that stays.

journal=/var/lib/qemubox-install

begin() {
    umask 077
    mkdir "$journal" || die "cannot make $journal: nothing was changed"
    umask 022
    : >"$journal/journal"
    begun=yes
}
begun=no

# note VERB [PATH]
note() { echo "$*" >>"$journal/journal" || die "cannot write to $journal/journal (is /var full?)"; }

# Removes what is kept beside; a run that ends in here is finished by the next.
commit() {
    remember_directories
    sync
    mv "$journal/journal" "$journal/committed"
    begun=no
    forget_old
    rm -rf "$journal"
}

# For the uninstallation, which removes those that are empty then.
remember_directories() {
    {
        cat "$share/directories" 2>/dev/null || true
        sed -n 's/^directory //p' "$journal/journal"
        printf '%s\n' /var/lib/qemubox /var/cache/qemubox
    } | sort -u >"$work/directories"
    put "$work/directories" "$share/directories" 644
}

forget_old() {
    while read -r verb path; do
        case $verb in
        replaced) rm -f "$path.qemubox-old" "$path.qemubox-new" ;;
        esac
    done <"$journal/committed"
}

# What an earlier run has left that did not come to its end.
recover() {
    [ -d "$journal" ] || return 0
    if [ $dry = yes ]; then
        say "would first undo an installation that did not come to its end ($journal)"
        return 0
    fi
    if [ -f "$journal/committed" ]; then
        forget_old
    elif [ -f "$journal/journal" ]; then
        say "an earlier installation did not come to its end: undoing it"
        undo
    fi
    rm -rf "$journal"
}

# At every exit: either all of it has been done, or nothing.
finish() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    set +e
    if [ "$begun" = yes ]; then
        begun=no
        say "undoing what was done" >&2
        if undo; then
            rm -rf "$journal"
            echo "install.sh: not installed: the machine is as it was before" >&2
        else
            echo "install.sh: some of it could not be undone (see above): mend that, and run ./install.sh again;" \
                "what there is to undo stands in $journal" >&2
        fi
    fi
    rm -rf "$work"
    exit $status
}

# The last first. Each step may have been taken or not, wholly or in part, and may be undone twice.
undo() {
    failed=0
    sed '1!G;h;$!d' "$journal/journal" >"$work/backwards" || return 1
    while read -r verb path; do
        undo_one "$verb" "$path" || { echo "install.sh: cannot undo: $verb $path" >&2; failed=1; }
    done <"$work/backwards"
    return $failed
}

undo_one() {
    case $1 in
    made) rm -rf "$2" "$2.qemubox-new" ;;
    replaced)
        rm -rf "$2.qemubox-new"
        # mv(1) does nothing with two names of one file.
        if [ -e "$2.qemubox-old" ] || [ -L "$2.qemubox-old" ]; then mv -f -T "$2.qemubox-old" "$2" && rm -f "$2.qemubox-old"; fi ;;
    directory) [ ! -d "$2" ] || rmdir "$2" ;;
    user) ! id "$2" >/dev/null 2>&1 || userdel "$2" 2>/dev/null || deluser "$2" ;;
    module) rmmod "$2" 2>/dev/null || true ;; # somebody may use it by now
    enabled) systemctl --quiet disable "$2" ;;
    started) systemctl stop "$2" ;;
    units) systemctl daemon-reload ;;
    restarted) systemctl try-restart "$2" ;;
    *) return 1 ;;
    esac
}
