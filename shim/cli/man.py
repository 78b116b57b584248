"""`qemubox man DIR`: the manual pages, from what the programs themselves go by.

qemubox(8) is made from tree.py, and qemubox.toml(5) from shim/config.py with its comments: neither can tell of an
option that is not there, nor be silent on one that is. Of containerd-shim-qemubox-v1(8), whose flags have no
description but the one here, a test holds that.
"""

import argparse
import ast
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

import shim.cli
from shim.cli.roff import bold, italic, item, line, page, plain, section, synopsis_roff, tag
from shim.cli.tree import arguments_of, commands, parser
from shim.config import DEFAULT_PATH, Between, Config, Names
from shim.errors import HostError
from shim.version import BINARY_NAME, RUNTIME_NAME, VERSION
from shim.warm.message import SOCKET_PATH, SOCKET_VARIABLE

_FLAGS: Final = {
    "-v": "say which version this is, and end",
    "-info": "say what containerd may expect of this runtime, as a containerd.types.RuntimeInfo in protobuf, and end",
    "-namespace NS": "containerd's namespace of the container",
    "-id ID": "the container's id",
    "-bundle DIR": "its bundle; otherwise the working directory is that",
    "-address PATH": "containerd's socket",
    "-publish-binary PATH": "taken and not used: events go to the socket that TTRPC_ADDRESS names",
    "-debug": "containerd says much: so do the shim and the guest",
}
_ENVIRONMENT: Final = {
    "QEMUBOX_CONFIG": f"another configuration file than {DEFAULT_PATH}; it must be there",
    SOCKET_VARIABLE: f"another socket of the service than {SOCKET_PATH}",
    "CONTAINERD_ADDRESS": "containerd's socket, for commit",
    "CONTAINERD_NAMESPACE": "containerd's namespace, for commit",
}
_FILES: Final = {
    DEFAULT_PATH: "the configuration; see qemubox.toml(5)",
    "/etc/qemubox/net.d": "the CNI network of containers that come with none",
    "/run/qemubox/vm": "a directory for each machine: its journal, its console, what inspect shows",
    "/run/qemubox/timeline.jsonl": "where the time of each start went",
    "/var/lib/qemubox": "what containers have written, until it is in their snapshots",
    "/var/cache/qemubox": "layers as disks, and templates",
}


