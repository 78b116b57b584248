"""What the end-to-end tests stand on: real containerds, in corners of the host where every trace can be told.

    cell.py        a mount namespace with a /run of its own, a network namespace, and all processes started in them
    warden.py      the program that holds the cell open
    netns.py       doing something in another network namespace
    flavours.py    the containerds there are: Debian's and the newest
    containerd.py  one running containerd, and `ctr` for it
    service.py     the warm parent that shims are forked from
    qemubox.py     the shim under test as an installed prefix, and its configuration
    images.py      the images the tests run, made here
    box.py         one runtime on one containerd: run, start, kill, wait, and clean up
    shim.py        a shim by itself, and calls straight to its socket
    machine.py     one virtual machine by shim/vm alone, with an agent of ours in it
    tap.py         a network interface for such a machine
    cni.py         networks of CNI: what their files say, their leases
    attached.py    network namespaces that a test made, connected by CNI, for any runtime's container to join
    echo.py        streams to a container and back, by TCP and UDP
    events.py      what containerd publishes
    terminal.py    a terminal for `ctr`, with the test at the keyboard
    messages.py    what a user should read when something cannot be done
    matrix.py      which tests run on which containerd, and how workers share them out
    firewall.py    the rules of a cell's firewall
    traces.py      what exists on the host because of a container; what was left behind

runc takes the same tests wherever they make sense for both: it is the reference.
"""
