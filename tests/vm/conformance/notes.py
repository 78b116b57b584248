"""What the table's states are, and why qemubox answers otherwise where it does."""

from typing import Final

HEADER: Final = """\
# Conformance

What runc's shim answers to each call in each state, and what qemubox's does. Each line is a test, of
`tests/vm/test_conformance.py`: at every change qemubox is asked on containerd 2.3.4 and runc's shim on 1.6.20, before a
release both on both. This file is made from the values that those tests compare with, by `task table`.

The calls go to the shim's own socket. OK is followed by all that the answer says, an error by what its message
contains; C is the container's id. An arrow leads to the state after the call, if it is another; events are in brackets,
a question mark behind those that may come. `waits`: the call is answered when the process ends. `connection closed`:
the shim is gone. No line takes longer than 30 s, most take milliseconds.

Refusals differ in their words, and in their code: what runc's shim calls UNKNOWN has the code here that gRPC has for
it. Other differences have a letter, explained at the end.
"""

STATES: Final = {
    "created": "After Create. There is no other process yet.",
    "running": "After Start. Of two further processes e runs, and a is registered only; all of them are on terminals.",
    "paused": "After Pause; e and a as before.",
    "stopped": "After the end of the first process, by SIGKILL; e has ended with it, a was never started.",
    "deleted": "After Delete.",
    "VM dead": "QEMU was killed by SIGKILL while the container ran. With runc there is no such thing.",
    "containerd gone": "containerd was killed by SIGKILL while the container ran. Events are told when there is one "
    "again (tests/vm/test_restarts.py).",
    "exec unknown": "The container runs. It has no process x.",
    "exec added": "x is registered.",
    "exec running": "x runs.",
    "exec stopped": "x has ended, by SIGKILL.",
    "exec of no program": "x is registered; its program does not exist.",
    "exec failed": "x could not be started, as its program does not exist.",
    "exec without terminal": "x runs, without a terminal.",
    "exec before the start": "x is registered; the container is created.",
    "exec in a pause": "The container is paused. The process is a, which is registered only.",
}

NOTES: Final = {
    "a": "runc finds it out last, and its bundle loses the root file system by that. Here nothing is touched.",
    "b": "There is nothing whose size could be set. runc's shim calls that success.",
    "c": "Not there ([limitations](limitations.md)). runc needs criu for it, which the tests' host has not.",
    "d": "runc's shim answers before it knows how it has ended.",
    "e": "The guest's cgroups are of version 2, runc's of the host's version.",
    "f": "The shim ends when it has no container; until then Shutdown is answered, and has no effect.",
    "g": "A frozen process dies of SIGKILL at once where cgroups are of version 2, else when it is thawed.",
    "h": "Its terminal is there until Delete, and takes a size until then.",
    "i": "containerd, when it restarts, takes a container without processes for a leak and removes it.",
    "k": "runc's shim has it as created, and yet answers Wait. Here it has ended, with the status that a shell gives.",
    "l": "runc's shim dies of it, in both versions.",
}
