"""What words there are after `qemubox`: the one description that help, completion and the man page are made from.

Of a command's module nothing is imported before the command is to be done. What an argument is for, shells are told by
its metavar: ID and CONTAINER are containers with a machine, FILE and DIR are paths.
"""

import argparse
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from shim.commit import arguments as commit
from shim.version import VERSION

if TYPE_CHECKING:
    Groups = argparse._SubParsersAction[argparse.ArgumentParser]

_NAMESPACE: Final = "containerd's; without it, all that have such a container"
_ID: Final = "the container's id, the beginning of it, or nerdctl's name for it"
_JSON: Final = "for programs"
# How long a program may run in the guest, where nothing else is said, and at most.
_PROGRAM_S: Final = 60
_PROGRAM_MOST_S: Final = 86400
SHELLS: Final = ("bash", "zsh", "fish")


class Command(NamedTuple):
    """One command: the words that name it, without "qemubox", and its own parser."""

    words: tuple[str, ...]
    parser: argparse.ArgumentParser
    help: str


def parser(link: str = "") -> argparse.ArgumentParser:
    """The parser of the command line. `link`: see `main`; only the service asks for it."""
    top = argparse.ArgumentParser(prog="qemubox", description="Looks after qemubox on this host.")
    top.add_argument("--version", action="version", version=VERSION, help="say which version this is")
    groups = top.add_subparsers(required=True, metavar="COMMAND")
    _service(groups, link)
    _machines(groups)
    _within(groups)
    _files(groups)
    _host(groups)
    _debug(groups)
    _cache(groups)
    _template(groups)
    _texts(groups)
    return top


def commands(top: argparse.ArgumentParser) -> Iterator[Command]:
    """All of them, in the order of the help, those within a group as commands of their own."""
    yield from _below(top, ())


