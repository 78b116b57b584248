"""What there is on a host: files, units, users, links of the network, namespaces, mounts, processes.

Taken before the installation and after the removal, the two must be the same but for what the documentation says stays,
and what a host that lives writes by itself.
"""

import re
from typing import Final

from tests.kvm.harness.machine import Machine

# What changes on any host in ten minutes: the journal, what containerd keeps of images and of itself, caches of the
# dynamic loader and of dpkg, and lock files of the users' files, which useradd and userdel make.
ALIVE: Final = (
    r"file /var/log/.*",
    r"file /var/lib/containerd(/.*)?",
    r"file /run/containerd(/.*)?",
    r"file /run/(systemd|udev|log|sshd|user|lock|initctl|motd|utmp|credentials|mount|blkid|dmeventd.*|ssh.*)(/.*)?",
    r"file /run/[^/]*\.pid",
    r"file /etc/(passwd|group|shadow|gshadow|subuid|subgid)-",
    r"file /etc/\.pwd\.lock",
    r"file /var/(lib/systemd|tmp|cache/ldconfig)(/.*)?",
    r"file /etc/\.updated",
    r"process (sshd.*|sh|sed|cat|awk|find|cut|\(udev-worker\)|\(sd-.*\)|kvm-.*|vhost-.*)",
)
# docs/install.md: images and writable layers are the user's until --purge. The directory of network namespaces is as
# iproute2 makes it, a mount shared with whoever else has some; a host that CNI has made a router stays one, and has the
# subnet routers' anycast addresses (docs/limitations.md).
STAYS: Final = (r"file /var/lib/qemubox(/.*)?", r"(file|mount) /run/netns", r"route anycast fe80:: dev eth0 .*")

_SCRIPT: Final = r"""
set -eu
for place in /etc /usr /var /run /root /opt /srv /tmp; do find "$place" -xdev -printf '%p\n'; done | sed 's/^/file /'
systemctl list-unit-files --plain --no-legend | awk '{ print "unit " $1 " " $2 }'
systemctl list-units --all --plain --no-legend '*qemubox*' | awk '{ print "loaded " $1 " " $3 }'
cut -d : -f 1,3,4,6,7 /etc/passwd | sed 's/^/user /'
cut -d : -f 1,3 /etc/group | sed 's/^/group /'
ip -o link show | awk -F ': ' '{ print "link " $2 }'
ip rule show | sed 's/^/rule /'
ip route show table all | sed 's/^/route /'
ip netns list | sed 's/^/netns /'
awk '{ print "mount " $5 }' /proc/self/mountinfo
# The kernel's own threads, children of process 2, come and go. What is listed may have ended by the time it is read.
{ cat /proc/[0-9]*/stat 2>/dev/null || true; } | sed -nE 's/^[0-9]+ \((.*)\) [A-Za-z] ([0-9]+) .*/\2 \1/p' |
    sed -n '/^2 /d; s/^[0-9]* /process /p'
"""
_DEADLINE_S: Final = 180.0


def take(machine: Machine) -> frozenset[str]:
    """A line for each thing that is there now, without what a living host changes by itself."""
    alive = re.compile("|".join(ALIVE))
    lines = machine.output(_SCRIPT, _DEADLINE_S).splitlines()
    return frozenset(line for line in lines if not alive.fullmatch(line))


def differences(before: frozenset[str], after: frozenset[str]) -> list[str]:
    """What is new and not to stay, as "+ line", and what is gone, as "- line"."""
    stays = re.compile("|".join(STAYS))
    new = sorted(f"+ {line}" for line in after - before if not stays.fullmatch(line))
    return new + sorted(f"- {line}" for line in before - after)
