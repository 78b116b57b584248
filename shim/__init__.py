"""The host's side of qemubox: everything between containerd and the virtual machine.

Read it in this order to follow one container from `start` to exit:

    entry.py        the shim binary: which of start, delete, -info, -v it is
    start.py        have the shim made, tell containerd where it listens
    warm/           by the service: a process that has imported everything, and forks
    launch.py       what making a shim is: claim, listen, become the daemon
    daemon.py       the daemon: serves the task API until containerd says Shutdown
    annotations.py  what the container may change of the configuration for itself
    prelaunch.py    QEMU under way, as the clone of a template (template/) if there is one, before Create comes
    task/           the task service: containers, their processes, their states, their streams
    hooks/          OCI hooks: what they are, running one, those that `delete` may have to run
    sizing.py       how large a machine is for its container's limits; resizing.py: for other limits, while it runs
    sandbox.py      one virtual machine, furnished for its container, and the connection to vminitd in it
    relay.py        streams between the guest and what is at their host's end
    rootfs/         snapshotter mounts become disks
    copy/           `qemubox cp`: files of a container, on their way to the command and back
    network/        a network namespace, CNI, and what leads from there into the machine
    vm/             QEMU: the machine as a value, its devices, vsock, the process
    tracing/        spans of all that, for OpenTelemetry, where the environment asks for them
    journal.py      what exists on the host because of this container, written before it is made
    delete.py       what containerd runs when a shim is gone: plays the journal backwards
    commit/         the command that makes an image of a container; containerd/: the client that it needs
    gc.py           what an administrator runs when nobody did: after a loss of power
    cli/            the administrator's command; admin.py: what it asks of a shim beside copies (copy/)

One asyncio loop per daemon. Everything runs on it except file work that may block
(layer conversion, sparse copies), which goes to a thread. QEMU and all helpers are
started from the main thread, because they ask the kernel to die with the thread that
started them (prctl(2), PR_SET_PDEATHSIG).
"""
