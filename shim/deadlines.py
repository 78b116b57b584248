"""Every wait of the daemon has a deadline, and all of them stand here, in seconds.

What depends on the host's speed (boot, conversion of layers) is in the configuration.
"""

from typing import Final

# QEMU's greeting and each of its commands; on a host that swaps or runs fifty machines these take seconds.
QEMU_COMMAND_S: Final = 30.0
# From SIGKILL to QEMU's end.
QEMU_KILL_S: Final = 5.0
# Between the end of the connection to vminitd and QEMU's own, which says why.
LAST_WORDS_S: Final = 3.0
# A template's state, 60 MiB and more: written once, and read back at each start.
TEMPLATE_SAVE_S: Final = 120.0
TEMPLATE_LOAD_S: Final = 30.0
# Another process makes the same template: its boot and its saving.
TEMPLATE_LOCK_S: Final = 300.0
# The vsock daemon listens.
VSOCK_READY_S: Final = 10.0
# The sources of a container's mounts are looked at, of which one may lie on a server that does not answer: for a guess
# before anybody can call the shim, and in Create.
SOURCES_GUESS_S: Final = 1.0
SOURCES_S: Final = 15.0
# virtiofsd is found, its volumes are opened, and it runs. From its end to the machine's, which may be why.
VOLUMES_READY_S: Final = 15.0
VOLUMES_LOST_S: Final = 0.5
# vminitd brings CPUs and memory online and sets clock and randomness.
GUEST_CONFIGURE_S: Final = 30.0
# Delivering a signal. A machine that does not take SIGKILL in this time is ended itself.
GUEST_KILL_S: Final = 8.0
# From SIGKILL for a container's first process, answered, to its end, all output read: longer than both drains
# (vminitd's 30 s and DRAIN_S). A guest that has not told of the end by then does not mean to.
KILLED_S: Final = 90.0
# All processes stand still, and all that they wrote is on the disk: longer than vminitd's own 30 s.
GUEST_PAUSE_S: Final = 36.0
# All that a container has written is in its snapshot's directory on the host. A gigabyte takes seconds; where the
# host's disk nearly stands still, an image that is kept loses nothing, and a container that never ends is worse.
WRITE_BACK_S: Final = 300.0
# Whoever looks at a block device of the host that is new, or was written to, lets go of it.
NEW_DEVICE_S: Final = 5.0
# A call to vminitd that only looks something up.
GUEST_CALL_S: Final = 15.0
# A connection to a port of the guest, and two streams dialled for it: longer than vminitd's own 10 s.
GUEST_FORWARD_S: Final = 15.0
# The figures of a cgroup. Whoever polls many containers asks one after the other, and waits for each.
GUEST_STATS_S: Final = 8.0
# A guest that runs lets go of a network interface: its kernel's own patience is 5 s.
GUEST_UNPLUG_S: Final = 20.0
# A call behind which crun makes, starts or removes a container; under TCG and load that is seconds.
GUEST_CRUN_S: Final = 60.0
# From the end of a process to the last byte of its output at its reader: longer than vminitd's own 30 s.
DRAIN_S: Final = 35.0
# vminitd stops processes, unmounts and syncs. After that the machine is ended all the same.
GUEST_SHUTDOWN_S: Final = 20.0
# The guest's kernel takes memory, or gives it back: from one word of QEMU's on it to the next (QEMU speaks at most
# once a second; the kernel makes one pass, and the next 50 s later), and in all.
MEMORY_STALL_S: Final = 10.0
MEMORY_RESIZE_S: Final = 60.0
# Opening a FIFO's ends, dialling containerd.
DIAL_S: Final = 5.0
# One event's delivery, and how long to go on trying with one that containerd refuses.
EVENT_CALL_S: Final = 5.0
EVENT_RETRY_S: Final = 60.0
# The queue of events at Shutdown; containerd waits 3 s for that call (io.containerd.timeout.shim.shutdown).
EVENT_FLUSH_S: Final = 2.0
# Answers under way when the daemon ends.
SERVER_CLOSE_S: Final = 1.0
# What spans of its last calls are not with the collector when all else of a shim has ended; nobody but containerd's
# `delete` waits for that.
TRACES_FLUSH_S: Final = 2.0
# The anchor process: a fork, and its namespaces.
ANCHOR_S: Final = 10.0
# From SIGKILL to its end.
ANCHOR_KILL_S: Final = 5.0
# A logger says that it is ready; nerdctl's, under load, takes seconds.
LOGGER_READY_S: Final = 30.0
# From the end of its streams to its own; from SIGTERM to that, as containerd's shim has it; from SIGKILL.
LOGGER_EOF_S: Final = 2.0
LOGGER_TERM_S: Final = 12.0
LOGGER_KILL_S: Final = 5.0
# An OCI hook that has no timeout of its own. (runc waits for ever.)
HOOK_S: Final = 120.0
# `qemubox commit` and containerd: a call that looks up or changes a record; pausing, in which a machine's changes are
# brought to the host; one piece of a blob, and its commit, behind which containerd syncs all of it; containerd makes or
# unpacks a layer; one that was restarted is back, so that a paused container can go on.
CONTAINERD_CALL_S: Final = 30.0
CONTAINERD_PAUSE_S: Final = 900.0
CONTAINERD_WRITE_S: Final = 60.0
CONTAINERD_COMMIT_S: Final = 600.0
CONTAINERD_LAYER_S: Final = 3600.0
CONTAINERD_BACK_S: Final = 60.0
# `qemubox ps`: a shim takes the connection, and says how its task is. It is for the moments when something hangs.
LOOK_S: Final = 1.0
