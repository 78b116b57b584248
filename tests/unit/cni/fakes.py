"""Plugins that are shell scripts: they note how they were called, and do as the test says."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cni import Attachment, Cni, NetworkList, parse
from cni.document import Json, load_object

# Notes its call, which gets the next number; then does what the test has it do. `$previous` says whether it was told
# what there is already.
_SCRIPT = """#!/bin/sh
request=$(cat)
calls={calls}
n=0
until mkdir "$calls/$n" 2>/dev/null; do n=$((n + 1)); done
printf '%s' "$request" >"$calls/$n/request"
env >"$calls/$n/environ"
printf '%s' {name} >"$calls/$n/plugin"
{body}
"""


@dataclass(frozen=True)
class Call:
    """One call of a fake plugin."""

    plugin: str
    environ: Mapping[str, str]
    request: Json

    @property
    def command(self) -> str:
        """ADD, DEL …"""
        return self.environ["CNI_COMMAND"]


class Fakes:
    """A directory of plugins, a cache, a lock, and what of them a Cni needs."""

    def __init__(self, directory: Path, netns: str) -> None:
        self.netns = netns
        self.plugin_dir = directory / "bin"
        self.cache_dir = directory / "cache"
        self.lock = directory / "run" / "cni.lock"
        self._calls = directory / "calls"
        self.plugin_dir.mkdir()
        self._calls.mkdir()

    def plugin(self, name: str, body: str = "", **results: Json) -> Path:
        """Make a plugin: `body` is run after it has noted its call; then it prints its `add` result on ADD."""
        answer = f"cat <<'END'\n{json.dumps(results['add'])}\nEND" if "add" in results else ""
        path = self.plugin_dir / name
        path.write_text(
            _SCRIPT.format(calls=self._calls, name=name, body=f"{body}\n[ $CNI_COMMAND != ADD ] || {{ :\n{answer}\n}}")
        )
        path.chmod(0o755)
        return path

    def foreign(self, name: str, text: str, mode: int = 0o755) -> Path:
        """Make a program that is no plugin of ours."""
        path = self.plugin_dir / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def calls(self) -> list[Call]:
        """What was called, in its order."""
        numbers = sorted(int(name) for name in os.listdir(self._calls))
        return [self._call(self._calls / str(number)) for number in numbers]

    def said(self) -> list[str]:
        """The calls, each as `COMMAND plugin`."""
        return [f"{call.command} {call.plugin}" for call in self.calls()]

    def cni(self, *, timeout_s: float = 20.0, on_spawn: Callable[[int], None] = lambda _: None) -> Cni:
        """What is tested."""
        return Cni(
            plugin_dirs=[self.plugin_dir],
            cache_dir=self.cache_dir,
            lock=self.lock,
            timeout_s=timeout_s,
            on_spawn=on_spawn,
        )

    def attachment(self, container_id: str = "c1", ifname: str = "eth0") -> Attachment:
        """A container in the namespace that there is for the tests."""
        return Attachment(container_id, self.netns, ifname)

    def entries(self) -> list[str]:
        """The names of the cache's files."""
        results = self.cache_dir / "results"
        return sorted(os.listdir(results)) if results.exists() else []

    def _call(self, directory: Path) -> Call:
        environ = dict(line.split("=", 1) for line in (directory / "environ").read_text().splitlines() if "=" in line)
        return Call((directory / "plugin").read_text(), environ, load_object((directory / "request").read_bytes()))


class Sign:
    """A named pipe: a script gives the sign by `echo WORD >PATH`, and waits for one by `read word <PATH`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    async def given(self) -> str:
        """The word, once it has been given."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        loop.add_reader(fd, ready.set)
        try:
            async with asyncio.timeout(20):
                await ready.wait()
            return os.read(fd, 4096).decode().strip()
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def give(self) -> None:
        """To the script that waits for it already."""
        fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"go on\n")
        os.close(fd)


def network(*plugins: str | Json, version: str = "1.0.0", name: str = "testnet", **more: object) -> NetworkList:
    """A network of plugins, by their names or configurations."""
    confs = [{"type": item} if isinstance(item, str) else item for item in plugins]
    return parse(
        json.dumps({"cniVersion": version, "name": name, "plugins": confs} | more).encode(), "/net.d/test.conflist"
    )


def made(address: str = "10.9.0.2/24", version: str = "1.0.0") -> Json:
    """A result with one interface and its address."""
    ip: Json = {"address": address, "interface": 0}
    if version < "1":
        ip["version"] = "4"
    return {"cniVersion": version, "interfaces": [{"name": "eth0", "sandbox": "/somewhere"}], "ips": [ip]}


def error(code: int, msg: str, details: str = "") -> str:
    """The body of a plugin that fails with an error object."""
    told = json.dumps({"cniVersion": "1.0.0", "code": code, "msg": msg, "details": details})
    return f"echo '{told}'; exit 1"


def on(command: str, body: str) -> str:
    """The body of a plugin that does something on one command only."""
    return f"if [ $CNI_COMMAND = {command} ]; then {body}; fi"
