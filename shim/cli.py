"""`qemubox`, the administrator's command: templates, machines, what is left of them, layers, the service of shims.

    qemubox service
    qemubox template build [--namespace NS] [--again] [--if-used]
    qemubox template list [--json]
    qemubox template verify [NAME...]
    qemubox template rm NAME... | --all
    qemubox inspect [--namespace NS] ID
    qemubox cp [--namespace NS] [-L] [-a] CONTAINER:SRC DST|-
    qemubox cp [--namespace NS] [-L] [-a] SRC|- CONTAINER:DST
    qemubox gc [--dry-run] [--json]
    qemubox cache show [--json] | prune [--all | --to MIB] | verify
    qemubox commit [OPTIONS] CONTAINER IMAGE

It reads the shim's configuration (QEMUBOX_CONFIG, or /etc/qemubox/config.toml) and exits
with 0, or with 1 after one line that says what is wrong and what to do.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

import structlog

from shim import cache_command, gc, inspection
from shim.commit import arguments as commit_arguments
from shim.config import Config, load
from shim.errors import ConfigError, NotFoundError, QemuboxError
from shim.host import bounds
from shim.hypervisor import choose
from shim.journal import Journal
from shim.log import Logger
from shim.reclaim import reclaim
from shim.template.build import build
from shim.template.choice import open_store
from shim.template.held import refresh
from shim.template.memory import MIB
from shim.template.metadata import Metadata
from shim.version import VERSION
from shim.warm.ask import packages
from shim.warm.holdings import Holdings
from shim.warm.service import run as run_service
from shim.warm.tell import look_again

_SHORT: Final = 12


def main(words: Sequence[str] | None = None, *, link: str = "") -> int:
    """Do what the command line asks for; the answer is the exit status.

    `link` is the path by which our packages were found, links and all; empty: their directory itself.
    """
    arguments = _parser(link or packages()).parse_args(words)
    action: Callable[[argparse.Namespace], int] = arguments.action
    try:
        return action(arguments)
    except QemuboxError as error:
        print(f"qemubox: {error}", file=sys.stderr)
        return 1


def _parser(link: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qemubox", description="Looks after qemubox on this host.")
    parser.add_argument("--version", action="version", version=VERSION)
    groups = parser.add_subparsers(required=True, metavar="GROUP")
    service = "fork shims, so that they start faster and take less memory; runs in the foreground, as root"
    groups.add_parser("service", help=service, description=service).set_defaults(
        action=lambda _arguments: run_service(link, _hold)
    )
    inspect = groups.add_parser("inspect", help="what is known of a container's running machine, as JSON")
    inspect.add_argument("--namespace", default="", help="containerd's; without it, all that have such a container")
    inspect.add_argument("id", help="the container's")
    inspect.set_defaults(action=lambda arguments: _inspect(load(), arguments))
    words = "copy files between a container with a machine and the host, as docker cp does"
    copy = groups.add_parser("cp", help=words, description=f"{words}; a PATH of - is a tar archive")
    copy.add_argument("--namespace", default="", help="containerd's; without it, all that have such a container")
    copy.add_argument("-L", "--follow-link", action="store_true", help="follow a symbolic link that SRC is")
    copy.add_argument("-a", "--archive", action="store_true", help="keep owners, and what else gives files power")
    copy.add_argument("source", metavar="SRC", help="CONTAINER:PATH, PATH or -")
    copy.add_argument("destination", metavar="DST", help="the same; exactly one of them names a container")
    copy.set_defaults(action=_copy)
    remains = "remove what is left of containers whose shims can no longer do it, as after a power loss"
    collect = groups.add_parser("gc", help=remains, description=f"{remains}; safe at any time".capitalize())
    collect.add_argument("--dry-run", action="store_true", help="only say what there is")
    collect.add_argument("--json", action="store_true", help="for programs")
    collect.set_defaults(action=lambda words: gc.run(load(), dry_run=words.dry_run, as_json=words.json))
    cache_command.add_to(groups)
    commit_arguments.add(groups)
    template = groups.add_parser("template", help="machines that others are cloned from")
    actions = template.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, help_: str, action: Callable[[Config, argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=help_, description=help_)
        parser.set_defaults(action=lambda arguments: action(load(), arguments))
        return parser

    new = add("build", "boot a machine and keep it as the template, unless there is a good one", _build)
    new.add_argument("--namespace", default="", help="containerd's namespace, for template.mode = per-namespace")
    new.add_argument("--again", action="store_true", help="even if there is a good one")
    new.add_argument("--if-used", action="store_true", help="nothing to do, and no error, where it would not be used")
    listing = add("list", "show the templates that are there", _list)
    listing.add_argument("--json", action="store_true", help="for programs")
    add("verify", "read templates whole and compare with when they were made", _verify).add_argument("names", nargs="*")
    remove = add("rm", "remove templates; running machines are not disturbed", _remove)
    which = remove.add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[])
    which.add_argument("--all", action="store_true", help="every one")
    return parser


def _hold(held: Holdings, log: Logger) -> None:
    """What the service keeps for its shims. With a configuration that is wrong, nothing: each shim tells of that."""
    try:
        refresh(held, load(), log)
    except QemuboxError as error:
        log.warning("no template's memory is kept", reason=str(error))


def _build(config: Config, arguments: argparse.Namespace) -> int:
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
    metadata = asyncio.run(_build_template(config, arguments.namespace, again=arguments.again))
    look_again()
    print(_line(metadata))
    return 0


async def _build_template(config: Config, namespace: str, *, again: bool) -> Metadata:
    """Choose the machine as the shim does, in a directory of our own for what that takes."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    directory = Path(config.runtime.state_dir, f"template-{os.getpid()}")
    directory.mkdir(mode=0o711, parents=True)
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


def _inspect(config: Config, arguments: argparse.Namespace) -> int:
    found = inspection.find(Path(config.runtime.state_dir), arguments.id, arguments.namespace)
    print(json.dumps(list(found), indent=1))
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    from shim.copy.command import run  # neither the service nor the other commands need it

    return run(
        Path(load().runtime.state_dir),
        arguments.source,
        arguments.destination,
        namespace=arguments.namespace,
        follow=arguments.follow_link,
        archive=arguments.archive,
    )


def _list(config: Config, arguments: argparse.Namespace) -> int:
    entries = open_store(config).entries()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
        return 0
    for entry in entries:
        print(_line(entry.metadata) if entry.metadata else f"{entry.name[:_SHORT]}  cannot be used: {entry.problem}")
    return 0


def _verify(config: Config, arguments: argparse.Namespace) -> int:
    store = open_store(config)
    bad = 0
    for name in _named(config, arguments.names) if arguments.names else [entry.name for entry in store.entries()]:
        try:
            print(f"{_line(store.verify(name))}  good")
        except QemuboxError as error:
            bad += 1
            print(f"{name[:_SHORT]}  bad: {error}", file=sys.stderr)
    return 1 if bad else 0


def _remove(config: Config, arguments: argparse.Namespace) -> int:
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
        found = [name for name in there if name == beginning] or [name for name in there if name.startswith(beginning)]
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


if __name__ == "__main__":
    sys.exit(main())
