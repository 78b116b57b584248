"""The warm parent, `qemubox service`: it has imported all that a shim needs, and shims are forked from it.

    message.py      what `start` and a child of the service say to each other
    ask.py          `start`'s side: ask the service for a shim, or learn why there is none to be had
    service.py      the service: one process, one thread, a fork for each connection
    child.py        what that fork does until it is the shim's daemon
    caller.py       what the kernel says of the `start` that asks, and how the child becomes like it
    code.py         whether the service still is what lies on the disk, and what `start` belongs to
    holdings.py     what the service keeps open for its children

Why: imports are 100 ms of CPU and 20 MiB of private memory for each container; a fork of a
process that has done them takes 1 ms, and shares the memory (docs/decisions/0010-warm-parent.md).

What must hold: without the service everything works as with it, only dearer. A `start` that
does not get its shim from the service, for whatever reason, makes it by its own fork
(shim/launch.py), and never are there two: a child becomes the daemon only when `start`,
which then does not fork any more, tells it to go. The service itself reads nothing from anybody.
"""
