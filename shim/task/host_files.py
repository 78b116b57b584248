"""The small files of the host that a container has copies of: as they are at Create, and as they are rewritten later.

On the host a bind mount shows the very file, so the container sees what is written into it: nerdctl rewrites the hosts
files of all containers of a network in place when one of them comes or goes (its pkg/dnsutil/hostsstore; each is
truncated and written anew, then chmod'ed), the kubelet those of its pods. Here the kernel tells of the writing
(inotify(7)), the file is read once more, and vminitd writes the same into the container's copy, in place. A file that
is put in place of another by rename(2), or removed, is not seen through a bind mount either: the container keeps what
it has. What the host's file says counts; what the container has written into its copy is gone with the next rewriting.

Nothing in here may harm a container that runs: what cannot be read or sent is logged.
"""

import asyncio
import errno
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from api import guest_pb2
from shim import deadlines
from shim.errors import GuestError, HostError, MachineError, MissingPartError, SpecError
from shim.guest import Guest
from shim.inotify import IN_ATTRIB, IN_CLOSE_WRITE, IN_MODIFY, Watch
from shim.log import Logger
from shim.mounts import sources
from shim.mounts.sources import Source
from shim.spec import FILES_LIMIT, HostFile

# Whoever writes truncates first, and writes several files: all that comes within this time is read at once.
_SETTLE_S: Final = 0.05
# From one message to the guest to the next, however often a file is written.
_PAUSE_S: Final = 0.5
_ANOTHER: Final = "another file stands in its place"


class _Watched(NamedTuple):
    """A file by its device and inode, and by the number under which it is watched."""

    device: int
    inode: int
    number: int


