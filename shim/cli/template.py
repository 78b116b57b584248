"""`qemubox template`: machines that others are cloned from."""

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import structlog

from shim.claim import make_directory
from shim.config import Config, load
from shim.errors import ConfigError, NotFoundError, QemuboxError
from shim.host import bounds
from shim.hypervisor import choose
from shim.interrupt import told_to_end_as_by_ctrl_c
from shim.journal import Journal
from shim.log import Logger
from shim.reclaim import reclaim
from shim.template.build import build
from shim.template.choice import open_store
from shim.template.memory import MIB
from shim.template.metadata import Metadata
from shim.warm.tell import look_again

_SHORT: Final = 12


def build_one(arguments: argparse.Namespace) -> int:
    """Make a template; the exit status. Raises what is wrong, of shim/errors.py, as all here do."""
    config = load()
    if arguments.if_used and config.template.mode != "auto" and not arguments.namespace:
        print(f'template.mode = "{config.template.mode}": no template of all namespaces would be used')
        return 0
    if config.template.mode == "off":
        raise ConfigError('template.mode = "off": a template would not be used', hint='set it to "auto"')
    if (config.template.mode == "per-namespace") != bool(arguments.namespace):
        raise ConfigError(
            f'template.mode = "{config.template.mode}", and --namespace {arguments.namespace!r}: it would not be used',
            hint="give --namespace with per-namespace, and only then",
        )
    with told_to_end_as_by_ctrl_c():
        metadata = asyncio.run(_build_template(config, arguments.namespace, again=arguments.again))
    look_again()
    print(_line(metadata))
    return 0


async def _build_template(config: Config, namespace: str, *, again: bool) -> Metadata:
    """Choose the machine as the shim does, in a directory of our own for what that takes."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    directory = Path(config.runtime.state_dir, f"template-{os.getpid()}")
    make_directory(directory)
    try:
        log = cast("Logger", structlog.get_logger())
        hypervisor = await choose(config, directory, bounds(config), Journal(directory), log)
        return await build(
            open_store(config),
            hypervisor.machine,
            namespace=namespace,
            credentials=hypervisor.credentials,
            boot_timeout_s=config.vm.boot_timeout_s,
            again=again,
        )
    finally:
        reclaim(directory)


def list_all(arguments: argparse.Namespace) -> int:
    """Say which there are."""
    entries = open_store(load()).entries()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
        return 0
    for entry in entries:
        print(_line(entry.metadata) if entry.metadata else f"{entry.name[:_SHORT]}  cannot be used: {entry.problem}")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read templates whole; 1 where one is bad."""
    config = load()
    store = open_store(config)
    bad = 0
    for name in _named(config, arguments.names) if arguments.names else [entry.name for entry in store.entries()]:
        try:
            print(f"{_line(store.verify(name))}  good")
        except QemuboxError as error:
            bad += 1
            print(f"{name[:_SHORT]}  bad: {error}", file=sys.stderr)
    return 1 if bad else 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove templates."""
    config = load()
    store = open_store(config)
    for name in [entry.name for entry in store.entries()] if arguments.all else _named(config, arguments.names):
        store.remove(name)
    look_again()
    return 0


def _named(config: Config, beginnings: Sequence[str]) -> list[str]:
    """The templates whose names begin so, one each. Raises NotFoundError for none or more."""
    there = [entry.name for entry in open_store(config).entries()]
    names = []
    for beginning in beginnings:
        found = [name for name in there if name == beginning]
        if beginning and not found:  # an empty word, as from "$NAME", is the beginning of them all
            found = [name for name in there if name.startswith(beginning)]
        if len(found) != 1:
            raise NotFoundError(
                f"template {beginning}: {len(found)} have such a name", hint="see qemubox template list"
            )
        names += found
    return names


def _line(metadata: Metadata) -> str:
    """One template as people see it."""
    built = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(metadata.built_at))
    owner = f"  namespace {metadata.namespace}" if metadata.namespace else ""
    size = f"{metadata.stored / MIB:.0f} MiB"
    return f"{metadata.fingerprint[:_SHORT]}  {built}  {size}  QEMU {metadata.qemu_version}{owner}"
