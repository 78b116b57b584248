"""What the guest gets of the OCI process of an exec."""

import json

import pytest

from shim.errors import SpecError
from shim.process_spec import process_for_guest
from shim.spec import Json

# What `ctr tasks exec` of containerd 2.3 writes, and what else the specification has.
_KEPT: Json = {
    "terminal": True,
    "consoleSize": {"height": 24, "width": 80},
    "user": {"uid": 1000, "gid": 1000, "additionalGids": [10], "umask": 18},
    "args": ["/bin/true"],
    "env": ["PATH=/bin"],
    "cwd": "/",
    "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
    "noNewPrivileges": True,
    "oomScoreAdj": 100,
    "scheduler": {"policy": "SCHED_BATCH"},
    "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
}
_LEFT_OUT: Json = {
    "apparmorProfile": "cri-containerd.apparmor.d",
    "selinuxLabel": "x",
    "execCPUAffinity": {"initial": "0-3"},
    "commandLine": "true",
    "whatever comes next": 1,
}


def _process(**changes: object) -> bytes:
    return json.dumps({"args": ["true"], "cwd": "/", **changes}).encode()


def test_what_the_guest_may_see_goes_on_as_it_came() -> None:
    assert json.loads(process_for_guest(json.dumps({**_KEPT, **_LEFT_OUT}).encode(), terminal=True)) == _KEPT


def test_what_is_null_is_as_if_it_were_not_there() -> None:
    document = _process(env=None, terminal=None)
    assert json.loads(process_for_guest(document, terminal=False)) == {
        "args": ["true"],
        "cwd": "/",
        "terminal": False,
    }


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "args of the process to exec is None"),
        (_process(args=[]), r"args of the process to exec is \[\]"),
        (_process(args="true"), "args of the process to exec is 'true'"),
    ],
)
def test_what_is_no_process_is_refused(document: bytes, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        process_for_guest(document, terminal=False)


@pytest.mark.parametrize("said", [None, False, True, 0])
@pytest.mark.parametrize("asked", [False, True])
def test_whether_it_gets_a_terminal_says_exec(said: object, asked: bool) -> None:
    assert json.loads(process_for_guest(_process(terminal=said), terminal=asked))["terminal"] is asked
