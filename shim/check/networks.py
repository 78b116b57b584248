"""The CNI network of the configuration: its file, its plugins and the versions that they speak, and what they call.

A plugin's versions are asked of itself, by the command VERSION (CNI SPEC.md, section 2), which changes nothing.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cni import CniError, NetworkList, PluginMissing, document, load
from cni.document import DocumentError, Json
from cni.network import read
from cni.plugin import environment, find
from shim.check import subnets
from shim.check.host import Host
from shim.check.line import Report
from shim.errors import HostError

# Where the CRI, nerdctl and Podman have theirs.
OTHERS: Final = "/etc/cni/net.d"
_SUFFIXES: Final = (".conflist", ".conf", ".json")
_INSTALL: Final = "apt-get install containernetworking-plugins, or name where they are as network.plugin_dirs"


async def look(host: Host, report: Report) -> None:
    """See the module."""
    config = host.config.network
    if config.name == "none":
        report.ok('network.name = "none"', "a container that comes with no network gets none")
        return
    try:
        network = load(host.path(config.conf_dir), config.name)
    except CniError as error:
        mend = error.hint or 'run install.sh, which brings one, or set network.name = "none"'
        report.failure(f"network.name = {config.name!r}", error.message, mend)
        return
    report.ok(f"network {network.name!r}", f"{network.source}: {', '.join(each.type for each in network.plugins)}")
    for kind in dict.fromkeys(_programs(network)):
        await _plugin(host, report, network, kind)
    await _firewall(host, report, network)
    _same_name(host, report, network)
    await subnets.look(host, report, network, _others(host, report, network))


def _programs(network: NetworkList) -> Iterator[str]:
    """Plugins, and those that give addresses."""
    for plugin in network.plugins:
        yield plugin.type
        ipam = plugin.conf.get("ipam")
        delegate = ipam.get("type") if isinstance(ipam, dict) else None
        if isinstance(delegate, str) and delegate:
            yield delegate


async def _plugin(host: Host, report: Report, network: NetworkList, kind: str) -> None:
    directories = [host.path(name) for name in host.config.network.plugin_dirs]
    what = f"plugin {kind}"
    try:
        program = find(network, kind, "VERSION", directories)
    except PluginMissing as error:
        report.failure(what, f"{error.message}: no container has a network", _INSTALL)
        return
    request = document.dumps({"cniVersion": network.cni_version})
    try:
        said = await host.run([str(program)], stdin=request, environ=_asking(directories))
        versions = document.texts(document.load_object(said.out.encode()), "supportedVersions")
    except HostError as error:
        report.failure(what, error.message, _INSTALL)
        return
    except DocumentError as error:
        report.failure(what, f"{program} does not tell its versions: {error}; it says {said.last!r}", _INSTALL)
        return
    if network.cni_version in versions:
        report.ok(what, f"{program}, CNI up to {versions[-1]}")
    else:
        report.failure(
            what,
            f"{program} speaks CNI {', '.join(versions) or 'of no version'}, and {network.source} is of "
            f"{network.cni_version}",
            f"install newer plugins, or give {network.source} a cniVersion that it speaks",
        )


def _asking(directories: list[Path]) -> dict[str, str]:
    wanted = environment("VERSION", None, directories)
    return {key: value for key, value in wanted.items() if key.startswith("CNI_")}


async def _firewall(host: Host, report: Report, network: NetworkList) -> None:
    """What portmap, firewall and the bridge's masquerading call: iptables, unless they are told nftables."""
    callers = [plugin.type for plugin in network.plugins if _calls_iptables(plugin.conf)]
    if not callers:
        return
    programs = ["iptables", *(["ip6tables"] if any(each.version == 6 for each in subnets.ranges(network)) else [])]
    for name in programs:
        program = host.which(name)
        if program is None:
            report.failure(
                name,
                f"no such program, and {', '.join(callers)} want it: no container has a network",
                "apt-get install iptables",
            )
            continue
        said = await host.run([program, "-w", "5", "-t", "nat", "-S"])
        if said.status == 0:
            report.ok(name, f"{program} works, which {', '.join(callers)} call")
        else:
            report.failure(
                name,
                f"{program} -t nat -S fails: {said.last}: no container has a network",
                "modprobe -a nf_tables nft_chain_nat"
                if name == "iptables"
                else f"take the IPv6 range out of {network.source}, or modprobe -a nf_tables nft_chain_nat",
            )


def _calls_iptables(conf: Json) -> bool:
    match conf.get("type"):
        case "bridge" | "ptp":
            return conf.get("ipMasq") is True and conf.get("ipMasqBackend") != "nftables"
        case "portmap":
            return conf.get("backend") != "nftables"
        case "firewall":
            return True
    return False


def _others(host: Host, report: Report, ours: NetworkList) -> list[NetworkList]:
    """All further networks that are configured, here and where other runtimes have theirs."""
    found = []
    for directory in dict.fromkeys((host.config.network.conf_dir, OTHERS)):
        for name in host.names(directory):
            if not name.endswith(_SUFFIXES):
                continue
            path = host.path(directory) / name
            try:
                network = read(path)
            except CniError as error:
                report.warning(
                    str(path), f"{error.message}: whoever has its network cannot use it", "mend or remove it"
                )
                continue
            if network.source != ours.source:
                found.append(network)
    return found


def _same_name(host: Host, report: Report, ours: NetworkList) -> None:
    """In our directory it is an error (cni.load); in another, both would give addresses from one store of leases."""
    directory = host.path(OTHERS)
    if not directory.is_dir() or os.path.realpath(directory) == os.path.realpath(
        host.path(host.config.network.conf_dir)
    ):
        return
    try:
        other = load(directory, ours.name)
    except CniError:
        return
    report.warning(
        f"network {ours.name!r}",
        f"{other.source} has the same name: both take their addresses from one list of leases",
        "give one of them another name",
    )
