"""The messages of one stream that have come and were not yet taken: a bounded queue.

ttrpc has no flow control for a single stream. When an inbox is full, the connection's reader waits for room, which
holds back every call on that connection; so it waits only STALL_S and then gives this stream up. (The Go
implementation does the same, with the same second.) What a reader that is too slow can make us keep is therefore
bounded: MAX_MESSAGES messages, and MAX_BYTES plus one message.
"""

import asyncio
from collections import deque

from ttrpc.frame import MAX_DATA
from ttrpc.status import StatusError

MAX_MESSAGES = 64
MAX_BYTES = MAX_DATA
STALL_S = 1.0


class Inbox:
    """One putter (the connection's reader), one taker."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = deque(messages)
        self._bytes = sum(map(len, messages))
        self.error: StatusError | None = None
        self._changed = asyncio.Event()
        """Set on every change; each side waits for it and looks again."""
        self.ended = False
        """Nothing more comes; what has come can still be taken, unless it was dropped."""

    async def put(self, data: bytes) -> bool:
        """Adds a message, if necessary after waiting for room. False: no room for STALL_S seconds.

        After the end nothing is added.
        """
        if self._is_full():
            try:
                async with asyncio.timeout(STALL_S):
                    while self._is_full() and not self.ended:
                        await self._change()
            except TimeoutError:
                return False
        if not self.ended:
            self._messages.append(data)
            self._bytes += len(data)
            self._changed.set()
        return True

    def end(self, error: StatusError | None = None) -> None:
        """No more messages. The taker gets what is there, then `error` if there is one, else the end."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._changed.set()

    def drop(self, error: StatusError) -> None:
        """Ends at once: what is there will not be taken any more."""
        self._messages.clear()
        self._bytes = 0
        self.ended = False
        self.end(error)

    async def take(self) -> bytes | None:
        """The next message; None at the end; raises the error with which the stream ended."""
        while not self._messages:
            if self.error is not None:
                raise self.error
            if self.ended:
                return None
            await self._change()
        data = self._messages.popleft()
        self._bytes -= len(data)
        self._changed.set()
        return data

    def _is_full(self) -> bool:
        return len(self._messages) >= MAX_MESSAGES or self._bytes >= MAX_BYTES

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
