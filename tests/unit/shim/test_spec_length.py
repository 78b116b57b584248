"""How long a specification may be: it travels to the guest in one message."""

import pytest

from shim.errors import SpecError
from shim.spec import FILES_LIMIT, SPEC_LIMIT, Json, for_guest
from ttrpc.frame import MAX_DATA


def _spec(environment_bytes: int) -> Json:
    process: Json = {"args": ["true"], "cwd": "/", "env": ["A=" + "x" * environment_bytes]}
    linux: Json = {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]}
    return {"ociVersion": "1.2.1", "root": {"path": "rootfs"}, "process": process, "linux": linux}


def test_one_that_is_too_long_is_refused_before_anything_is_made_for_it() -> None:
    with pytest.raises(SpecError, match=rf"has 2\d{{6}} bytes for the guest, and {SPEC_LIMIT} at most") as caught:
        for_guest(_spec(SPEC_LIMIT), terminal=False)
    assert "shorten the container's arguments, environment" in caught.value.hint


def test_the_longest_fits_the_message_with_all_files_that_there_may_be() -> None:
    document = for_guest(_spec(SPEC_LIMIT - (1 << 10)), terminal=False).json
    assert len(document) + FILES_LIMIT + (64 << 10) < MAX_DATA
