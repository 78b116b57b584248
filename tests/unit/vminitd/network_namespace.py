"""A network namespace of a test's own, and what iproute2 says of it."""

import asyncio
import ctypes
import itertools
import json
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from vminitd.spec import Json

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
# What differs from one namespace to the next, or from one moment to the next; and how an address came to be there.
_PASSING = (
    "nodad",
    "noprefixroute",
    "ifindex",
    "link_index",
    "group",
    "tentative",
    "link_netnsid",
    "used",
    "probes",
    "refcnt",
)


class Namespace:
    """A thread in a network namespace that nothing else has: it goes with the thread."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    def run(self, work: Callable[[], T]) -> T:
        """Calls `work` in there."""
        return self._executor.submit(work).result(60)

    def run_async(self, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Runs an event loop with it in there."""
        return self.run(lambda: asyncio.run(work()))

    def ip(self, *commands: str) -> None:
        """Each is a command of ip(8), which may begin with "-6"."""
        for ipv6, group in itertools.groupby(commands, lambda command: command.startswith("-6 ")):
            text = "".join(f"{command.removeprefix('-6 ')}\n" for command in group)
            self._batch(["ip", *(["-6"] if ipv6 else []), "-batch", "-"], text)

    def _batch(self, command: list[str], text: str) -> None:
        self.run(lambda: subprocess.run(command, input=text, text=True, check=True))

    def ask(self, question: str) -> list[Json]:
        """What `ip -j` answers, without what passes."""
        command = ["ip", "-j", "-d", *question.split()]
        answer = self.run(lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found: list[Json] = json.loads(answer or "[]")
        return [lasting(each) for each in found]

    def setting(self, name: str) -> str:
        """A sysctl, by its path below /proc/sys/net."""

        def read() -> str:
            with open(f"/proc/sys/net/{name}") as file:
                return file.read().strip()

        return self.run(read)

    def set(self, name: str, value: str) -> None:
        """Sets a sysctl, by its path below /proc/sys/net."""

        def write() -> None:
            with open(f"/proc/sys/net/{name}", "w") as file:
                file.write(value)

        self.run(write)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A new one, with its loopback up."""
    with ThreadPoolExecutor(1) as executor:
        made = Namespace(executor)
        made.run(_unshare)
        made.ip("link set lo up")
        yield made


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")


def lasting(entry: Json) -> Json:
    """What iproute2 says, without what passes."""
    kept: Json = {}
    for key, value in entry.items():
        if key in _PASSING:
            continue
        if isinstance(value, list):
            kept[key] = [lasting(each) if isinstance(each, dict) else each for each in value]
        else:
            kept[key] = value
    return kept
