"""Where templates are kept: found, made once, verified, removed, and bounded.

    DIR/<fingerprint>[.<namespace>]/     state, template.json: whole, or not there at all
    DIR/.<name>.new/                     one in the making
    DIR/.<name>.lock                     held by who makes it (rootfs/flock.py)

A template is made in a directory of its own and renamed. It may be removed at any time:
who starts from it has it open. The directory is root's alone.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.errors import HostError, NotFoundError, TemplateError
from shim.reclaim import reclaim
from shim.rootfs import flock
from shim.template.memory import MIB
from shim.template.metadata import FORMAT, Metadata, parse

STATE: Final = "state"
METADATA: Final = "template.json"
WHOLE: Final = "whole"
_METADATA_LIMIT: Final = 16384
# containerd's rule for namespaces (pkg/identifiers), so that none can name a path.
_NAME: Final = re.compile(r"[0-9a-f]{64}(\.[A-Za-z0-9]+([-._][A-Za-z0-9]+)*)?")


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of a state that was written: by which QEMU, and how many bytes of its beginning are memory."""

    qemu_version: str
    memory_size: int


# Fills a directory and the open file with a machine's state.
Make = Callable[[Path, int], Awaitable[Made]]


@dataclass(frozen=True, slots=True)
class Template:
    """A template that may be used: its state is open for reading in `fd`, which belongs to whoever opened it.

    The state is its memory, `metadata.memory_size` bytes, and after that what QEMU knows of its devices.
    """

    name: str
    metadata: Metadata
    fd: int

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the list: `metadata` is None, and `problem` says why, for one that cannot be used."""

    name: str
    metadata: Metadata | None
    problem: str = ""


def name_of(fingerprint: str, namespace: str = "") -> str:
    """What the template of a machine is called, or that of one namespace. Raises TemplateError for odd names."""
    name = f"{fingerprint}.{namespace}" if namespace else fingerprint
    if not _NAME.fullmatch(name):
        raise TemplateError(f"{name!r}: not the name of a template")
    return name


class Store:
    """The templates below `directory`, which together shall not exceed `limit_mib`."""

    def __init__(self, directory: Path, *, limit_mib: int) -> None:
        self._directory = directory
        self._limit_mib = limit_mib

    def open(self, name: str) -> Template:
        """Find a template without reading its state.

        Raises NotFoundError, or TemplateError with the reason for one that must not be used.
        """
        directory = self._directory / name
        try:
            metadata = parse(_text(directory / METADATA))
            fd = os.open(directory / STATE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            if directory.exists():
                raise TemplateError(f"template {name[:12]}: a part of it is missing") from None
            raise NotFoundError(f"there is no template {name[:12]}") from None
        except (OSError, TemplateError) as error:
            raise _unusable(name, error) from error
        try:
            if name_of(metadata.fingerprint, metadata.namespace) != name:
                raise TemplateError("its metadata is that of another")
            metadata.check_state(os.fstat(fd))
        except TemplateError as error:
            os.close(fd)
            raise _unusable(name, error) from error
        return Template(name, metadata, fd)

    def verify(self, name: str) -> Metadata:
        """As `open`, and read it all. Raises TemplateError also when the content is not what was saved."""
        template = self.open(name)
        try:
            if _sha256(template.fd) != template.metadata.sha256:
                raise TemplateError(f"template {name[:12]}: its state is damaged: another sha256 than when it was made")
        finally:
            template.close()
        return template.metadata

    def entries(self) -> list[Entry]:
        """All that are there, usable or not, newest first."""
        found = []
        for name in self._names():
            try:
                template = self.open(name)
            except NotFoundError:
                continue  # removed while we looked
            except TemplateError as error:
                found.append(Entry(name, None, error.message))
            else:
                template.close()
                found.append(Entry(name, template.metadata))
        return sorted(found, key=lambda entry: -entry.metadata.built_at if entry.metadata else 0)

    def remove(self, name: str) -> None:
        """Remove one; who starts from it right now is not disturbed. Raises NotFoundError, HostError."""
        directory = self._directory / name
        doomed = self._directory / f".{name}.{os.getpid()}.old"
        try:
            directory.rename(doomed)
            shutil.rmtree(doomed)
        except FileNotFoundError:
            raise NotFoundError(f"there is no template {name}") from None
        except OSError as error:
            raise HostError(f"{directory} cannot be removed: {error.strerror}") from error

    async def build(self, name: str, make: Make, timeout_s: float, *, again: bool = False) -> Metadata:
        """Make a template, or answer the one that is there and good, unless it shall be made `again`.

        One process at a time makes it; another waits at most `timeout_s` for that, and then
        has it too. Stale ones go. Raises what `make` raises, HostError for a full disk; then
        nothing of it is left.
        """
        begin_ns = time.monotonic_ns()
        self._make_directory()
        async with self._making(name, timeout_s):
            if not again:
                with contextlib.suppress(NotFoundError, TemplateError):
                    return await asyncio.to_thread(self.verify, name)
            draft = self._directory / f".{name}.new"
            reclaim(draft)
            try:
                metadata = await self._fill(draft, name, make, begin_ns)
                self._put_in_place(draft / WHOLE, name)
            except OSError as error:
                raise HostError(f"template {name[:12]} cannot be written: {error.strerror}") from error
            finally:
                reclaim(draft)
        self._prune(name)
        return metadata

    @contextlib.asynccontextmanager
    async def _making(self, name: str, timeout_s: float) -> AsyncIterator[None]:
        """Alone among those who make this template. Raises HostError when another takes too long."""
        try:
            lock = await flock.exclusive(self._lock(name), timeout_s)
        except TimeoutError:
            raise HostError(f"another process makes template {name[:12]} for more than {timeout_s:g} s") from None
        try:
            yield
        finally:
            self._lock(name).unlink(missing_ok=True)
            os.close(lock)

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry for entry in os.listdir(self._directory) if _NAME.fullmatch(entry))
        return []

    def _lock(self, name: str) -> Path:
        return self._directory / f".{name}.lock"

    def _make_directory(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"{self._directory} cannot be made: {error.strerror}") from error

    async def _fill(self, draft: Path, name: str, make: Make, begin_ns: int) -> Metadata:
        """Let `make` write the state into DRAFT/whole, then hash it and write the metadata beside it."""
        whole = draft / WHOLE
        for directory in (draft, whole):
            directory.mkdir(mode=0o700)
        fd = os.open(whole / STATE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            writable = os.open(whole / STATE, os.O_WRONLY | os.O_CLOEXEC)
            try:
                made = await make(draft, writable)
            finally:
                os.close(writable)
            await asyncio.to_thread(os.fsync, fd)
            metadata = _describe(fd, name, made, await asyncio.to_thread(_sha256, fd), begin_ns)
        finally:
            os.close(fd)
        _write_synced(whole / METADATA, metadata.to_json())
        return metadata

    def _put_in_place(self, whole: Path, name: str) -> None:
        """Rename the directory; what stood there goes first. A file that is renamed itself would get another ctime."""
        _sync_directory(whole)
        with contextlib.suppress(NotFoundError):
            self.remove(name)
        whole.rename(self._directory / name)
        _sync_directory(self._directory)

    def _prune(self, kept: str) -> None:
        """Remove templates of other machines, which nothing starts from any more, then the oldest above the limit."""
        left = self._limit_mib * MIB
        entries = self.entries()
        for entry in sorted(entries, key=lambda entry: entry.name != kept):
            size = entry.metadata.stored if entry.metadata else 0
            stale = entry.metadata is None or entry.metadata.fingerprint != kept.partition(".")[0]
            if entry.name != kept and (stale or size > left):
                with contextlib.suppress(NotFoundError):  # somebody else was quicker
                    self.remove(entry.name)
            else:
                left -= size
        self._sweep()

    def _sweep(self) -> None:
        """Remove what was left by a process that was killed while it made or removed a template."""
        for draft in self._directory.glob(".*.new"):
            with contextlib.suppress(OSError):
                lock = os.open(draft.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    if flock.try_exclusive(lock):
                        reclaim(draft)
                        draft.with_suffix(".lock").unlink(missing_ok=True)
                finally:
                    os.close(lock)
        for doomed in self._directory.glob(".*.old"):
            shutil.rmtree(doomed, ignore_errors=True)


def _unusable(name: str, error: OSError | TemplateError) -> TemplateError:
    reason = error.message if isinstance(error, TemplateError) else error.strerror
    return TemplateError(f"template {name[:12]}: {reason}", hint="run qemubox template build")


def _text(path: Path) -> str:
    """The metadata file's text; like the state, no link is followed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        return file.read(_METADATA_LIMIT)


def _describe(fd: int, name: str, made: Made, sha256: str, begin_ns: int) -> Metadata:
    fingerprint, _, namespace = name.partition(".")
    found = os.fstat(fd)
    return Metadata(
        format=FORMAT,
        fingerprint=fingerprint,
        namespace=namespace,
        qemu_version=made.qemu_version,
        size=found.st_size,
        stored=found.st_blocks * 512,
        memory_size=made.memory_size,
        sha256=sha256,
        inode=found.st_ino,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        built_at=int(time.time()),
        build_ms=(time.monotonic_ns() - begin_ns) // 1_000_000,
    )


def _sha256(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
