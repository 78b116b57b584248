"""`qemubox check`: whether this host can run containers in machines, by trying it, and what to do where it cannot.

    line           one finding: ok, warning or failure; what was looked at, what was found, what mends it
    host           what the areas look at and by: files, programs with a deadline, the configuration
    scratch        a directory and a network namespace that leave nothing behind, whatever ends us
    runner         the areas, one after the other; each with its deadline, and none stops the others
    command        the command line: text or JSON, and the exit status

    configuration  /etc/qemubox/config.toml, every error of it
    rights         root, the unprivileged user, the processor's kind
    kernel         the host's kernel: version, modules, limits; module: whether it has, or can have, a module
    surroundings   control groups, security modules, clock, memory
    space          the three directories: room, and what their file systems can do
    qemu           version and devices
    guest          the guest's kernel and image
    accelerator    KVM or TCG, by booting; vsock: the way to the guest
    frames         TUN, tc and BPF, in a network namespace of our own
    networks       the CNI network of the configuration, its plugins; subnets: who else has its addresses
    programs       mkfs.erofs, mkfs.ext4, virtiofsd
    templates      whether there is one that fits
    service        the warm parent; units: systemd's
    containerd     those that run, and whether they find our shim; criconfig: their configuration; docker: docker's

It changes nothing, and needs neither a configuration nor a containerd. The command line imports only `command`.
"""
