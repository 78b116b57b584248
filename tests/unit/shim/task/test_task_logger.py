"""Loggers: real programs, what they get and nothing else, and how they and we part."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.frames import END, header
from shim import deadlines
from shim.errors import HostError, MissingPartError, SpecError, UnsupportedError
from shim.journal import Journal
from shim.log import Logger
from shim.reclaim import reclaim, start_time
from shim.task.logger import Loggers
from shim.task.logger_address import LoggerAddress, parse
from shim.task.stdio import ProcessStreams
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.ends import Guest, soon

# Copies both streams into files beside it, then says so in a third; FIRST is what it does before.
_PROGRAM = """#!{python} -IS
import os, sys, threading
FIRST
def copy(fd, name):
    with open(f"{directory}/" + name, "wb") as out:
        while data := os.read(fd, 65536):
            out.write(data)
            out.flush()
readers = [threading.Thread(target=copy, args=each) for each in ((3, "stdout"), (4, "stderr"))]
for each in readers: each.start()
for each in readers: each.join()
LAST
with open("{directory}/whole", "w") as out: out.write("whole")
"""


class Programs:
    """Makes loggers, and starts them."""

    def __init__(self, directory: Path, log: Logger) -> None:
        self.directory = directory
        self.journal = Journal(directory)
        self.loggers = Loggers("ns", self.journal, log)

    def make(self, first: str = "os.close(5)", last: str = "") -> str:
        """A logger's path."""
        path = self.directory / "logger"
        text = _PROGRAM.replace("{python}", sys.executable).replace("{directory}", str(self.directory))
        path.write_text(text.replace("FIRST", first).replace("LAST", last))
        path.chmod(0o755)
        return str(path)

    def text(self, name: str) -> str:
        """What it has written to a file."""
        return (self.directory / name).read_text()


