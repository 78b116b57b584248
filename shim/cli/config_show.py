"""`qemubox config show`: the configuration in force, as TOML or JSON, with where each value comes from."""

import argparse
import json
import os
from collections.abc import Mapping

from shim import config as configuration
from shim.config import Config, load

DEFAULT = "default"


def run(arguments: argparse.Namespace) -> int:
    """Print it. Raises ConfigError for a file that no container could be started with."""
    environment: Mapping[str, str] = {"QEMUBOX_CONFIG": os.devnull} if arguments.defaults else os.environ
    config = load(environment)
    path = environment.get("QEMUBOX_CONFIG") or configuration.DEFAULT_PATH
    found = set() if arguments.defaults else given(path)
    print(as_json(config, path, found) if arguments.json else as_toml(config, path, found))
    return 0


def as_toml(config: Config, path: str, found: set[str]) -> str:
    """The whole as a file that could be used, with a comment at each line."""
    lines = []
    for section, table in config._asdict().items():
        values = {key: f"{key} = {_value(value)}" for key, value in table._asdict().items()}
        width = max(map(len, values.values()))
        lines += ["", f"[{section}]"]
        lines += [f"{text.ljust(width)}  # {_source(section, key, path, found)}" for key, text in values.items()]
    return "\n".join(lines[1:])


def as_json(config: Config, path: str, found: set[str]) -> str:
    """By section and key: value, and "from", the file's path or "default"."""
    sections = {
        section: {
            key: {"value": value, "from": _source(section, key, path, found)} for key, value in table._asdict().items()
        }
        for section, table in config._asdict().items()
    }
    return json.dumps(sections, indent=1)


def given(path: str) -> set[str]:
    """What the file sets, as "section.key". `load` has found nothing wrong with it."""
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return set()
    return {f"{section}.{key}" for section, table in document.items() for key in table}


def _source(section: str, key: str, path: str, found: set[str]) -> str:
    return path if f"{section}.{key}" in found else DEFAULT


def _value(value: object) -> str:
    """A text, number, truth or list as TOML; JSON's are the same for what a configuration may have."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
