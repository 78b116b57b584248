"""The machine's network as the shim wants it: interfaces, addresses, routes, rules.

    requests    each part of guest.proto's NetworkConfig as a netlink request: rtnetlink(7). Pure
    connection  the socket: many requests by one system call
    plan        all of a NetworkConfig, in order. Pure
    interfaces  interfaces by MAC address, and what is set while they are down
    ipv6        what IPv6 would do of its own accord
    queues      how many pairs of queues an interface uses
    rehearsal   what a template does of it beforehand
    network     when all that happens, and who waits for it

The messages of api/guest.proto are the values here. To make others of them would be all that a step between did.
"""
