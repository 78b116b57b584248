"""Templates: a machine that has booted once, frozen, from which others start as clones.

    metadata.py   what is known of a template, as JSON beside its state
    store.py      where templates are kept: found, made once, verified, removed, bounded
    build.py      boots a machine without any device of a container and saves it
    choice.py     which template a container starts from, if any
    memory.py     its memory as a file: taken down, copied, or sealed for all clones to map
    held.py       what the service keeps of all that for its shims

A clone starts with the same command line as a cold boot, has the template's memory,
loads the state of its devices instead of booting, and from there on is treated the
same: disks, `cont`, the first call to vminitd. What makes it its own machine (name,
time, randomness) vminitd is told by the first call, for clones and cold boots alike,
before anything of a container runs.

A template holds nothing of any container: it is frozen while vminitd waits for its host.
Its state is root's alone; QEMU is handed a read-only descriptor of it. What clones share of
its memory, none of them can write to (docs/decisions/0011).
"""
