"""Whom a machine's QEMU runs as. Needs root, and the user nobody."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import pytest

from shim.config import Config
from shim.errors import ConfigError
from shim.hypervisor import credentials_of, own_uid
from shim.vm.process import SETPRIV, Credentials

_NOBODY = pwd.getpwnam("nobody")
_DEADLINE_S = 20

# Exit status 0: it may trace the process; 1: it may not (ptrace(2), PTRACE_SEIZE); 2: nor even kill it.
_INTRUDER = """
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(0x4206, pid, None, None) == 0:
    sys.exit(0)
try:
    os.kill(pid, 0)
except PermissionError:
    sys.exit(2)
sys.exit(1)
"""


def _config(user: str = "nobody", user_ids: Literal["own", "one"] = "own") -> Config:
    return Config()._replace(runtime=Config().runtime._replace(user=user, user_ids=user_ids))


def test_each_machine_has_a_user_id_of_its_own_and_the_group_of_all() -> None:
    credentials = credentials_of(_config())
    assert credentials.uid == own_uid(os.getpid())
    assert credentials.gid == _NOBODY.pw_gid


def test_one_user_for_all_where_the_configuration_says_so() -> None:
    assert credentials_of(_config(user_ids="one")).uid == _NOBODY.pw_uid


def test_the_ids_are_those_that_nobody_gives_out() -> None:
    """systemd, UIDS-GIDS: 1879048192 to 2147483647 is unused; proc(5): pids are 1 to 2^22 - 1."""
    assert 1_879_048_192 <= own_uid(1) < own_uid((1 << 22) - 1) <= 2_147_483_647


def test_a_user_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no-such-user"):
        credentials_of(_config(user="no-such-user"))


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs as a machine's QEMU does."""
    credentials = Credentials(own_uid(1), _NOBODY.pw_gid)
    process = subprocess.Popen([SETPRIV, *credentials.setpriv_args(), "--", "/usr/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_one_machine_can_neither_trace_nor_kill_another(victim: subprocess.Popen[bytes]) -> None:
    while os.stat(f"/proc/{victim.pid}").st_uid != own_uid(1):  # setpriv is at it
        assert victim.poll() is None
    intruder = Credentials(own_uid(2), _NOBODY.pw_gid)
    command = [SETPRIV, *intruder.setpriv_args(), "--", sys.executable, "-Ic", _INTRUDER, str(victim.pid)]
    assert subprocess.run(command, timeout=_DEADLINE_S, check=False).returncode == 2
