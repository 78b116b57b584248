"""Annotations `io.qemubox.*`: what one container asks for in place of the configuration's values.

Whoever may create a container may set its annotations, so they count for nothing unless the host's
owner lists them in `annotations.allow`, and take nothing that the configuration does not give: no
path, no program, no more of anything, no less isolation. docs/annotations.md has them all.

QEMU is started before Create (shim/prelaunch.py), so they are read from the bundle as soon as the
daemon runs; what is wrong with them is told by Create, which looks at them once more.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from shim.config import Config
from shim.errors import SpecError
from shim.host import bounds as bounds_of
from shim.sizing import Bounds
from shim.spec import Json, section

PREFIX: Final = "io.qemubox."
# From the one that shares most with other containers to the one that shares nothing.
_TEMPLATE_MODES: Final = ("auto", "per-namespace", "off")
# No number that is allowed has more digits, and int() takes quadratic time.
_DIGITS: Final = 10


class Number(NamedTuple):
    """A whole number from `low` to what `most` says, which `whose` explains; `put` puts it into the configuration."""

    low: int
    most: Callable[[Config, Bounds], int]
    whose: str
    put: Callable[[Config, int], Config]

    def apply(self, config: Config, bounds: Bounds, value: str) -> Config:
        """The configuration with `value`. Raises ValueError, which says what is allowed."""
        most = self.most(config, bounds)
        if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS and self.low <= int(value) <= most):
            raise ValueError(f"must be a whole number from {self.low} to {most}, {self.whose}")
        return self.put(config, int(value))


class Choice(NamedTuple):
    """One of what `choices` says, which `whose` explains."""

    choices: Callable[[Config], tuple[str, ...]]
    whose: str
    put: Callable[[Config, str], Config]

    def apply(self, config: Config, _bounds: Bounds, value: str) -> Config:
        """The configuration with `value`. Raises ValueError, which says what is allowed."""
        choices = self.choices(config)
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}: {self.whose}")
        return self.put(config, value)


class Pattern(NamedTuple):
    """What `expression` matches whole, which `whose` explains."""

    expression: re.Pattern[str]
    whose: str
    put: Callable[[Config, str], Config]

    def apply(self, config: Config, _bounds: Bounds, value: str) -> Config:
        """The configuration with `value`. Raises ValueError, which says what is allowed."""
        if not self.expression.fullmatch(value):
            raise ValueError(f"must be {self.whose}")
        return self.put(config, value)


def _accelerators(config: Config) -> tuple[str, ...]:
    """Where the owner leaves it open there is a choice."""
    if config.vm.accel != "auto":
        return (config.vm.accel,)
    return ("auto", "kvm", "tcg") if config.vm.allow_tcg else ("auto", "kvm")


RULES: Final[Mapping[str, Number | Choice | Pattern]] = {
    "vm.cpus": Number(
        1,
        lambda _config, bounds: min(bounds.max_cpus, 64),
        "what vm.max_cpus or the host gives",
        lambda config, value: config._replace(vm=config.vm._replace(default_cpus=value)),
    ),
    "vm.memory_mib": Number(
        64,
        lambda _config, bounds: bounds.max_memory_mib,
        "what vm.max_memory_mib or the host gives",
        lambda config, value: config._replace(vm=config.vm._replace(default_memory_mib=value)),
    ),
    "vm.accel": Choice(
        _accelerators,
        "vm.accel and vm.allow_tcg say so",
        lambda config, value: config._replace(vm=config.vm._replace(accel=value)),  # type: ignore[arg-type]
    ),
    "vm.console_kib": Number(
        16,
        lambda config, _bounds: config.vm.console_kib,
        "which is vm.console_kib",
        lambda config, value: config._replace(vm=config.vm._replace(console_kib=value)),
    ),
    "rootfs.writable_mib": Number(
        16,
        lambda config, _bounds: config.rootfs.writable_mib,
        "which is rootfs.writable_mib",
        lambda config, value: config._replace(rootfs=config.rootfs._replace(writable_mib=value)),
    ),
    "network.name": Pattern(
        # CNI's own rule for names (containernetworking/cni, pkg/utils): no path can be made of one.
        re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"),
        'the name of a network of network.conf_dir, or "none"',
        lambda config, value: config._replace(network=config.network._replace(name=value)),
    ),
    "template.mode": Choice(
        lambda config: _TEMPLATE_MODES[_TEMPLATE_MODES.index(config.template.mode) :],
        "a container may share less with others than template.mode says, not more",
        lambda config, value: config._replace(template=config.template._replace(mode=value)),  # type: ignore[arg-type]
    ),
}


class Wishes(NamedTuple):
    """What a container asked for as its shim began. `config` has it; `refused` says that it cannot be had."""

    config: Config
    refused: bool
    owner: Config

    def check(self, document: Json) -> None:
        """Raise SpecError where the specification asks for what is not allowed, or for other things than at first."""
        if effective(self.owner, ours(document), bounds_of(self.owner)) != self.config:
            raise SpecError(
                f"the annotations {PREFIX}* of config.json are not those that were there when the shim started",
                hint="create the container anew",
            )


def read(config: Config, bundle: Path) -> Wishes:
    """What the container of this bundle asks for. Never an error: Create tells of what is wrong."""
    try:
        asked = _read(bundle / "config.json")
    except (OSError, ValueError, SpecError):  # Create reads it, too
        return Wishes(config, refused=False, owner=config)
    if not asked:
        return Wishes(config, refused=False, owner=config)
    try:
        return Wishes(effective(config, asked, bounds_of(config)), refused=False, owner=config)
    except SpecError:
        return Wishes(config, refused=True, owner=config)


def ours(document: Json) -> dict[str, object]:
    """The annotations of a specification that are meant for us."""
    annotations = section(document, "annotations")
    return {name: value for name, value in annotations.items() if name.startswith(PREFIX)}


def effective(config: Config, asked: Mapping[str, object], bounds: Bounds) -> Config:
    """The configuration of a container that asks for that, within `bounds`, which are the configuration's. Pure.

    Raises SpecError for the first annotation, by name, that is unknown, not allowed or has a value that is not.
    """
    found = config
    for name in sorted(asked):
        value, short = asked[name], name.removeprefix(PREFIX)
        if short not in RULES:
            known = ", ".join(f"{PREFIX}{known}" for known in RULES)
            raise SpecError(f"unknown annotation {name} = {value!r}", hint=f"there are {known}")
        allowed = config.annotations.allow
        if short not in allowed:
            raise SpecError(
                f"the annotation {name} = {value!r} is not allowed: annotations.allow has"
                f" {', '.join(allowed) or 'none'}",
                hint=f'the host\'s owner may add "{short}" to annotations.allow in the configuration',
            )
        try:
            found = RULES[short].apply(found, bounds, value if isinstance(value, str) else "")
        except ValueError as error:
            raise SpecError(f"the annotation {name} = {value!r} {error}") from None
    return found


def _read(path: Path) -> dict[str, object]:
    data = path.read_bytes()
    if PREFIX.encode() not in data:  # most often; what JSON can hide from this, Create finds
        return {}
    document = json.loads(data)
    return ours(document) if isinstance(document, dict) else {}
