"""The prompt on the console: only where it is asked for, on a terminal of its own, there again when it has ended."""

import asyncio
import os
import pty
import sys
from pathlib import Path

import pytest

from api.link import GUEST_CONSOLE
from vminitd import console
from vminitd.reaper import Reaper

_ROOT = Path(__file__).parents[3]
_LIBRARY = [path for path in sys.path if path]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [(f"console=ttyS0 {GUEST_CONSOLE} quiet\n", True), (f"x{GUEST_CONSOLE}\n", False), ("console=ttyS0\n", False)],
)
def test_it_is_there_where_the_kernel_is_told(line: str, wanted: bool, tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text(line)
    assert console.is_wanted(str(tmp_path / "cmdline")) is wanted


class _Terminal:
    """The other end of the console."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.text = ""

    async def until(self, words: str, times: int = 1) -> None:
        """Read until `words` have come so often."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            while self.text.count(words) < times:
                came = asyncio.Event()
                loop.add_reader(self._master, came.set)
                try:
                    await came.wait()
                finally:
                    loop.remove_reader(self._master)
                self.text += os.read(self._master, 65536).decode()

    def type(self, line: str) -> None:
        os.write(self._master, line.encode())


async def test_it_answers_and_comes_again(reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    terminal = _Terminal(master)
    monkeypatch.setattr(console, "_PYTHON", sys.executable)
    monkeypatch.setattr(console, "_TERMINAL", os.ttyname(slave))
    monkeypatch.setattr(console, "_AGAIN_S", 0.0)
    # The guest's Python has no readline, which would lose a ^D that is typed while it is not reading.
    program = f"import sys; sys.path[:0] = {[str(_ROOT), *_LIBRARY]!r}; sys.modules['readline'] = None;"
    program += " from vminitd.prompt import main; main()"
    monkeypatch.setattr(console, "_PROGRAM", program)
    keeping = asyncio.create_task(console.keep_prompt(reaper))
    try:
        await terminal.until("qemubox> ")
        terminal.type("print(6 * 7, os.getpid() == os.getsid(0))\r")
        await terminal.until("42 True")
        terminal.type("while True: print('ti' + 'ck')\r\r")
        await terminal.until("tick")  # a ^C that comes just before it reads is heard with the next line
        terminal.type("\x03")
        await terminal.until("KeyboardInterrupt")
        terminal.type("ps()\r")
        await terminal.until("vminitd.prompt")
        terminal.type("run('false'); run('no-such'); cat('/proc/sys/kernel/ostype'); ls('/proc/self')\r")
        for words in ("false: status 1", "no-such: No such file", "Linux", "exe -> "):
            await terminal.until(words)
        terminal.type("help()\r")
        await terminal.until("dmesg(): the kernel's log")
        terminal.type("\x04")
        await terminal.until("a Python prompt in the guest's own root", times=2)
    finally:
        keeping.cancel()
        await asyncio.wait((keeping,))
        os.close(master)  # the prompt ends with its terminal
        os.close(slave)


async def test_without_python_vminitd_goes_on(reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_PYTHON", "/no/such/python")
    async with asyncio.timeout(20):
        await console.keep_prompt(reaper)
