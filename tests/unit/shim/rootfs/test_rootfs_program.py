"""Running a tool: its end, its words, its time, and that it never outlives the shim."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from shim.errors import HostError, MissingPartError, ResourceError
from shim.rootfs.program import Tool, run

SH = Tool("sh", "dash", timeout_s=20)


async def test_success_says_nothing() -> None:
    await run(SH, ["-c", "echo said; echo said >&2"], task="speak")


async def test_the_environment_is_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("MKE2FS_CONFIG", "/odd")
    tool = Tool("env", "coreutils", 20, (("EXTRA", "yes"),))
    await run(tool, ["sh", "-c", 'env > "$0"', str(tmp_path / "out")], task="look")
    found = dict(line.split("=", 1) for line in (tmp_path / "out").read_text().splitlines())
    assert found.keys() - {"PWD", "_"} == {"LC_ALL", "PATH", "EXTRA"}
    assert (found["LC_ALL"], found["EXTRA"]) == ("C", "yes")


async def test_failure_has_the_last_words_and_the_status() -> None:
    with pytest.raises(HostError) as failure:
        await run(SH, ["-c", "echo first >&2; echo '  last ' >&2; echo >&2; exit 3"], task="do it")
    assert failure.value.message == "sh could not do it: last (exit status 3)"


async def test_of_very_many_words_the_last_are_kept() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(HostError, match="sh could not do it: last "):
            await run(Tool("sh", "dash", 50), ["-c", "yes | head -c 50000000 >&2; echo last >&2; exit 1"], task="do it")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20


async def test_its_words_can_be_shown_on_a_terminal() -> None:
    with pytest.raises(HostError) as failure:
        await run(Tool("sh", "dash", 10), ["-c", r"printf 'cannot read a\033[2Jb\n' >&2; exit 1"], task="do it")
    assert failure.value.message == "sh could not do it: cannot read a [2Jb (exit status 1)"


async def test_death_by_a_signal_is_named() -> None:
    with pytest.raises(HostError, match=r"sh could not die: no message \(killed by signal 9\)"):
        await run(SH, ["-c", "kill -9 $$"], task="die")


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded", "File too large"])
async def test_no_room(words: str) -> None:
    with pytest.raises(ResourceError) as failure:
        await run(SH, ["-c", f"echo 'x: {words}' >&2; echo more >&2; exit 1"], task="write /x")
    assert str(failure.value) == "no room to write /x (free some of that file system)"


async def test_a_missing_program_and_its_package() -> None:
    with pytest.raises(MissingPartError) as failure:
        await run(Tool("no-such-program", "some-package", 1), [], task="x")
    assert str(failure.value) == "no-such-program: no such program (apt-get install some-package)"


async def test_the_deadline_ends_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"sh did not finish within 0\.2 s"):
        await run(Tool("sh", "dash", 0.2), ["-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"], task="finish")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


async def test_cancellation_ends_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = asyncio.create_task(run(SH, ["-c", f"echo $$ > {fifo}; exec sleep 1000"], task="wait"))
    pid = (await asyncio.to_thread(fifo.read_text)).strip()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path("/proc", pid).exists()


async def test_descriptors_are_handed_on(tmp_path: Path) -> None:
    read, write = os.pipe()
    await run(SH, ["-c", f"echo through > /proc/self/fd/{write}"], task="write", keep_open=[write])
    os.close(write)
    assert os.read(read, 100) == b"through\n"
    os.close(read)


def test_it_dies_with_the_shim(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "import asyncio; from shim.rootfs.program import Tool, run;"
        f"asyncio.run(run(Tool('sh', '', 100), ['-c', 'echo $$ > {fifo}; exec sleep 1000'], task='x'))"
    )
    shim = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[4])
    tool = os.pidfd_open(int(fifo.read_text()))
    shim.send_signal(signal.SIGKILL)
    shim.wait()
    ended, _, _ = select.select([tool], [], [], 10)
    os.close(tool)
    assert ended
