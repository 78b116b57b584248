"""A client of containerd's own services, over its gRPC socket: for the command `qemubox`, never for the shim.

    connection.py   the socket, one call with its deadline, and what an error of gRPC is for a user
    content.py      blobs: read, written as they are made
    snapshots.py    snapshots, and layers made and unpacked by containerd
    client.py       containers, tasks, images, leases; and the others, all in one namespace

gRPC itself is grpclib's: pure Python upon asyncio (docs/decisions/0030). The messages are in api/containerd.proto.
"""