class HostFiles:
    """Those of one container. `read` them for Create, `begin` once it is made, `close` at its end."""

    def __init__(self, container_id: str, files: tuple[HostFile, ...], log: Logger) -> None:
        self._container_id = container_id
        self._files = files
        self._log = log
        self._watch = self._new_watch() if files else None
        # By name: what is watched, and what of it was sent last.
        self._watched: dict[str, _Watched] = {}
        self._sent: dict[str, guest_pb2.File] = {}
        # Names of those that the guest may not have as they were sent; of those that are no longer what they were.
        self._unsure: set[str] = set()
        self._lost: set[str] = set()
        self._following: asyncio.Task[None] | None = None

    def read(self) -> list[guest_pb2.File]:
        """Their content by now. Blocks. What is written from here on will be sent.

        Raises MissingPartError for one that is gone, SpecError where they are too much for one container.
        """
        found = []
        left = FILES_LIMIT
        for file in self._files:
            try:
                message = self._first(file, left)
            except OSError as error:
                raise MissingPartError(f"cannot read {file.path} for the container: {error.strerror}") from error
            left -= len(message.content)
            if left < 0:  # a hook has made it larger
                raise SpecError(f"{file.path}: the container's files have more than {FILES_LIMIT >> 20} MiB together")
            found.append(message)
            self._sent[file.name] = message
        return found

    def begin(self, guest: Guest) -> None:
        """From now on let the guest know what is written into them. It has been given what was read last."""
        if self._watch is not None:
            name = f"host files of {self._container_id}"
            self._following = asyncio.create_task(self._follow(self._watch, guest), name=name)

    async def close(self) -> None:
        """Follow them no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        if self._watch is not None:
            self._watch.close()

    def _new_watch(self) -> Watch | None:
        try:
            return Watch()
        except HostError as error:
            self._log.warning("what is written to the container's files later will not be seen", error=str(error))
            return None

    def _first(self, file: HostFile, limit: int) -> guest_pb2.File:
        """Read a file, and have the kernel tell of changes to this very one from before that. Raises OSError."""
        fd = _open(file)
        try:
            if self._watch is not None:
                try:
                    self._watched[file.name] = _Watched(*_inode(fd), _begin_to_watch(self._watch, fd))
                except HostError as error:
                    self._log.warning("later changes will not be seen", file=str(file.path), error=str(error))
            return _message(file, fd, limit)
        finally:
            os.close(fd)

    async def _follow(self, watch: Watch, guest: Guest) -> None:
        try:
            while True:
                await watch.event()
                await asyncio.sleep(_SETTLE_S)
                watch.forget()
                if changed := self._changed(await asyncio.to_thread(self._read_again, watch)):
                    await self._send(changed, guest)
                    await asyncio.sleep(_PAUSE_S)
        except MachineError as error:
            self._log.debug("the guest hears of no more changes to files", error=str(error))

    def _read_again(self, watch: Watch) -> list[guest_pb2.File | str]:
        """Each of them as it is now, or why it is not to be had. Blocks."""
        sizes = {name: len(sent.content) for name, sent in self._sent.items()}
        found: list[guest_pb2.File | str] = []
        for file in self._files:
            limit = FILES_LIMIT - sum(size for name, size in sizes.items() if name != file.name)
            now = self._again(file, watch, limit)
            if not isinstance(now, str):
                sizes[file.name] = len(now.content)
            found.append(now)
        return found

    def _again(self, file: HostFile, watch: Watch, limit: int) -> guest_pb2.File | str:
        """One of at most `limit` bytes, if it is the file that is watched."""
        watched = self._watched.get(file.name)
        try:
            fd = _open(file)
            try:
                if watched is None or watched[:2] != _inode(fd):
                    return _ANOTHER
                # The kernel has another number for a file that has got the inode of one that is gone.
                if (number := _begin_to_watch(watch, fd)) != watched.number:
                    del self._watched[file.name]
                    watch.remove(number)
                    return _ANOTHER
                message = _message(file, fd, limit)
            finally:
                os.close(fd)
        except OSError as error:
            return error.strerror or str(error)
        except HostError as error:
            return str(error)
        if len(message.content) > limit:
            return f"the container's files would have more than {FILES_LIMIT >> 20} MiB together"
        return message

    def _changed(self, found: list[guest_pb2.File | str]) -> list[guest_pb2.File]:
        """Those that are not as the guest has them. Of one that cannot be read it keeps what it has."""
        changed = []
        for file, now in zip(self._files, found, strict=True):
            if isinstance(now, str):
                if file.name not in self._lost:
                    self._log.warning("the container's copy stays as it is", file=str(file.path), error=now)
                self._lost.add(file.name)
                continue
            self._lost.discard(file.name)
            if now != self._sent[file.name] or file.name in self._unsure:
                changed.append(now)
        return changed

    async def _send(self, changed: list[guest_pb2.File], guest: Guest) -> None:
        """Raises MachineError where there is no guest any more."""
        names = {file.name for file in changed}
        self._sent.update({file.name: file for file in changed})
        # Until it has answered, and if it does not, it may have written them or not, or may yet.
        self._unsure |= names
        request = guest_pb2.RewriteRequest(container_id=self._container_id, files=changed)
        try:
            await guest.call(guest.containers.Rewrite(request), deadline_s=deadlines.GUEST_CALL_S)
        except GuestError as error:
            paths = ", ".join(str(file.path) for file in self._files if file.name in names)
            self._log.warning("the guest has not taken the new content of files", files=paths, error=str(error))
        else:
            self._unsure -= names
            self._log.debug("files rewritten", files=len(changed))


def _open(file: HostFile) -> int:
    """Raises OSError. What is no regular file any more must not keep us waiting (open(2), O_NONBLOCK).

    Whoever can write beside it may have put something in its place since the specification was read, before which a
    machine is started: what is refused there is refused here, too.
    """
    fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file any more")
        sources.refuse(Source(Path(os.readlink(f"/proc/self/fd/{fd}")), status), "it is another file by now")
    except SpecError as error:
        os.close(fd)
        raise OSError(errno.EINVAL, error.message) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _inode(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _begin_to_watch(watch: Watch, fd: int) -> int:
    """Watch this very file, whatever becomes of its name. Nothing stays open: that would keep its file system busy."""
    return watch.add(f"/proc/self/fd/{fd}", IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB)


def _message(file: HostFile, fd: int, limit: int) -> guest_pb2.File:
    """The open file, and one byte more than `limit` at most. Raises OSError."""
    status = os.fstat(fd)
    content = bytearray()
    while len(content) <= limit and (part := os.read(fd, limit + 1 - len(content))):
        content += part
    return guest_pb2.File(
        name=file.name,
        content=bytes(content),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )
