"""How long vminitd waits for what, in seconds. In one place, so that the sum is seen.

They are long because they only end what hangs: the same guest runs forty times slower without hardware virtualization.
"""

CONNECT = 20.0
"""For the host to accept a connection."""

DISK = 30.0
"""For a hot-added disk, or its partition, to appear."""

INTERFACE = 30.0
"""For a hot-added network interface to appear."""

CAPACITY = 40.0
"""For vCPUs and memory to come online: less than the shim waits for the Start that waits for them."""

CRUN = 120.0
"""For one call of crun."""

CONSOLE = 30.0
"""For crun to hand over a terminal after it was started."""

DRAIN = 30.0
"""For a reader on the host to take the rest of a process's output and close the connection."""

HELD_OUTPUT = 1.0
"""For a process's own children that keep its output open after its end: what they write later is not relayed."""

FREEZE = 30.0
"""For a container to be paused: its processes stop, and all that they wrote is on the disk."""

KILLED = 30.0
"""For a killed process to be gone."""

FORWARD = 10.0
"""For a port of the machine to take a connection: less than the shim waits for that."""

COPY_PAUSED = 60.0
"""For a paused container to be resumed, while files are being copied into it."""