def arguments_of(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """What the command may be followed by, -h aside: options and then the others, as they were added."""
    shown = [each for each in command._actions if not isinstance(each, argparse._HelpAction)]
    return sorted(shown, key=lambda each: not each.option_strings)


def _below(parent: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[Command]:
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in cast("dict[str, argparse.ArgumentParser]", action.choices).items():
                if child.get_default("action") is None:
                    yield from _below(child, (*words, name))
                else:
                    yield Command((*words, name), child, helps[name])


def _add(groups: "Groups", name: str, what: str, module: str, function: str = "run") -> argparse.ArgumentParser:
    """A command that `function` of `module` does: it is given what was parsed, and answers the exit status."""
    added = groups.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    added.set_defaults(action=Deferred(module, function))
    return added


class Deferred:
    """A function that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def find(self) -> Callable[[argparse.Namespace], int]:
        """The function."""
        return cast("Callable[[argparse.Namespace], int]", getattr(importlib.import_module(self._module), self._name))

    def __call__(self, arguments: argparse.Namespace) -> int:
        return self.find()(arguments)


def _group(groups: "Groups", name: str, what: str) -> "Groups":
    return groups.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.").add_subparsers(
        required=True, metavar="ACTION"
    )


def _service(groups: "Groups", link: str) -> None:
    what = "fork shims, so that they start faster and take less memory; runs in the foreground, as root"
    _add(groups, "service", what, "shim.cli.service").set_defaults(link=link)


def _machines(groups: "Groups") -> None:
    ps = _add(groups, "ps", "list the machines that there are, one a line", "shim.cli.ps")
    ps.add_argument("--namespace", metavar="NS", default="", help="only those of this namespace of containerd's")
    ps.add_argument("--json", action="store_true", help=_JSON)
    ps.add_argument("-q", "--quiet", action="store_true", help="the containers' ids alone; no shim is asked")
    inspect = _add(groups, "inspect", "show what is known of a container's machine, as JSON", "shim.cli.inspect")
    inspect.add_argument("--namespace", metavar="NS", default="", help=_NAMESPACE)
    inspect.add_argument("id", metavar="ID", help=_ID)
    logs = _add(groups, "logs", "show what a machine's guest has printed on its console", "shim.cli.logs")
    logs.add_argument("--console", action="store_true", help="do so; without it, say what logs there are")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the machine ends")
    logs.add_argument("--namespace", metavar="NS", default="", help=_NAMESPACE)
    logs.add_argument("id", metavar="ID", help=_ID)


def _within(groups: "Groups") -> None:
    console = _add(
        groups, "console", "attach this terminal to the guest's serial console; ^] leaves", "shim.cli.console"
    )
    console.add_argument("--namespace", metavar="NS", default="", help=_NAMESPACE)
    console.add_argument("id", metavar="ID", help=_ID)
    what = "run a program in the guest's own root, outside of the container; its exit status is the command's"
    execute = _add(groups, "exec", what, "shim.cli.execute")
    execute.add_argument(
        "--vm", action="store_true", help="must be said: in the container, the client's exec runs programs"
    )
    execute.add_argument("-i", "--interactive", action="store_true", help="let it read standard input")
    execute.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=_PROGRAM_S, help=f"after which it is ended; {_PROGRAM_S}"
    )
    execute.add_argument("--namespace", metavar="NS", default="", help=_NAMESPACE)
    execute.add_argument("id", metavar="ID", help=_ID)
    execute.add_argument(
        "command", metavar="COMMAND", nargs=argparse.REMAINDER, help="after --: the program, and its arguments"
    )
    qmp = _add(
        groups, "qmp", "ask the machine's QEMU by its monitor protocol, and print the answer as JSON", "shim.cli.qmp"
    )
    qmp.add_argument(
        "--force", action="store_true", help="also what may change the machine behind its shim's back, or end it"
    )
    qmp.add_argument("--namespace", metavar="NS", default="", help=_NAMESPACE)
    qmp.add_argument("id", metavar="ID", help=_ID)
    qmp.add_argument("command", metavar="COMMAND", help="such as query-status; of QEMU's QMP Reference Manual")
    qmp.add_argument("arguments", metavar="JSON", nargs="?", default="", help="the command's arguments, an object")


def _seconds(text: str) -> int:
    """A time that a program may run."""
    seconds = int(text) if text.isdecimal() else 0
    if not 1 <= seconds <= _PROGRAM_MOST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to {_PROGRAM_MOST_S}")
    return seconds


def _files(groups: "Groups") -> None:
    what = "copy files between a container with a machine and the host, as docker cp does; a path of - is a tar archive"
    copy = _add(groups, "cp", what, "shim.cli.copy")
    copy.add_argument("--namespace", metavar="NS", default="", help=_NAMESPACE)
    copy.add_argument("-L", "--follow-link", action="store_true", help="follow a symbolic link that SRC is")
    copy.add_argument("-a", "--archive", action="store_true", help="keep owners, and what else gives files power")
    copy.add_argument("source", metavar="SRC", help="CONTAINER:PATH, PATH or -")
    copy.add_argument("destination", metavar="DST", help="the same; exactly one of them names a container")
    commit.add(groups)


def _host(groups: "Groups") -> None:
    what = "remove what is left of containers whose shims can no longer do it, as after a power loss; safe at any time"
    collect = _add(groups, "gc", what, "shim.cli.collect")
    collect.add_argument("--dry-run", action="store_true", help="only say what there is")
    collect.add_argument("--json", action="store_true", help=_JSON)
    what = "look whether this host can run containers in machines, by trying it, and say what mends what is amiss"
    check = _add(groups, "check", what, "shim.check.command")
    check.add_argument("--json", action="store_true", help="one JSON document, for programs")
    check.add_argument("--quick", action="store_true", help="boot no machine: seconds instead of up to a minute")
    actions = _group(groups, "config", "the configuration of this host")
    what = "show the configuration that is in force, and where each value comes from"
    show = _add(actions, "show", what, "shim.cli.config_show")
    show.add_argument("--json", action="store_true", help=_JSON)
    show.add_argument("--defaults", action="store_true", help="what is in force without a file")


def _debug(groups: "Groups") -> None:
    actions = _group(groups, "debug", "when something is wrong")
    what = (
        "write an archive for a report of a fault, and say what it holds; nothing of a container's environment or files"
    )
    bundle = _add(actions, "bundle", what, "shim.cli.bundle")
    bundle.add_argument(
        "-o", "--output", metavar="FILE", default="", help="instead of qemubox-debug-DATE-TIME.tar.gz here"
    )
    bundle.add_argument("id", metavar="ID", nargs="?", default="", help="only this container's machines")


def _cache(groups: "Groups") -> None:
    actions = _group(groups, "cache", "the images of layers that are kept for the next container")
    what = "list the images: size on disk and in all, last use, users, and the layers they are of"
    show = _add(actions, "show", what, "shim.cli.cache", "show")
    show.add_argument("--json", action="store_true", help=_JSON)
    what = "remove images whose layers are gone, and what is above the limit; none in use"
    which = _add(actions, "prune", what, "shim.cli.cache", "prune").add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every image that is not in use")
    which.add_argument("--to", metavar="MIB", type=int, help="least recently used first, until so much is left")
    what = "read all images and compare them with when they were made; damaged ones are removed"
    _add(actions, "verify", what, "shim.cli.cache", "verify")


def _template(groups: "Groups") -> None:
    actions = _group(groups, "template", "machines that others are cloned from")
    what = "boot a machine and keep it as the template, unless there is a good one"
    new = _add(actions, "build", what, "shim.cli.template", "build_one")
    new.add_argument("--namespace", metavar="NS", default="", help="containerd's, for template.mode = per-namespace")
    new.add_argument("--again", action="store_true", help="even if there is a good one")
    new.add_argument("--if-used", action="store_true", help="nothing to do, and no error, where it would not be used")
    listing = _add(actions, "list", "show the templates that are there", "shim.cli.template", "list_all")
    listing.add_argument("--json", action="store_true", help=_JSON)
    what = "read templates whole and compare with when they were made"
    verify = _add(actions, "verify", what, "shim.cli.template", "verify")
    verify.add_argument("names", metavar="NAME", nargs="*", help="of a template, or its beginning; without any, all")
    what = "remove templates; running machines are not disturbed"
    which = _add(actions, "rm", what, "shim.cli.template", "remove").add_mutually_exclusive_group(required=True)
    which.add_argument("names", metavar="NAME", nargs="*", default=[], help="of a template, or its beginning")
    which.add_argument("--all", action="store_true", help="every one")


def _texts(groups: "Groups") -> None:
    what = "print what a shell needs to complete this command's words"
    _add(groups, "completion", what, "shim.cli.completion").add_argument("shell", choices=SHELLS, help="which shell")
    what = "write the manual pages, for man(1), below a directory"
    _add(groups, "man", what, "shim.cli.man").add_argument("directory", metavar="DIR", help="gets man5 and man8")
