"""A program without privileges, that dies with us and whose last words are kept."""

import asyncio
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shim.errors import HostError, MissingPartError
from shim.journal import Journal
from shim.vm import process
from shim.vm.process import STDERR_LIMIT, Credentials, Process, spawn

SH = "/bin/bash"


def start(script: str, credentials: Credentials, journal: Journal, *fds: int) -> Process:
    return spawn(
        [SH, "-c", script, "the-marker"],
        name="script",
        marker="the-marker",
        credentials=credentials,
        journal=journal,
        pass_fds=fds,
    )


async def ended(process: Process) -> int:
    async with asyncio.timeout(20):
        return await process.exited


async def test_the_status_is_the_programs(credentials: Credentials, journal: Journal) -> None:
    assert await ended(start("exit 7", credentials, journal)) == 7
    assert await ended(start("kill -SEGV $$", credentials, journal)) == -signal.SIGSEGV


async def test_it_has_no_privileges_no_terminal_and_no_secrets(
    credentials: Credentials, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "value")
    child = start("grep -E 'Uid|Gid|Groups|Cap|NoNewPrivs' /proc/self/status; env; pwd", credentials, journal)
    assert await ended(child) == 0
    fields = dict(line.split(":\t", 1) for line in child.stderr.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["65534"] * 4
    assert fields["Gid"].split() == ["65534"] * 4
    assert fields["Groups"].split() == []
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert "SECRET" not in child.stderr
    assert child.stderr.endswith("\n/")


async def test_what_qemu_says_for_nothing_does_not_hide_its_words(credentials: Credentials, journal: Journal) -> None:
    idle = "qemu-system-x86_64: ram_block_discard_range: Failed to fallocate base:7c00000 +200000 (-1)"
    child = start(f"echo first; for i in 1 2 3 4 5; do echo '{idle}'; done; echo last; exit 1", credentials, journal)
    assert await ended(child) == 1
    assert child.stderr == "first\nlast"
    assert child.failure() == "script ended with exit status 1: first | last"


async def test_further_groups_are_given(journal: Journal) -> None:
    child = start("id -G", Credentials(65534, 65534, groups=(20, 21)), journal)
    assert await ended(child) == 0
    assert child.stderr.split() == ["65534", "20", "21"]


async def test_it_may_open_many_files_and_dumps_no_core(credentials: Credentials, journal: Journal) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)
    child = start("ulimit -Sn; ulimit -Hn; ulimit -Sc", credentials, journal)
    assert await ended(child) == 0
    soft, hard, core = child.stderr.split()
    assert soft == hard
    assert core == "0"
    assert (resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)) == before


@pytest.mark.parametrize(("inherited", "given"), [("-999\n", "0"), ("-1\n", "0"), ("0\n", "0\n"), ("300\n", "300\n")])
async def test_the_host_can_kill_it_for_its_memory_before_what_is_spared(
    credentials: Credentials,
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inherited: str,
    given: str,
) -> None:
    """To be spared takes a capability that these tests need not have: so /proc is a directory here."""
    made: list[int] = []
    popen = subprocess.Popen

    def note(*words: object, **options: object) -> subprocess.Popen[bytes]:
        child: subprocess.Popen[bytes] = popen(*words, **options)  # type: ignore[call-overload]
        made.append(child.pid)
        (tmp_path / str(child.pid)).mkdir()
        (tmp_path / str(child.pid) / "oom_score_adj").write_text(inherited)
        return child

    monkeypatch.setattr(subprocess, "Popen", note)
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert await ended(start("true", credentials, journal)) == 0
    assert (tmp_path / str(made[0]) / "oom_score_adj").read_text() == given


async def test_only_the_descriptors_it_is_given(credentials: Credentials, journal: Journal) -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    child = start(f"echo given >&{write}; ls /proc/self/fd | tr '\\n' ' '", credentials, journal, write)
    os.close(write)
    assert await ended(child) == 0
    assert os.read(read, 100) == b"given\n"
    # 3 is what ls itself opened; `read` is inheritable and did not come along.
    assert set(child.stderr.split()) - {"0", "1", "2", str(write)} <= {"3"} | ({str(read)} if read == 3 else set())
    os.close(read)


