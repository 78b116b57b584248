"""What a container has written goes from its writable image into its snapshot's upper directory on the host.

    target.py      where to, and from which image
    listing.py     what the guest says its upper directory holds, each word checked
    record.py      what was applied before, so that only what differs is
    pending.py     a mark on an image from which not all has come back yet
    beneath.py     openat2(2): nothing outside of the directory can be reached from within it
    inodes.py      one file, directory, link or device made as it is in the guest
    apply.py       what to make, what to remove
    write_back.py  all of it in order: the one entry for the rest of the shim

The guest lists names, attributes and where in its disk each file's data are; the shim reads the data there, in
the image that is the disk. No file system that a guest has written is ever mounted (docs/decisions/0024).
"""
