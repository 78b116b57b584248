"""What crun says when it fails: the errors in its JSON log. Pure.

One line per message: {"msg": …, "level": "error" | "warning" | "debug", "time": …} (crun's `--log-format=json`).
"""

import json


def error_text(log: bytes) -> str:
    """The errors in the log as one line; empty if there is none. A line that is no JSON object counts as it stands."""
    messages: list[str] = []
    for line in log.decode(errors="replace").splitlines():
        message = _error(line)
        if message and message not in messages:
            messages.append(message)
    return "; ".join(messages)


def _error(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(entry, dict):
        return line.strip()
    if entry.get("level", "error") != "error":
        return ""
    return " ".join(str(entry.get("msg", "")).split())
