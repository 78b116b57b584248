"""One plugin, called once: what it is given, and what its end and its output mean. SPEC.md, sections 2 and 3."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cni import document, process
from cni.attachment import Attachment
from cni.document import DocumentError, Json, JsonValue
from cni.errors import PluginEnded, PluginError, PluginGarbage, PluginMissing, PluginTimeout
from cni.network import NetworkList, Plugin
from cni.process import CannotExecute, Ended
from cni.result import Result, parse

# A result has a few KiB.
_STDOUT_MAX = 1 << 20
_STDERR_MAX = 4096
# How much of a plugin's words gets into a message.
_WORDS_MAX = 1000


@dataclass(frozen=True)
class Call:
    """A command for one plugin of a network. `attachment` is None for GC and STATUS."""

    network: NetworkList
    plugin: Plugin
    command: str
    attachment: Attachment | None
    request: bytes

    async def run(
        self,
        plugin_dirs: Sequence[Path],
        *,
        timeout_s: float,
        inherited: Sequence[int],
        on_spawn: Callable[[int], None],
    ) -> bytes:
        """Its output, when it has succeeded. Raises one of the PluginFailures."""
        program = find(self.network, self.plugin.type, self.command, plugin_dirs)
        try:
            ended = await process.run(
                [str(program)],
                environ=environment(self.command, self.attachment, plugin_dirs),
                stdin=self.request,
                timeout_s=timeout_s,
                stdout_max=_STDOUT_MAX,
                stderr_max=_STDERR_MAX,
                inherited=inherited,
                on_spawn=on_spawn,
            )
        except CannotExecute as error:
            raise PluginMissing(*self._named, f"cannot be executed: {program}: {error}") from error
        self._raise_if_failed(ended, timeout_s)
        return ended.stdout

    def result(self, output: bytes) -> Result:
        """What the output of an ADD says. Raises PluginGarbage, or PluginError for an error told with success."""
        if not output.strip():
            raise PluginGarbage(*self._named, "printed nothing where its result should be")
        try:
            value = document.loads(output)
            found: Json = {} if value is None else document.load_object(output)  # null is no result, and libcni's way
            self._raise_if_error(found)
            return parse(found, self.network.cni_version)
        except DocumentError as error:
            raise PluginGarbage(
                *self._named, f"printed what is no CNI result: {error}; it printed {_words(output)}"
            ) from error

    @property
    def _named(self) -> tuple[str, str, str, str]:
        return self.plugin.type, self.network.name, self.network.source, self.command

    def _raise_if_failed(self, ended: Ended, timeout_s: float) -> None:
        said = _words(ended.stderr)
        if ended.overdue:
            raise PluginTimeout(*self._named, f"did not end within {timeout_s:g} s and was killed{_after(said)}")
        if ended.excessive:
            raise PluginGarbage(*self._named, f"wrote more than {_STDOUT_MAX} bytes and was killed{_after(said)}")
        if ended.status < 0:
            raise PluginEnded(*self._named, f"was killed by {_signal_name(-ended.status)}{_after(said)}")
        if ended.status == 0:
            return
        try:
            self._raise_if_error(document.load_object(ended.stdout))
        except DocumentError:
            said = _words(ended.stdout) or said
        raise PluginEnded(
            *self._named, f"ended with exit status {ended.status} and no error object{_after(said) or ': no message'}"
        )

    def _raise_if_error(self, found: Json) -> None:
        """An object with a code or a message is an error, whatever the exit status was."""
        code, msg = found.get("code", 0), found.get("msg", "")
        if not (code or msg):
            return
        if not isinstance(code, int) or not isinstance(msg, str):
            raise DocumentError("its code and msg are no number and text")
        details = found.get("details")
        raise PluginError(
            *self._named, code=code, msg=_line(msg), details=_line(details) if isinstance(details, str) else ""
        )


def find(network: NetworkList, kind: str, command: str, plugin_dirs: Sequence[Path]) -> Path:
    """The first regular file of a plugin's name, as libcni looks for it. Raises PluginMissing."""
    program = next((path for path in (directory / kind for directory in plugin_dirs) if path.is_file()), None)
    if program is None:
        where = ", ".join(str(path) for path in plugin_dirs) or "no directory at all"
        problem, hint = f"is not in {where}", "install it (containernetworking-plugins)"
        raise PluginMissing(kind, network.name, network.source, command, problem, hint=hint)
    return program


def require(network: NetworkList, command: str, plugin_dirs: Sequence[Path]) -> None:
    """Raise PluginMissing for the first program of a network that is not there: plugins, and those that give addresses.

    Without one of them neither ADD nor the DEL that undoes it can come to an end.
    """
    for item in network.plugins:
        ipam = item.conf.get("ipam")
        delegate = ipam.get("type") if isinstance(ipam, dict) else None
        for kind in (item.type, delegate):
            if isinstance(kind, str) and kind:
                program = find(network, kind, command, plugin_dirs)
                if not os.access(program, os.X_OK):
                    problem = f"cannot be executed: {program}: {os.strerror(errno.EACCES)}"
                    raise PluginMissing(kind, network.name, network.source, command, problem)


def environment(command: str, attachment: Attachment | None, plugin_dirs: Sequence[Path]) -> dict[str, str]:
    """Ours, as libcni has it (PATH is where plugins find iptables), with the parameters of the protocol."""
    args = attachment.args if attachment else ()
    return dict(os.environ) | {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": attachment.container_id if attachment else "",
        "CNI_NETNS": attachment.netns if attachment else "",
        "CNI_IFNAME": attachment.ifname if attachment else "",
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in args),
        "CNI_PATH": os.pathsep.join(str(path) for path in plugin_dirs),
    }


def request(
    network: NetworkList, plugin: Plugin, *, previous: Result | None, capabilities: Mapping[str, JsonValue]
) -> bytes:
    """A plugin's configuration as it is given to it, for ADD, CHECK and DEL.

    `capabilities` stays in it although the specification has it away: libcni leaves it, and multus goes by it.
    """
    conf: Json = plugin.conf | {"name": network.name, "cniVersion": network.cni_version}
    if previous is not None:
        conf["prevResult"] = previous.document(network.cni_version)
    told: Json = {name: value for name, value in capabilities.items() if name in plugin.capabilities}
    if told:
        conf["runtimeConfig"] = told
    return document.dumps(conf)


def network_request(network: NetworkList, plugin: Plugin, added: Mapping[str, JsonValue]) -> bytes:
    """A plugin's configuration as it is given to it for GC and STATUS."""
    return document.dumps(plugin.conf | {"name": network.name, "cniVersion": network.cni_version} | dict(added))


def _line(words: str) -> str:
    """On one line and not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return line if len(line) <= _WORDS_MAX else f"{line[:_WORDS_MAX]}…"


def _words(output: bytes) -> str:
    return _line(output[: 4 * _WORDS_MAX].decode(errors="replace"))


def _after(said: str) -> str:
    return f": {said}" if said else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
