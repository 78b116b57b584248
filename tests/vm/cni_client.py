"""Has CNI attach a container, or detach it: a program of its own, as the plugins are to run in the cell.

    cni_client.py CONF_DIR DIRECTORY add|del NETWORK CONTAINER INTERFACE NETNS [CAPABILITIES]
    cni_client.py CONF_DIR DIRECTORY hook-add|hook-del NETWORK INTERFACE

`add` prints the container's addresses. CAPABILITIES is JSON. The second form is an OCI hook, as nerdctl's: it is told
of the container on standard input, and its network namespace is that of the container's pid.
"""

import asyncio
import json
import sys
from pathlib import Path

from cni import Attachment, Cni, NetworkList, load


def main() -> None:
    conf_dir, directory, command, name, *more = sys.argv[1:]
    network = load(Path(conf_dir), name)
    cni = Cni(
        plugin_dirs=(Path("/opt/cni/bin"), Path("/usr/lib/cni")),
        cache_dir=Path("/var/lib/cni"),
        lock=Path(directory) / "cni.lock",
        timeout_s=30,
    )
    if command.startswith("hook-"):
        state = json.load(sys.stdin)
        # When poststop hooks run there is no pid any more: DEL goes without a namespace.
        netns = f"/proc/{state['pid']}/ns/net" if state.get("pid") else ""
        attachment = Attachment(f"default-{state['id']}", netns, more[0])
    else:
        container, ifname, netns, *capabilities = more
        attachment = Attachment(container, netns, ifname, capabilities=json.loads((capabilities or ["{}"])[0]))
    asyncio.run(_do(cni, network, attachment, adding=command.endswith("add")))


async def _do(cni: Cni, network: NetworkList, attachment: Attachment, *, adding: bool) -> None:
    if adding:
        result = await cni.add(network, attachment)
        print(*(address.address.ip for address in result.ips))
    else:
        await cni.delete(network, attachment)


if __name__ == "__main__":
    main()
