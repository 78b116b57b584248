"""`qemubox logs`: what the guest has printed on its console, as far as it is kept (shim/vm/console.py), and what comes.

What a guest prints is its own to choose. On a terminal it is shown without control characters, so that it does nothing
to the terminal; into a file or a pipe go the bytes as they are.
"""

import argparse
import asyncio
import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from shim import deadlines, inspection
from shim.claim import LOCK_NAME
from shim.cli.processes import usage
from shim.config import load
from shim.copy.address import Shim, locate
from shim.descriptors import readable
from shim.errors import HostError, NotFoundError
from shim.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_MODIFY, IN_MOVED_TO, Watch

FILE_NAME: Final = "console"
_PIECE: Final = 65536
_KIB: Final = 1024


def run(arguments: argparse.Namespace) -> int:
    """Print it. Raises NotFoundError, HostError."""
    shim = locate(Path(load().runtime.state_dir), arguments.id, arguments.namespace)
    if not arguments.console:
        print("\n".join(there(shim)))
        return 0
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        made_harmless = Harmless()

        def write(data: bytes) -> None:
            out.write(made_harmless(data) if out.isatty() else data)
            out.flush()

        console = Console(shim.directory / FILE_NAME)
        try:
            if arguments.follow:
                asyncio.run(follow(shim, console, write))
            else:
                for piece in console.all():
                    write(piece)
        finally:
            console.close()
    return 0


def there(shim: Shim) -> list[str]:
    """Which logs there are of a machine, a line each."""
    size = 0
    for path in (shim.directory / f"{FILE_NAME}.1", shim.directory / FILE_NAME):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    ours = shim.address
    return [
        f"the guest's console, {size / _KIB:.0f} KiB: qemubox logs --console --namespace {ours.namespace} {ours.id}",
        f"the shim's, in containerd's: journalctl -u containerd | grep {ours.id}",
        "the container's own output is with its client: nerdctl logs, kubectl logs; ctr keeps none",
    ]


class Harmless:
    """Lines and tabs as they are, every other control character as a "?": ECMA-48 sequences do nothing then.

    Of what comes in pieces; a letter or the end of a line that is cut in two is shown with the next one.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._return = ""

    def __call__(self, data: bytes) -> bytes:
        text = self._return + self._decoder.decode(data)
        self._return = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n")
        return "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text).encode()


class Console:
    """The pair of files, read from its beginning on, once: FILE.1 and then FILE, and whatever takes their places."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = path.with_name(f"{path.name}.1")
        self._file: BinaryIO | None = None

    def all(self) -> Iterator[bytes]:
        """What is there now. Raises NotFoundError where there is no such file, HostError."""
        try:
            while True:
                self._file = self._path.open("rb")
                older = _open(self._before)
                if older is None or not _same(older, self._file):
                    break
                older.close()  # it has just been renamed: the next look finds both
                self.close()
        except FileNotFoundError:
            raise NotFoundError(f"{self._path}: the machine has no console (any more)") from None
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}") from error
        if older is not None:
            with older:
                yield from _rest(older)
        yield from _rest(self._file)

    def new(self) -> Iterator[bytes]:
        """What has come since. Of a guest that prints faster than it is read, the last of it."""
        assert self._file is not None
        while True:
            yield from _rest(self._file)
            current = _open(self._path)
            if current is None or _same(current, self._file):
                if current is not None:
                    current.close()
                return
            yield from _rest(self._file)  # what was written between the last look and its renaming
            older = _open(self._before)
            if older is not None:
                with older:
                    if not _same(older, self._file):
                        yield from _rest(older)
            self._file.close()
            self._file = current

    def close(self) -> None:
        """It is not read any more."""
        if self._file is not None:
            self._file.close()
            self._file = None


async def follow(shim: Shim, console: Console, write: Callable[[bytes], None]) -> None:
    """Hand `write` what there is, and what comes, until the machine has ended. Raises NotFoundError, HostError."""
    with Watch() as watch:
        watch.add(shim.directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE)
        ended = asyncio.create_task(_end(shim))
        try:
            for piece in console.all():
                write(piece)
            while not ended.done():
                news = asyncio.create_task(watch.event())
                await asyncio.wait((news, ended), return_when=asyncio.FIRST_COMPLETED)
                await _stop(news)
                for piece in console.new():
                    write(piece)
            # The shim still takes what QEMU has left.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadlines.LOOK_S):
                    await watch.event()
            for piece in console.new():
                write(piece)
        finally:
            await _stop(ended)


async def _end(shim: Shim) -> None:
    """Return when QEMU has ended, or, as long as it is not known which it is, the shim."""
    known = inspection.read(shim.directory)
    if known is not None and usage(known.qemu_pid, shim.directory.name) is not None:
        pid = known.qemu_pid
    else:
        pid = _holder(shim.directory)
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):  # it has ended already
        return
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)


def _holder(directory: Path) -> int:
    """The shim's pid, as it stands in its lock; -1 where there is none."""
    try:
        return int((directory / LOCK_NAME).read_text())
    except (OSError, ValueError):
        return -1


async def _stop(task: "asyncio.Task[None]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))


def _rest(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_PIECE):
        yield data
