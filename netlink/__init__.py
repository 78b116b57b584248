"""Netlink in bytes: what the kernel is told, and what it says: netlink(7). A library that knows nothing of qemubox.

    attribute  what follows a message's fixed part: pieces of a kind, a length and a value
    message    requests, one or many in a datagram; the kernel's messages, and what became of a request
    rtnl       the numbers of rtnetlink(7), and its messages' fixed parts: links, addresses, neighbours, routes, rules

Pure: whoever has a socket sends and reads (shim/network/rtnetlink.py, vminitd/network/connection.py). Numbers are in
the machine's own order. What is no netlink raises OSError with EBADMSG, since whoever asks the kernel expects OSError.

Import-light: nothing but the standard library, and of that only what an interpreter has loaded already, and `struct`.
Neither side could use pyroute2: docs/decisions/0021, 0022.
"""
