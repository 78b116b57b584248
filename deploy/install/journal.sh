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
    note made "$work"
}
begun=no
removing=no # whether an uninstallation has begun to change things
active=     # units that it has stopped before

# note VERB [PATH]: with an end of its own, so that a line that was cut short (a full disk, a loss of power) is known as
# that; what it was to tell of has not been done.
note() { { echo "$* ;" >>"$journal/journal"; } 2>/dev/null || die "cannot write to $journal/journal (is /var full?)"; }

# What is noted, a line each, less the ends.
noted() { sed -n 's/ ;$//p' "$1"; }

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
        noted "$journal/journal" | sed -n 's/^directory //p'
        printf '%s\n' /var/lib/qemubox /var/cache/qemubox
    } | sort -u >"$work/directories"
    put "$work/directories" "$share/directories" 644
}

forget_old() {
    noted "$journal/committed" | while read -r verb path; do
        [ "$verb" != replaced ] || rm -f "$path.qemubox-old" "$path.qemubox-new"
    done
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
        # A first one may have come far enough for machines to be used; without it they could not be undone. An upgrade's
        # have the old one.
        if grep -qxF "made $record ;" "$journal/journal"; then
            containers=$(running_containers)
            [ -z "$containers" ] || die "an earlier installation did not come to its end, and containers run by it: ${containers% }: end them first"
        fi
        say "an earlier installation did not come to its end: undoing it"
        undo || die "some of it cannot be undone (see above): mend that, and run this again"
    fi
    rm -rf "$journal"
    read_record # which may be another now
}

# At every exit: either all of it has been done, or nothing.
finish() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    set +e
    if [ -f "$journal/committed" ]; then # ended while it was forgetting the old
        forget_old && rm -rf "$journal"
    elif [ "$begun" = yes ]; then
        say "undoing what was done" >&2
        if undo; then
            rm -rf "$journal"
            echo "install.sh: not installed: the machine is as it was before" >&2
        else
            echo "install.sh: some of it could not be undone (see above): mend that, and run ./install.sh again;" \
                "what there is to undo stands in $journal" >&2
        fi
    fi
    if [ "$removing" = yes ] && [ $status -ne 0 ]; then
        echo "install.sh: not wholly removed: mend what is told above, and run it again" >&2
    elif [ $status -ne 0 ]; then
        for unit in $active; do systemctl start "$unit"; done
    fi
    rm -rf "$work"
    exit $status
}

# The last first. Each step may have been taken or not, wholly or in part, and may be undone twice.
undo() {
    noted "$journal/journal" | sed '1!G;h;$!d' | {
        failed=0
        while read -r verb path; do
            undo_one "$verb" "$path" || { echo "install.sh: cannot undo: $verb $path" >&2; failed=1; }
        done
        exit $failed # of this pipeline
    }
}

undo_one() {
    case $1 in
    made)
        case $2 in
        */lib/qemubox/venv-* | */lib/qemubox/runtime-*) if is_mapped "$2"; then return 0; fi ;; # a process has begun with it
        esac
        remove_tree "$2" "$2.qemubox-new" ;;
    replaced)
        remove_tree "$2.qemubox-new"
        if [ ! -e "$2.qemubox-old" ] && [ ! -L "$2.qemubox-old" ]; then return 0; fi
        # Two names of one file, if the new one did not come: mv(1) refuses those.
        if [ "$(stat -c %d:%i "$2.qemubox-old" 2>/dev/null)" = "$(stat -c %d:%i "$2" 2>/dev/null)" ]; then
            rm -f "$2.qemubox-old"
        else
            # What could not be replaced (it is a mount, say) is what it was.
            mv -f -T "$2.qemubox-old" "$2" || { same "$2.qemubox-old" "$2" && rm -f "$2.qemubox-old"; }
        fi ;;
    directory)
        case $2 in
        /run/qemubox | /var/lib/qemubox | /var/cache/qemubox) rmdir "$2" 2>/dev/null || true ;; # or a container's by now
        *) [ ! -d "$2" ] || rmdir "$2" ;;
        esac ;;
    user) ! id "$2" >/dev/null 2>&1 || userdel "$2" 2>/dev/null || deluser "$2" ;;
    module) rmmod "$2" 2>/dev/null || true ;; # somebody may use it by now
    enabled) systemctl --quiet disable "$2" ;;
    started) systemctl stop "$2" ;;
    units) systemctl daemon-reload ;;
    restarted) systemctl try-restart "$2" ;;
    *) return 1 ;;
    esac
}
