"""The configuration file: every error of it. What is right counts for the other areas, with defaults for the rest."""

import os
import stat
from collections.abc import Mapping
from typing import Final

from shim.check.line import Report
from shim.config import Config, examine, read
from shim.errors import ConfigError

AREA: Final = "configuration"


def load(report: Report, environ: Mapping[str, str]) -> Config:
    """What the other areas go by."""
    try:
        path, text = read(environ)
    except ConfigError as error:
        what, _, why = error.message.partition(": ")
        report.failure(
            what, f"{why}: no container starts; the rest is looked at with defaults", error.hint or "mend it"
        )
        return Config()
    if text is None:
        report.ok(path, "not there: every key has its default")
        return Config()
    config, faults = examine(text)
    for fault in faults:
        report.failure(path, f"{fault.message}: no container starts", fault.hint or f"mend it in {path}")
    if not faults:
        report.ok(path, "understood")
    _check_owner(report, path)
    return config


def _check_owner(report: Report, path: str) -> None:
    """It names programs that run as root."""
    try:
        found = os.stat(path)
    except OSError as error:
        report.failure(path, error.strerror or str(error), "mend it")
        return
    if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        report.warning(
            path,
            f"others than root may write it (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}), and it names "
            "programs that root runs",
            f"chown root:root {path} && chmod 644 {path}",
        )
