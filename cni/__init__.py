"""CNI, the Container Network Interface: runs network plugins as libcni does, over asyncio subprocesses.

A library that knows nothing of qemubox, and needs nothing but the standard library. Versions 0.3.1 to 1.1.0 of
https://github.com/containernetworking/cni/blob/main/SPEC.md

    errors      the tree of what can go wrong
    document    JSON, strictly                              pure
    names       what ids and interfaces may be called       pure
    result      what an ADD has made, in all versions       pure
    network     configurations, and the one of a name
    attachment  a container's place in a network            pure
    namespace   whether a path is a network namespace
    process     one program with its deadline
    standin     an interface in place of one that is gone
    masquerade  what a DEL that comes twice leaves
    plugin      one plugin, called once
    cache       what ADD has made, as libcni keeps it
    lock        one chain at a time on a host
    chain       the plugins of a network, one after the other
    runtime     Cni: add, check, delete, gc, status

One event loop; whoever has no loop runs one for it (`asyncio.run`). Names are imported when they are first asked for,
so that catching an error costs nothing.
"""

import sys

from cni.errors import (
    ArgumentError,
    CacheError,
    CniError,
    ConfigError,
    LockTimeout,
    NetworkNotFound,
    PluginEnded,
    PluginError,
    PluginFailure,
    PluginGarbage,
    PluginMissing,
    PluginTimeout,
    UnsupportedError,
)

# The name is what type checkers look for; importing it from `typing` would cost the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.attachment import Attachment, CachedAttachment
    from cni.network import NetworkList, load, parse
    from cni.result import Address, Dns, Interface, Result, Route
    from cni.runtime import Cni

__all__ = [
    "Address",
    "ArgumentError",
    "Attachment",
    "CacheError",
    "CachedAttachment",
    "Cni",
    "CniError",
    "ConfigError",
    "Dns",
    "Interface",
    "LockTimeout",
    "NetworkList",
    "NetworkNotFound",
    "PluginEnded",
    "PluginError",
    "PluginFailure",
    "PluginGarbage",
    "PluginMissing",
    "PluginTimeout",
    "Result",
    "Route",
    "UnsupportedError",
    "load",
    "parse",
]

_HOME = {
    "Address": "cni.result",
    "Attachment": "cni.attachment",
    "CachedAttachment": "cni.attachment",
    "Cni": "cni.runtime",
    "Dns": "cni.result",
    "Interface": "cni.result",
    "NetworkList": "cni.network",
    "Result": "cni.result",
    "Route": "cni.result",
    "load": "cni.network",
    "parse": "cni.network",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'cni' has no attribute {name!r}")
    __import__(home)  # what importlib.import_module does, without loading importlib
    value: object = getattr(sys.modules[home], name)
    globals()[name] = value
    return value
