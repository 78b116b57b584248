#!/bin/sh
# usage: check-config.sh FRAGMENTS_DIR [KERNEL_CONFIG]
#
# Kconfig drops an option whose dependencies are not met without a word. This holds a kernel's finished
# .config against what the fragments asked for and names every loss with its fragment. Without a .config
# only the fragments themselves are checked: each line is a comment, CONFIG_X=value or
# "# CONFIG_X is not set", and no option is asked for twice with different values.
# Prints one line for each fault on stderr; exit status 1 if there is any.
set -eu

[ $# -eq 1 ] || [ $# -eq 2 ] || { echo "usage: $0 FRAGMENTS_DIR [KERNEL_CONFIG]" >&2; exit 2; }
fragments=$1
config=${2:-}
set -- "$fragments"/*.config
[ -f "$1" ] || { echo "kernel: no fragments (*.config) in $fragments" >&2; exit 2; }
[ -z "$config" ] || [ -f "$config" ] || { echo "kernel: no such file: $config" >&2; exit 2; }

exec awk -v config="$config" '
    function fault(text) { print "kernel: " text > "/dev/stderr"; faults = 1 }

    # "CONFIG_X=y" and "# CONFIG_X is not set" both become option and value; anything else: no option.
    function parse(line) {
        option = ""
        if (match(line, /^CONFIG_[A-Z0-9a-z_]+=./)) {
            option = substr(line, 1, index(line, "=") - 1)
            value = substr(line, index(line, "=") + 1)
        } else if (match(line, /^# CONFIG_[A-Z0-9a-z_]+ is not set$/)) {
            option = $2
            value = "n"
        }
    }

    function ask() {
        parse($0)
        if (option == "") {
            if ($0 !~ /^(#( .*)?)?$/) fault(FILENAME ":" FNR ": neither a comment nor an option: " $0)
        } else if (!(option in asked)) {
            asked[option] = value
            fragment[option] = FILENAME
            order[++count] = option
        } else if (asked[option] != value) {
            fault(FILENAME ": " option "=" value " contradicts " option "=" asked[option] " in " fragment[option])
        }
    }

    # An option that is off, or that the kernel does not know, is "n" in effect.
    function compare(    i, has) {
        for (i = 1; i <= count; i++) {
            has = order[i] in got ? got[order[i]] : "n"
            if (has != asked[order[i]])
                fault(fragment[order[i]] ": lost " order[i] "=" asked[order[i]] ", the kernel has " order[i] "=" has \
                      " (a dependency is missing, or the option was renamed)")
        }
    }

    config != "" && FILENAME == config { parse($0); if (option != "") got[option] = value; next }
    { ask() }
    END { if (config != "") compare(); exit faults }
' "$@" ${config:+"$config"}
