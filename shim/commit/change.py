"""`--change`: instructions of a Dockerfile that say how the new image is run.

Pure. Those that docker commit knows are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR (and
HEALTHCHECK and ONBUILD, which containerd's clients do not look at: refused). Quotes and backslashes are as in a
Dockerfile, variables are not expanded: there is no build. What each sets is in the OCI image specification, config.md.
"""

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from shim.errors import SpecError

Json = dict[str, object]

_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_PORT_MAX: Final = 65535
_SIGNAL: Final = re.compile(r"\d{1,3}|(SIG)?[A-Z][A-Z0-9+-]*", re.IGNORECASE)
_SHELL: Final = ("/bin/sh", "-c")


def changed(config: Mapping[str, object], changes: Sequence[str]) -> Json:
    """An image's `config` with the instructions carried out, one after the other. Raises SpecError, which names one."""
    result = dict(config)
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        carry_out = _INSTRUCTIONS.get(word.upper())
        if carry_out is None:
            raise SpecError(f"--change {change!r}: no instruction", hint=f"known are {', '.join(_INSTRUCTIONS)}")
        try:
            carry_out(result, rest.strip())
        except ValueError as error:
            raise SpecError(f"--change {change!r}: {error}") from error
    return result


def _command(key: str) -> Callable[[Json, str], None]:
    def carry_out(config: Json, rest: str) -> None:
        """A list in JSON is taken as it is; anything else is for a shell. Of nothing, nothing is left."""
        words = _list(rest)
        config[key] = words if words is not None else [*_SHELL, _said(rest)]
        if key == "Entrypoint":
            config.pop("Cmd", None)  # it was meant for the entry point before (docker build, ENTRYPOINT)

    return carry_out


def _env(config: Json, rest: str) -> None:
    env = [entry for entry in _strings(config.get("Env")) if "=" in entry]
    for name, value in _pairs(rest):
        at = next((index for index, entry in enumerate(env) if entry.partition("=")[0] == name), len(env))
        env[at : at + 1] = [f"{name}={value}"]
    config["Env"] = env


def _label(config: Json, rest: str) -> None:
    config["Labels"] = {**_object(config.get("Labels")), **dict(_pairs(rest))}


def _expose(config: Json, rest: str) -> None:
    ports = _object(config.get("ExposedPorts"))
    for word in _said(rest).split():
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last <= _PORT_MAX:
            raise ValueError(f"{word} is no port: 80, 80/udp, 8000-8010/tcp")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Json, rest: str) -> None:
    paths = _list(rest)
    volumes = _object(config.get("Volumes"))
    for path in shlex.split(_said(rest)) if paths is None else paths:
        volumes[_absolute(path)] = {}
    config["Volumes"] = volumes


def _workdir(config: Json, rest: str) -> None:
    """A relative one is below the one before it."""
    before = config.get("WorkingDir")
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", str(before or ""), _word(rest)))


def _user(config: Json, rest: str) -> None:
    config["User"] = _word(rest)


def _stop_signal(config: Json, rest: str) -> None:
    word = _word(rest)
    if not _SIGNAL.fullmatch(word):
        raise ValueError(f"{word} is no signal: SIGTERM, 15, SIGRTMIN+3")
    config["StopSignal"] = word.upper()


_INSTRUCTIONS: Final[Mapping[str, Callable[[Json, str], None]]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _pairs(rest: str) -> list[tuple[str, str]]:
    """NAME=VALUE words, or the old form: a NAME, and all behind it is the value."""
    words = shlex.split(_said(rest))
    if "=" not in words[0]:
        name, _, value = rest.partition(" ")
        if not value.strip():
            raise ValueError(f"{name} has no value: NAME=VALUE")
        return [(name, value.strip())]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"{word!r} is not NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _list(rest: str) -> list[str] | None:
    """A list of strings in JSON; None if it is no list. What only looks like one is for a shell, as in a Dockerfile."""
    try:
        found = json.loads(rest)
    except ValueError:
        return None
    if isinstance(found, list) and all(isinstance(word, str) for word in found):
        return found
    return None


def _word(rest: str) -> str:
    words = shlex.split(_said(rest))
    if len(words) != 1 or not words[0]:
        raise ValueError("takes exactly one word")
    return words[0]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def _said(rest: str) -> str:
    if not rest:
        raise ValueError("says nothing")
    return rest


def _strings(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _object(value: object) -> Json:
    return dict(value) if isinstance(value, dict) else {}
