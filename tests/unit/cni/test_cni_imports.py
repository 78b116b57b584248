"""What an import of cni costs: `delete` pays it after a crash."""

from tests.unit.ttrpc.test_ttrpc_imports import modules_after


def test_naming_an_error_loads_next_to_nothing() -> None:
    added = modules_after("from cni import CniError, PluginError") - modules_after("import sys")
    assert {name for name in added if not name.startswith("_")} == {"cni", "cni.errors"}


def test_running_plugins_loads_little_beyond_asyncio() -> None:
    added = modules_after("from cni import Attachment, Cni, load") - modules_after("import asyncio")
    foreign = {name for name in added if not name.startswith(("cni", "_", "json."))}
    # 16 ms of them with the library's own modules, on the machine where asyncio takes 44 (Debian 12, 2026-11).
    assert foreign <= {
        "copy",
        "dataclasses",
        "fnmatch",
        "ipaddress",
        "json",
        "ntpath",
        "pathlib",
        "urllib",
        "urllib.parse",
    }


def test_a_name_that_is_not_there() -> None:
    import cni

    assert not hasattr(cni, "Nothing")
