"""The other end of a QMP connection, for tests of what is said over it."""

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress


class QmpPeer:
    """The other end of a QMP connection: greets, remembers commands and descriptors, answers what a test says."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self.commands: list[tuple[str, dict[str, object]]] = []
        # What each descriptor that came with add-fd or getfd holds, by fdset or name.
        self.files: dict[object, bytes] = {}
        self.refused: dict[str, str] = {}
        self.silent: set[str] = set()
        # What commands answer; nothing else than success where nothing stands here.
        self.returns: dict[str, object] = {}
        self.before_answer: dict[str, Callable[[], None]] = {}
        self._fds: list[int] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """The commands so far, without their arguments and without the negotiation."""
        return [name for name, _ in self.commands if name != "qmp_capabilities"]

    def start(self, *, greet: bool = True) -> None:
        if greet:
            self._send({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}})
        self._task = asyncio.create_task(self._serve())

    def event(self, name: str, **data: object) -> None:
        self._send({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    def say(self, line: bytes) -> None:
        """Whatever it is."""
        self._theirs.sendall(line + b"\r\n")

    def hang_up(self) -> None:
        self._theirs.shutdown(socket.SHUT_RDWR)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for end in (self.ours, self._theirs):
            end.close()
        for fd in self._fds:
            os.close(fd)

    def _send(self, message: dict[str, object]) -> None:
        self._theirs.sendall(json.dumps(message).encode() + b"\r\n")

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        text = ""
        while True:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._theirs, readable.set_result, None)
            try:
                await readable
            finally:
                loop.remove_reader(self._theirs)
            data, fds, _, _ = socket.recv_fds(self._theirs, 65536, 8)
            if not data:
                return
            self._fds += fds
            text += data.decode()
            text = self._answer_whole(text)

    def _answer_whole(self, text: str) -> str:
        """Answer every whole command in `text`, and return what is left over."""
        while text := text.lstrip():
            try:
                message, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            self._answer(message)
        return text

    def _answer(self, message: dict[str, object]) -> None:
        name = str(message["execute"])
        arguments = message.get("arguments")
        arguments = arguments if isinstance(arguments, dict) else {}
        self.commands.append((name, arguments))
        if name in ("add-fd", "getfd"):
            fd = self._fds.pop()
            self.files[arguments.get("fdset-id", arguments.get("fdname"))] = _content(fd)
            os.close(fd)
        if name in self.before_answer:
            self.before_answer[name]()
        if name in self.silent:
            return
        if name in self.refused:
            self._send({"id": message["id"], "error": {"class": "GenericError", "desc": self.refused[name]}})
        else:
            reply: dict[str, object] = {"return": self.returns.get(name, {})}
            self._send(reply | ({"id": message["id"]} if "id" in message else {}))


def _content(fd: int) -> bytes:
    try:
        return os.pread(fd, 1 << 20, 0)
    except OSError:  # a socket
        return b""
