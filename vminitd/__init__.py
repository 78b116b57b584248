"""vminitd: PID 1 of the virtual machine. Carries out what the shim asks by api/guest.proto, and decides nothing else.

The way of a machine:

    __main__   imports, boots, then one event loop until the shim's connection ends, then powers off
    boot       the kernel's file systems, cgroups, sysctls, the loopback interface
    dial       waits for the vsock device, then connects to the host; nothing in the guest listens
    network/   the machine's network, set up while its first container is made
    services/  the ttrpc handlers: Machine, Containers and Network

and of a container, from the bottom:

    libc, uevent, spawn, reaper    system calls, the kernel's events, child processes and their ends
    disks, overlay, rootfs         virtio-blk disks by serial, put together to a root file system
    spec, crun, cgroup, terminal   the specification for crun, crun itself, the container's cgroup and terminals
    volumes                        the share of the host's directories and files
    files                          the small files that the host keeps for it, such as /etc/resolv.conf
    streams, stdio                 a process's input and output, to and from the host
    copies, copying                files of a container, into it and out of it
    forward                        connections from the host to the containers' servers
    state, process, container      states and what each call does to them

One event loop, one thread for everything that has state. Work that may wait for a disk (mounts, sync, removal of
trees) and for the kernel (vCPUs) runs in asyncio.to_thread on values only. Child processes are started with
posix_spawn and reaped in one place (`reaper`), never by asyncio's own subprocess module.

PID 1 must not end: an exception that nobody expects is written to the kernel log and the machine powers off.
"""

__version__ = "0.1.0"