async def test_its_words_can_be_shown_on_a_terminal(credentials: Credentials, journal: Journal) -> None:
    script = r"""printf '\033]0;title\007a\nb\r\xff\342\200\256c\n'; exit 1"""
    process = start(script, credentials, journal)
    assert await ended(process) == 1
    assert process.failure() == "script ended with exit status 1: ?]0;title?a | b?\ufffd?c"


async def test_only_the_end_of_its_words_is_kept(credentials: Credentials, journal: Journal) -> None:
    child = start("i=0; while [ $i -lt 20000 ]; do echo word$i >&2; i=$((i+1)); done", credentials, journal)
    assert await ended(child) == 0
    assert child.stderr.endswith("word19999")
    assert len(child.stderr) <= STDERR_LIMIT
    assert child.failure().startswith("script ended with exit status 0: word19996 | ")


async def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us(credentials: Credentials, journal: Journal) -> None:
    child = start("sleep 60 & echo $!; exit 3", credentials, journal)
    assert await ended(child) == 3
    os.kill(int(child.stderr), signal.SIGKILL)


async def test_kill(credentials: Credentials, journal: Journal) -> None:
    child = start("exec sleep 60", credentials, journal)
    assert not child.ended
    assert child.failure() == "script is still running"
    child.kill()
    assert await ended(child) == -signal.SIGKILL
    assert child.ended
    child.kill()
    assert child.failure() == "script was killed by SIGKILL"


async def test_it_is_journaled_before_it_is_started(
    credentials: Credentials, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def refuse(*_: object, **__: object) -> None:
        seen.append(journal.entries())
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(HostError, match="script cannot be started: Cannot allocate memory"):
        start("exit 0", credentials, journal)
    assert seen == [[{"kind": "process", "marker": "the-marker"}]]


async def test_its_command_line_holds_the_marker(credentials: Credentials, journal: Journal) -> None:
    up, up_child = os.pipe()
    stay_child, stay = os.pipe()
    child = start(f"echo up >&{up_child}; read -u {stay_child}", credentials, journal, up_child, stay_child)
    assert os.read(up, 3) == b"up\n"  # before that, between two programs, a command line is empty for an instant
    assert b"the-marker" in Path(f"/proc/{child.pid}/cmdline").read_bytes()
    for fd in (up, up_child, stay, stay_child):
        os.close(fd)
    assert await ended(child) == 1
    with pytest.raises(HostError, match="other is not in its command line"):
        spawn([SH], name="script", marker="other", credentials=credentials, journal=journal, pass_fds=())


async def test_without_setpriv_the_package_is_named(
    credentials: Credentials, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SETPRIV", "/nonexistent/setpriv")
    with pytest.raises(MissingPartError, match="install util-linux"):
        start("exit 0", credentials, journal)


async def test_another_thread_may_not_start_it(credentials: Credentials, journal: Journal) -> None:
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            start("exit 0", credentials, journal)
        except HostError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(timeout=20)
    assert "main thread" in str(failures[0])


async def test_no_descriptor_is_left(credentials: Credentials, journal: Journal) -> None:
    before = set(os.listdir("/proc/self/fd"))
    await ended(start("echo words; exit 1", credentials, journal))
    assert set(os.listdir("/proc/self/fd")) == before


PARENT = """
import asyncio, pathlib, sys
from shim.journal import Journal
from shim.vm.process import Credentials, spawn
async def main():
    child = spawn(["/bin/sh", "-c", "echo up; exec sleep 61.25"], name="sleep", marker="61.25",
                  credentials=Credentials(65534, 65534), journal=Journal(pathlib.Path(sys.argv[1])), pass_fds=())
    while child.stderr != "up":  # it runs, so setpriv has asked for the death signal
        await asyncio.sleep(0.001)
    print(child.pid, flush=True)
    await child.exited
asyncio.run(main())
"""


def test_it_dies_when_we_are_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    pidfd = os.pidfd_open(pid)
    parent.kill()
    parent.communicate()
    ready, _, _ = select.select([pidfd], [], [], 20)
    os.close(pidfd)
    assert ready, "the program outlived us"
