"""Kernel settings that CNI's tuning plugin makes in the namespace: the guest's kernel is another, and has to be told.

Pure. https://www.cni.dev/plugins/current/meta/tuning/
"""

from cni import NetworkList

_PLUGIN = "tuning"
_INTERFACE = "IFNAME"


def sysctls(network: NetworkList, interface: str) -> dict[str, str]:
    """What the plugins of `network` set for a container whose interface is called so: values by their dotted names."""
    found: dict[str, str] = {}
    for plugin in network.plugins:
        settings = plugin.conf.get("sysctl")
        if plugin.type == _PLUGIN and isinstance(settings, dict):
            # As the plugin does: dots and slashes are the same to it, and the interface's name is put in.
            found |= {
                name.replace("/", ".").replace(_INTERFACE, interface): str(value) for name, value in settings.items()
            }
    return found
