"""What the snapshotter hands over becomes disks of the virtual machine.

    mounts.py     pure: what Create's list of mounts means (Plan)
    template.py   pure: `{{ mount 0 }}` and its like in that list
    overlay.py    pure: the options of an overlay mount
    snapshotters.py pure: those that cannot be used, by their names
    mounted.py    a layer's directory that is an image, mounted on the host
    filesystems.py how long a snapshotter's image says that it is
    cache.py      a committed layer's directory becomes an EROFS image, once per host
    store.py      the directory that those images are in: which counts, which goes
    erofs.py      runs mkfs.erofs
    survey.py     looks at a directory before and after that: are there holes, does it stand still
    superblock.py what the first block of such an image says of the whole
    writable.py   the ext4 file that takes the container's writes
    ready_made.py an empty one of each size, to be copied
    snapshot.py   which snapshot a directory is
    place.py      where a snapshot's writable image is, and whether it is kept
    kept.py       what becomes of kept images that nobody takes up
    flock.py      locks that die with their holder, and files made once by whoever comes first
    gpt.py        pure: many images joined to one disk
    plan.py       pure: the disks, and what the guest mounts from them
    prepare.py    all of it in order: the one entry for the rest of the shim

Nothing is mounted on the host, and no layer is copied per container: a committed layer
is converted once and its image is attached read-only to every machine that needs it.
"""
