"""The container's network on the host: a network namespace, what CNI makes in it, and the machine behind that.

Read it in this order:

    network.py      one container's network, from its making to its end
    plan.py         who makes it: the client, hooks, or we
    netns.py        network namespaces: made by us, or given
    attached.py     an attachment to a CNI network, written down before it is made
    survey.py       what is in a namespace, as values: links.py has its interfaces, routes.py its routes and rules
    tap.py          a TAP beside each interface; redirect.py leads all frames from one to the other
    tuning.py       kernel settings of CNI's tuning plugin
    connection.py   what of all that a machine is given
    counters.py     what went over each interface
    lookup.py       connections to localhost in the namespace; forward.py carries them to the guest
    names.py        /etc/hosts, /etc/hostname and /etc/resolv.conf of a container whose client brings none
    orphans.py      what a loss of power has left, for shim/gc.py; leases.py: addresses that nobody has
    rtnetlink.py    a connection to the kernel about all this
"""