def run(arguments: argparse.Namespace) -> int:
    """Write all pages below the directory. Raises HostError."""
    for name, text in pages().items():
        path = Path(arguments.directory, f"man{name[-1]}", name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise HostError(f"{error.filename or path}: {error.strerror}") from error
    return 0


def pages() -> dict[str, str]:
    """Every page's source by its file's name."""
    return {"qemubox.8": command_page(), "qemubox.toml.5": config_page(), f"{BINARY_NAME}.8": shim_page()}


def command_page() -> str:
    """qemubox(8)."""
    top = parser()
    found = list(commands(top))
    body = [".SH SYNOPSIS", ".nf", *(synopsis_roff(each.words, each.parser) for each in found), ".fi"]
    body += section(
        "DESCRIPTION",
        line("Looks after qemubox, which runs each container in a virtual machine of its own, on this host."),
        line("It needs root for all but help, completion and these pages."),
    )
    body += section("OPTIONS", *item(f"{bold('-h')}, {bold('--help')}", line("help, of each command too")))
    for action in arguments_of(top):
        if action.option_strings:
            body += item(tag(action), line(action.help or ""))
    body += section("COMMANDS")
    for each in found:
        body += [f".SS {plain(' '.join(each.words))}", line(each.parser.description or "")]
        for action in arguments_of(each.parser):
            body += item(tag(action), line(action.help or ""))
        if each.parser.epilog:
            body += [".PP", line(each.parser.epilog)]
    body += section("EXIT STATUS")
    for status, meaning in shim.cli.EXIT_STATUSES.items():
        body += item(bold(status), line(meaning))
    body += section("ENVIRONMENT", *_table(_ENVIRONMENT))
    body += section("FILES", *_table(_FILES))
    body += section("SEE ALSO", f"{bold('qemubox.toml')}(5), {bold(BINARY_NAME)}(8), {bold('ctr')}(8)")
    return page("qemubox", 8, VERSION, "looks after containers in virtual machines of their own", body)


def config_page() -> str:
    """qemubox.toml(5)."""
    body = section(
        "DESCRIPTION",
        line(f"{DEFAULT_PATH}, in TOML, or the file that QEMUBOX_CONFIG names, is what a shim goes by when it starts;"),
        line("running containers keep what they were started with."),
        line("Every key has a default, and the file need not be there."),
        line("With an unknown key or a value that is not allowed no container starts; the error names it."),
        f"{bold('qemubox config show')} shows what is in force.",
    )
    for name, table in Config()._asdict().items():
        body += [f".SH {plain(f'[{name}]')}", line(inspect.getdoc(type(table)) or "")]
        comments = key_comments(type(table))
        words: list[str] = []
        for key, default in table._asdict().items():
            words = comments[key] or words  # one without a comment stands under that of the key above
            allowed = _allowed(type(table).__annotations__[key])
            body += item(f"{bold(key)} = {plain(json.dumps(default))}", *map(line, words))
            if allowed:
                body += [".br", line(f"Allowed: {allowed}.")]
    body += section("FILES", *item(bold(DEFAULT_PATH)))
    body += section("SEE ALSO", f"{bold('qemubox')}(8)")
    return page("qemubox.toml", 5, VERSION, "the configuration of qemubox", body)


def shim_page() -> str:
    """containerd-shim-qemubox-v1(8)."""
    body = [".SH SYNOPSIS", f"{bold(BINARY_NAME)} [{italic('flags')}] {bold('start')} | {bold('delete')}"]
    body += section(
        "DESCRIPTION",
        line(f"containerd runs it for each container of the runtime {RUNTIME_NAME}, and nobody else needs to."),
        line("It must lie in a directory of the PATH that containerd has."),
    )
    body += section("COMMANDS")
    body += item(bold("start"), line("make a shim for the container of the bundle that is the working directory"))
    body += item(bold("delete"), line("undo what is left of a container whose shim is gone"))
    body += section("OPTIONS", *_flags())
    body += section(
        "EXIT STATUS", *item(bold("0"), line("done")), *item(bold("1"), line("it failed; standard error says why"))
    )
    traces = "OTEL_*, TRACEPARENT"
    seen = {
        **{name: _ENVIRONMENT[name] for name in ("QEMUBOX_CONFIG", SOCKET_VARIABLE)},
        "TTRPC_ADDRESS": "the socket that containerd takes events at",
        traces: "traces, as OpenTelemetry's specification has it",
    }
    body += section("ENVIRONMENT", *_table(seen))
    body += section("SEE ALSO", f"{bold('qemubox')}(8), {bold('qemubox.toml')}(5)")
    return page(BINARY_NAME, 8, VERSION, "the shim by which containerd runs a container in a virtual machine", body)


def key_comments(kind: type) -> dict[str, list[str]]:
    """The comment lines directly above each key of a section, in the source of shim/config.py."""
    lines = inspect.getsource(kind).splitlines()
    (tree,) = ast.parse("\n".join(lines)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = found[node.target.id] = []
            for text in reversed(lines[: node.lineno - 1]):
                if not text.strip().startswith("# "):
                    break
                above.insert(0, text.strip().removeprefix("# "))
    return found


def _allowed(kind: object) -> str:
    if kind is bool:
        return "true, false"
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    for rule in get_args(kind):
        if isinstance(rule, Between):
            return f"{rule.low} to {rule.high}"
        if isinstance(rule, Names):
            return f"a list of {', '.join(rule.known)}"
    return ""


def _flags() -> Iterator[str]:
    for flag, meaning in _FLAGS.items():
        name, _, value = flag.partition(" ")
        yield from item(f"{bold(name)} {italic(value)}" if value else bold(name), line(meaning))


def _table(meanings: dict[str, str]) -> Iterator[str]:
    for name, meaning in meanings.items():
        yield from item(bold(os.fspath(name)), line(meaning))
