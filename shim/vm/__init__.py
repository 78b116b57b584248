"""The virtual machine of a container: QEMU, its devices, and the way to talk into it.

Read in this order:

    machine.py       what a machine is: a value, and QEMU's argument list made from it
    devices.py       what a machine can be given while it is paused, and the QMP commands for it
    vmdk.py          many files as one disk, without copying
    slots.py         where a device can be plugged in
    process.py       a program run as the unprivileged user, that dies with us
    console.py       what the guest prints, kept in a file of bounded size
    qmp.py           QEMU's control connection
    acceptor.py      connections that the guest opens, told apart by their first 16 bytes
    vsock.py         how these connections come about: the interface
    vsock_kernel.py, vsock_user.py   its two implementations
    ports.py         virtio-serial ports, which take the place of all that where a machine has them
    link.py          either of them: one machine's way to its guest
    drives.py        the drives that a machine has from its start, for disks to be put into
    hotplug.py       devices.py carried out
    capacity.py      memory that the running guest takes or gives back
    migration.py     a paused machine's state, saved and loaded
    qemu.py          QEMU's process with all that it inherits
    states.py        the states of a machine and why one ends
    timeline.py      when what was reached
    vm.py            VirtualMachine, which puts all of it together
    accel.py         whether KVM really works here

Everything runs on the one asyncio loop of the process, in its main thread: QEMU is told
to die with the thread that started it (PR_SET_PDEATHSIG, prctl(2)), so no other may.
Nothing here reads the configuration; values come in as parameters.
"""
