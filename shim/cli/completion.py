"""`qemubox completion`: what makes bash, zsh or fish complete the command's words; pure, from tree.py.

Every command's words and options are in it as text. Containers' ids are asked for, when they are wanted, by
`qemubox ps --quiet`, which asks no shim; paths are the shell's own.
"""

import argparse
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from shim.cli.tree import arguments_of, commands, parser

# What an argument's metavar says of what is to be completed.
_MACHINES: Final = ("ID", "CONTAINER")
_PATHS: Final = ("FILE", "DIR", "SRC", "DST")

_BASH: Final = """\
# bash completion of qemubox; made by `qemubox completion bash`
_qemubox() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path=qemubox words= what= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$path ${COMP_WORDS[i]}" in
%(paths)s) path="$path ${COMP_WORDS[i]}" ;;
        esac
    done
    case "$path $prev" in
%(values)s
    esac
    if [ -z "$what" ]; then
        case $path in
%(words)s
        esac
    fi
    case $what in
    machines) words="$words $(qemubox ps --quiet 2>/dev/null)" ;;
    paths)
        if [[ $cur != -* ]]; then
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            compopt -o filenames 2>/dev/null
            return
        fi
        ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _qemubox qemubox
"""
_ZSH: Final = """\
#compdef qemubox
# zsh completion of qemubox; made by `qemubox completion zsh`
_qemubox() {
    local cur=${words[CURRENT]} prev=${words[CURRENT-1]} at=qemubox all= what= i
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${words[i]}" in
%(paths)s) at="$at ${words[i]}" ;;
        esac
    done
    case "$at $prev" in
%(values)s
    esac
    if [[ -z $what ]]; then
        case $at in
%(words)s
        esac
    fi
    case $what in
    machines) all="$all $(qemubox ps --quiet 2>/dev/null)" ;;
    paths) [[ $cur == -* ]] || { _files; return } ;;
    esac
    compadd -- ${=all}
}
compdef _qemubox qemubox
# The first time that it is wanted, zsh runs this file in the function's place.
if [ "$funcstack[1]" = _qemubox ]; then
    _qemubox
fi
"""


class Place(NamedTuple):
    """What may follow certain words: `words`, and `what` else: "machines", "paths" or nothing."""

    path: str
    words: tuple[str, ...]
    what: str


class Value(NamedTuple):
    """What may follow an option that takes a value."""

    path: str
    option: str
    words: tuple[str, ...]
    what: str


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](), end="")
    return 0


def places(top: argparse.ArgumentParser) -> Iterator[Place]:
    """The command, its groups and its commands, each with what may come next."""
    found = [(each, arguments_of(each.parser)) for each in commands(top)]
    own = [option for action in arguments_of(top) for option in action.option_strings]
    nexts: dict[str, list[str]] = {"qemubox": ["-h", "--help", *own]}
    for command, _arguments in found:
        path = "qemubox"
        for word in command.words:
            if word not in nexts.setdefault(path, ["-h", "--help"]):
                nexts[path].append(word)
            path = f"{path} {word}"
    yield from (Place(path, tuple(words), "") for path, words in nexts.items())
    for command, arguments in found:
        options = [option for action in arguments for option in action.option_strings]
        others = [action for action in arguments if not action.option_strings]
        choices = [str(choice) for action in others for choice in action.choices or ()]
        kinds = [_what(action) for action in others]
        what = next(filter(None, kinds), "")
        yield Place(" ".join(("qemubox", *command.words)), ("-h", "--help", *options, *choices), what)


def values(top: argparse.ArgumentParser) -> Iterator[Value]:
    """Every option that takes a value."""
    for command in commands(top):
        path = " ".join(("qemubox", *command.words))
        for action in arguments_of(command.parser):
            if action.nargs != 0:
                choices = tuple(str(choice) for choice in action.choices or ())
                for option in action.option_strings:
                    yield Value(path, option, choices, _what(action) or "value")


def bash() -> str:
    """For bash, 4 and newer."""
    return _BASH % _cases("words")


def zsh() -> str:
    """For zsh: a file `_qemubox` in a directory of its fpath, or to be sourced after compinit."""
    return _ZSH % _cases("all")


def fish() -> str:
    """For fish: a file `qemubox.fish` in one of its directories of completions."""
    top = parser()
    lines = ["# fish completion of qemubox; made by `qemubox completion fish`", "complete -c qemubox -f"]
    groups = {each.path: each for each in places(top)}
    for path, place in groups.items():
        condition = _fish_condition(path, groups)
        plain = [word for word in place.words if not word.startswith("-")]
        if plain:
            lines.append(f"complete -c qemubox -n {condition} -a '{' '.join(plain)}'")
        if place.what == "machines":
            lines.append(f"complete -c qemubox -n {condition} -a '(qemubox ps --quiet 2>/dev/null)'")
        elif place.what == "paths":
            lines.append(f"complete -c qemubox -n {condition} -F")
    for command in commands(top):
        condition = _fish_condition(" ".join(("qemubox", *command.words)), groups)
        for action in arguments_of(command.parser):
            if action.option_strings:
                lines.append(f"complete -c qemubox -n {condition} {_fish_option(action)}")
    lines.append(
        f"complete -c qemubox -n {_fish_condition('qemubox', groups)} -l version -d 'say which version this is'"
    )
    return "\n".join(lines) + "\n"


def _cases(variable: str) -> dict[str, str]:
    top = parser()
    all_places = list(places(top))
    paths = " | ".join(f'"{each.path}"' for each in all_places if each.path != "qemubox")
    words = [
        f"        {_quote(each.path)}) {variable}={_quote(' '.join(each.words))} what={each.what} ;;"
        for each in all_places
    ]
    options = [
        f"    {_quote(f'{each.path} {each.option}')}) {variable}={_quote(' '.join(each.words))} what={each.what} ;;"
        for each in values(top)
    ]
    return {"paths": f"        {paths}", "words": "\n".join(words), "values": "\n".join(options)}


def _what(action: argparse.Action) -> str:
    metavar = str(action.metavar or "")
    return "machines" if metavar in _MACHINES else "paths" if metavar in _PATHS else ""


def _quote(text: str) -> str:
    assert re.fullmatch(r"[\w .:=-]*", text), text
    return f'"{text}"'


def _fish_condition(path: str, groups: "dict[str, Place]") -> str:
    """Where the words so far are those of `path`, and none of a command below it."""
    words = path.split()[1:]
    tests = [f"__fish_seen_subcommand_from {word}" for word in words]
    below = [
        name.split()[-1] for name in groups if name.startswith(f"{path} ") and name.count(" ") == path.count(" ") + 1
    ]
    if below:
        tests.append(f"not __fish_seen_subcommand_from {' '.join(below)}")
    return f"'{'; and '.join(tests)}'"


def _fish_option(action: argparse.Action) -> str:
    words = []
    for option in action.option_strings:
        words.append(f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}")
    if action.nargs != 0:
        words.append("-r")
        if action.choices:
            words.append(f"-a '{' '.join(map(str, action.choices))}'")
        elif _what(action) == "paths":
            words.append("-F")
    help_ = (action.help or "").replace("\\", "\\\\").replace("'", "\\'")
    return f"{' '.join(words)} -d '{help_}'"