@pytest.fixture
def programs(tmp_path: Path, log: Logger) -> Iterator[Programs]:
    directory = tmp_path / "vm"
    directory.mkdir()
    log.info("the log is open")
    programs = Programs(directory, log)
    yield programs
    for entry in programs.journal.entries():
        assert _is_gone(int(str(entry["marker"]).split()[0]))


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; one that was left to an init that reaps nobody has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that does not end is waited for in tenths of seconds."""
    monkeypatch.setattr(deadlines, "LOGGER_TERM_S", 0.3)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("binary:///a/b", LoggerAddress("/a/b", (), speaks=False)),
        ("binary-v2:///a?k=v", LoggerAddress("/a", ("k", "v"), speaks=True)),
        (
            "binary:///a%20b?z=1&a=%2Fx+y&z=2&e=&bare",
            LoggerAddress("/a b", ("z", "1", "a", "/x y", "e", "", "bare", ""), speaks=False),
        ),
        ("/run/fifo", None),
        ("file:///x", None),
        ("binaryx:///x", None),
        ("", None),
    ],
)
def test_what_an_address_says(address: str, expected: LoggerAddress | None) -> None:
    assert parse(address) == expected


@pytest.mark.parametrize("address", ["binary://", "binary://host/x", "binary:///x%00", "binary:///x?a=%00"])
def test_an_address_that_names_nothing_is_refused(address: str) -> None:
    with pytest.raises(SpecError, match="names no logger"):
        parse(address)


async def test_a_logger_gets_what_containerd_s_shim_gives_and_nothing_else(programs: Programs) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as what comes through a socket is
    first = (
        "import json; fds = {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') "
        "if os.path.exists(f'/proc/self/fd/{fd}')};"
        f"json.dump([sys.argv, dict(os.environ), fds], open('{programs.directory}/seen', 'w')); os.write(5, b'r')"
    )
    with same_fds():
        address = parse(f"binary-v2://{programs.make(first)}?b=1&a=2")
        assert address is not None
        logger = await soon(programs.loggers.start(address, "exec-1"))
        os.close(logger.stdout)
        os.close(logger.stderr)
        await soon(logger.end())
    os.close(reader)
    os.close(writer)
    words, environment, fds = json.loads(programs.text("seen"))
    assert words[1:] == ["b", "1", "a", "2"]
    environment.pop("LC_CTYPE", None)  # Python sets it in itself
    assert environment == {"CONTAINER_ID": "exec-1", "CONTAINER_NAMESPACE": "ns"}
    assert sorted(fds) == ["0", "1", "2", "3", "4", "5"]
    assert fds["0"] == "/dev/null"
    assert all(fds[fd].startswith("pipe:") for fd in "12345")


async def test_a_process_s_output_is_with_the_logger_before_it_ends(programs: Programs) -> None:
    address = f"binary://{programs.make()}"
    with same_fds():
        streams = ProcessStreams(terminal=False, stdin="", stdout=address, stderr=address)
        await soon(streams.open(programs.loggers, "c"))
        assert streams.names == ("stdout", "stderr")
        guests = {name: Guest() for name in streams.names}
        for name, guest in guests.items():
            streams.connect(name, guest.ours)
        await guests["stdout"].send(header(200_000) + b"o" * 200_000 + END)
        await guests["stderr"].send(header(3) + b"err" + END)
        assert await soon(streams.drained()) == []
        await soon(streams.close())
        for guest in guests.values():
            guest.close()
    assert (programs.text("stdout"), programs.text("stderr")) == ("o" * 200_000, "err")
    assert programs.text("whole") == "whole"


async def test_a_terminal_s_logger_has_one_stream(programs: Programs) -> None:
    address = f"binary://{programs.make()}"
    with same_fds():
        streams = ProcessStreams(terminal=True, stdin="", stdout=address, stderr="")
        await soon(streams.open(programs.loggers, "c"))
        assert streams.names == ("stdout",)
        await soon(streams.close())
    assert programs.text("whole") == "whole"


async def test_one_logger_takes_both_streams() -> None:
    with pytest.raises(UnsupportedError, match="one logger takes both"):
        ProcessStreams(terminal=False, stdin="", stdout="binary:///a", stderr="binary:///b")
    with pytest.raises(UnsupportedError, match="a logger is named by standard output"):
        ProcessStreams(terminal=False, stdin="", stdout="/dev/null", stderr="binary:///b")


@pytest.mark.parametrize("scheme", ["binary", "binary-v2"])
@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("sys.exit('out of paper')", "ended with exit status 1 before it was ready: out of paper"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9 before it was ready"),
    ],
)
async def test_one_that_dies_before_it_is_ready_is_quoted(
    programs: Programs, scheme: str, first: str, words: str
) -> None:
    address = parse(f"{scheme}://{programs.make(first)}")
    assert address is not None
    with same_fds(), pytest.raises(HostError, match=words):
        await soon(programs.loggers.start(address, "c"))


async def test_closing_without_a_word_is_not_ready_for_the_newer_kind(programs: Programs) -> None:
    address = parse(f"binary-v2://{programs.make()}")
    assert address is not None
    with same_fds(), pytest.raises(HostError, match="closed its streams before it was ready"):
        await soon(programs.loggers.start(address, "c"))


async def test_one_that_is_never_ready_is_ended(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LOGGER_READY_S", 0.5)
    address = parse(f"binary://{programs.make('import time; time.sleep(1000)')}")
    assert address is not None
    with same_fds(), pytest.raises(HostError, match=r"was not ready after 0\.5 s"):
        await soon(programs.loggers.start(address, "c"))


async def test_a_program_that_is_not_there(programs: Programs) -> None:
    with same_fds():
        with pytest.raises(MissingPartError, match="the logger /nonexistent/x cannot be started: no such file"):
            await programs.loggers.start(LoggerAddress("/nonexistent/x", (), speaks=False), "c")
        with pytest.raises(HostError, match="the logger /etc/passwd cannot be started: Permission denied"):
            await programs.loggers.start(LoggerAddress("/etc/passwd", (), speaks=False), "c")


async def test_one_that_does_not_end_is_ended(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LOGGER_EOF_S", 0.3)
    last = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)"
    first = "import signal; signal.signal(15, signal.SIG_IGN); os.close(5)"
    address = f"binary://{programs.make(first, last)}"
    with same_fds():
        streams = ProcessStreams(terminal=False, stdin="", stdout=address, stderr=address)
        await soon(streams.open(programs.loggers, "c"))
        await soon(streams.close())
    assert not (programs.directory / "whole").exists()


async def test_what_a_logger_says_is_bounded_and_never_kills_it(programs: Programs) -> None:
    first = "os.close(5); [os.write(2, b'x' * 1000) for _ in range(300)]"
    address = f"binary://{programs.make(first)}"
    streams = ProcessStreams(terminal=False, stdin="", stdout=address, stderr=address)
    await soon(streams.open(programs.loggers, "c"))
    await soon(streams.close())
    assert programs.text("whole") == "whole"


def test_after_a_kill_of_the_shim_the_logger_writes_all_it_read(programs: Programs, tmp_path: Path) -> None:
    """A process that starts a logger and is killed: what `delete` does then."""
    directory = tmp_path / "killed"
    directory.mkdir()
    program = f"""
import asyncio, os, sys
sys.path[:0] = {sys.path!r}
from shim.journal import Journal
from shim.task.logger import Loggers
from shim.task.logger_address import parse
async def main():
    loggers = Loggers("ns", Journal({str(directory)!r}), None)
    logger = await loggers.start(parse("binary://{programs.make()}"), "c")
    os.write(logger.stdout, b"last words")
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -9
    pid = int(str(Journal(directory).entries()[-1]["marker"]).split()[0])
    assert reclaim(directory) == []
    assert _is_gone(pid)
    assert not directory.exists()
    assert (programs.text("stdout"), programs.text("whole")) == ("last words", "whole")


@pytest.mark.parametrize("first", ["", "signal.signal(15, signal.SIG_IGN);"])
def test_a_child_that_outlives_the_shim_is_made_to_end(tmp_path: Path, first: str) -> None:
    text = f"import signal; {first} print(flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    child.stdout.read(1)
    Journal(tmp_path).record("child", marker=f"{child.pid} {start_time(child.pid)}")
    assert reclaim(tmp_path) == []
    assert child.wait() == (-9 if first else -15)
    child.stdout.close()


def test_another_process_of_a_child_s_number_is_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).record("child", marker=f"{os.getpid()} {start_time(os.getpid()) - 1}")
    assert reclaim(tmp_path) == []


async def test_given_up_while_it_gets_ready_nothing_is_left(programs: Programs) -> None:
    address = parse(f"binary://{programs.make('import time; time.sleep(1000)')}")
    assert address is not None
    with same_fds(), pytest.raises(TimeoutError):
        await asyncio.wait_for(programs.loggers.start(address, "c"), 0.5)
    assert len(programs.journal.entries()) == 1
