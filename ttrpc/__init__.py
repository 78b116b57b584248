"""ttrpc over asyncio: containerd's small RPC protocol, client and server.

A library of its own, with no knowledge of qemubox. It takes a connected stream socket, so that unix and vsock
are the same to it. The protocol is that of containerd/ttrpc's PROTOCOL.md, version 1.2: unary calls and streams.

    frame     bytes into frames and back             pure
    messages  what the frames' data mean             pure
    status    how a call ends badly                  pure
    wire      frames over a socket
    inbox     the bounded queue of one stream
    service, context, call, connection, server       the serving side
    client, stream                                   the calling side
    plugin    makes typed stubs and bases of .proto files; runs under protoc

One event loop, one thread: an object belongs to the loop in which it was made, and nothing here may be called
from another thread. Every connection has one reading task; every call being served has a task of its own; a
caller waits in its own task.

Names are imported when they are first asked for: a process that only serves never loads the client, and one that
only names an error (`Code`, `StatusError`) loads neither asyncio nor protobuf.
"""

import sys

from ttrpc.status import Code, ConnectionClosed, StatusError

# The name is what type checkers look for; importing it from `typing` would cost the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttrpc.client import Client
    from ttrpc.context import Context, Peer
    from ttrpc.messages import Metadata
    from ttrpc.server import Server
    from ttrpc.service import Method, Service
    from ttrpc.stream import Stream

__all__ = [
    "Client",
    "Code",
    "ConnectionClosed",
    "Context",
    "Metadata",
    "Method",
    "Peer",
    "Server",
    "Service",
    "StatusError",
    "Stream",
]

_HOME = {
    "Client": "ttrpc.client",
    "Context": "ttrpc.context",
    "Metadata": "ttrpc.messages",
    "Method": "ttrpc.service",
    "Peer": "ttrpc.context",
    "Server": "ttrpc.server",
    "Service": "ttrpc.service",
    "Stream": "ttrpc.stream",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ttrpc' has no attribute {name!r}")
    __import__(home)  # what importlib.import_module does, without loading importlib
    value: object = getattr(sys.modules[home], name)
    globals()[name] = value
    return value
