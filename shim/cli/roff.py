"""Text as a manual page's source, in the macros of man(7); pure.

groff and mandoc both take it. Neither is needed to make it, nor to install it.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Final

from shim.cli.tree import arguments_of

# A hyphen of the text is a minus of the program's words: copied from the page, it must work (groff_char(7)).
_SPECIAL: Final = {"\\": "\\e", "-": "\\-", "~": "\\(ti", "^": "\\(ha", "`": "\\(ga", "'": "\\(aq", '"': "\\(dq"}


def plain(text: str) -> str:
    """Words that mean nothing to roff, on one line."""
    return "".join(_SPECIAL.get(one, one) for one in " ".join(text.split()))


def bold(text: str) -> str:
    """Words as they are to be typed."""
    return f"\\fB{plain(text)}\\fP"


def italic(text: str) -> str:
    """Words that stand for others."""
    return f"\\fI{plain(text)}\\fP"


def line(text: str) -> str:
    """A line of running text; one that begins with what roff takes for a request is kept from that."""
    return f"\\&{plain(text)}" if text.startswith(".") else plain(text)


def page(name: str, section: int, version: str, what: str, body: Iterable[str]) -> str:
    """A whole page. It has no date: the same source makes the same page."""
    head = f'.TH {plain(name.upper())} {section} "" "qemubox {plain(version)}" "qemubox"'
    return "\n".join((head, ".SH NAME", f"{plain(name)} \\- {plain(what)}", *body)) + "\n"


def section(title: str, *lines: str) -> list[str]:
    """A heading, and what is below it."""
    return [f".SH {title}", *lines]


def item(tag: str, *lines: str) -> list[str]:
    """A tag, made of the functions above, and what it means."""
    return [".TP", tag, *lines]


def synopsis(words: Sequence[str], command: argparse.ArgumentParser) -> str:
    """One command as a line of plain text: `qemubox cp [--namespace NS] [-L] [-a] SRC DST`.

    Of an option with two names the shorter is told.
    """
    return " ".join(("qemubox", *words, *(text for text, _ in _parts(command))))


def synopsis_roff(words: Sequence[str], command: argparse.ArgumentParser) -> str:
    """The same for a manual page."""
    return " ".join((bold(" ".join(("qemubox", *words))), *(marked for _, marked in _parts(command))))


def tag(action: argparse.Action) -> str:
    """An option with all of its names and its value, or another argument's name."""
    if not action.option_strings:
        return italic(value(action))
    names = ", ".join(bold(option) for option in action.option_strings)
    return f"{names} {italic(value(action))}" if action.nargs != 0 else names


def value(action: argparse.Action) -> str:
    """What stands for an argument's value."""
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _parts(command: argparse.ArgumentParser) -> Iterable[tuple[str, str]]:
    """Each argument of a synopsis, plain and for a page."""
    for action in arguments_of(command):
        if action.option_strings:
            name = min(action.option_strings, key=len)
            text, marked = (name, bold(name))
            if action.nargs != 0:
                text, marked = f"{name} {value(action)}", f"{bold(name)} {italic(value(action))}"
            yield f"[{text}]", f"[{marked}]"
        else:
            text = value(action)
            if action.nargs in ("*", "?"):
                dots = "..." if action.nargs == "*" else ""
                yield f"[{text}{dots}]", f"[{italic(text)}{dots}]"
            elif action.nargs == argparse.REMAINDER:
                yield f"{text}...", f"{italic(text)}..."
            else:
                yield text, italic(text)
