"""docs/conformance.md, made from the rows: `python -m conformance.table` writes it anew."""

from itertools import groupby
from pathlib import Path
from typing import Final

from conformance.answers import Is, Row
from conformance.notes import HEADER, NOTES, STATES
from conformance.rows import ROWS
from conformance.rows_exec import EXEC_ROWS

DOCUMENT: Final = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"


def text() -> str:
    """The whole document."""
    parts = [HEADER]
    for state, rows in groupby((*ROWS, *EXEC_ROWS), lambda row: row.state):
        lines = [f"## {state.capitalize() if state[0].islower() else state}", "", STATES[state], ""]
        lines += ["| call | runc's shim | qemubox | |", "| --- | --- | --- | --- |", *map(_line, rows)]
        parts.append("\n".join(lines) + "\n")
    parts.append("\n".join(["## Why", "", *(f"- **{letter}**: {why}" for letter, why in NOTES.items())]) + "\n")
    return "\n".join(parts)


def _line(row: Row) -> str:
    runc = "n/a" if row.runc is None else _shown(row.runc)
    if row.newest is not None:
        runc += f"; 2.3.4 {_shown(row.newest)}"
    ours = "the same" if row.runc == row.ours else _shown(row.ours)
    return f"| {row.call} | {runc} | {ours} | {row.note} |"


def _shown(answer: Is) -> str:
    return str(answer).replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(text())
