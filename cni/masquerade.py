"""What bridge and ptp leave of masquerading when one of their DELs comes a second time, or after half an ADD.

They take out the rules of each address of the container's interface, one after the other. Those of Debian 12 (1.1.1)
stop with an error at the first that has none (pkg/ip, TeardownIPMasq): a rule to be removed names its chain, and of one
that is gone iptables says neither of the two things that they take for good news. So after a kill in the middle DEL
would fail for ever, and the rules of the addresses behind that one would stay. Each address has to have a DEL of its
own. 1.10.0 does so itself.
"""

import os
import re

from cni import document, process
from cni.document import DocumentError
from cni.errors import CniError, PluginError

# iptables 1.8 upon nf_tables, and the legacy one.
_GONE = re.compile(r"tables .* -D POSTROUTING .*(Chain '\S+' does not exist|Couldn't load target)")
_STDOUT_MAX = 1 << 20
_STDERR_MAX = 4096


def is_gone(error: PluginError) -> bool:
    """Whether all that the plugin could not do was to remove a rule whose chain is not there."""
    return bool(_GONE.search(error.msg))


async def addresses(netns: str, ifname: str, *, timeout_s: float) -> list[str]:
    """The addresses of an interface in a network namespace, with their prefixes; none where either is gone.

    Raises CniError.
    """
    try:
        ended = await process.run(
            ["nsenter", f"--net={netns}", "ip", "-json", "address", "show", "dev", ifname, "scope", "global"],
            environ=os.environ,
            stdin=b"",
            timeout_s=timeout_s,
            stdout_max=_STDOUT_MAX,
            stderr_max=_STDERR_MAX,
        )
        if ended.status != 0:
            return []
        found = document.loads(ended.stdout)
    except OSError as error:
        raise CniError(f"the addresses of {ifname!r} cannot be read: nsenter: {error.strerror}") from error
    except DocumentError as error:
        raise CniError(f"the addresses of {ifname!r} cannot be read: {error}") from error
    links = found if isinstance(found, list) else []
    return [
        f"{address['local']}/{address['prefixlen']}"
        for link in links
        if isinstance(link, dict)
        for address in document.objects(link, "addr_info")
        if "local" in address and "prefixlen" in address
    ]
