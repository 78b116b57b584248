"""Templates: a machine that has booted once, frozen, from which others start as clones.

    metadata.py   what is known of a template, as JSON beside its state
    store.py      where templates are kept: found, made once, verified, removed, bounded
    build.py      boots a machine without any device of a container and saves it
    choice.py     which template a container starts from, if any

A clone starts with the same command line as a cold boot, loads the state instead of
booting, and from there on is treated the same: devices, `cont`, vminitd's call. What
makes it its own machine (name, time, randomness) vminitd is told by the first call, for
clones and cold boots alike, before anything of a container runs.

A template holds nothing of any container: it is frozen while vminitd waits for a vsock
device. Its state is root's alone; QEMU is handed a read-only descriptor, and loads it
into memory of its own, so clones share no memory with each other (docs/limitations.md).
"""
