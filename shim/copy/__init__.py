"""`qemubox cp`: files into a container and out of it, with the semantics of docker cp.

    place     arguments, and where what is copied comes to lie      pure
    address   how commands find a container's shim, and connection, how they call it
    command   the command: packs and unpacks on this side of a pipe
    tar       the stream `-` of the command, as tar
    carry     the shim's side: bytes between a pipe and the guest, of which it looks at none
    service   what the command asks the shim for
    channels, transfer   what containerd's transfer service asks it for

The command does the work, and not the shim: it is who knows what the user wants, it ends with ^C, and what comes from a
guest is unpacked by a process that has nothing else to lose. docs/decisions/0031.
"""
