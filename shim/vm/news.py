"""What QEMU tells a guest of its virtio-serial ports, no more at a time than it can be told.

QEMU has room for 32 messages that the guest has not read yet, and drops what comes on top of that
(hw/char/virtio-serial-bus.c, send_control_msg): a port of which the guest is not told never appears in it,
and one of which it is not told that the host has it open reads as ended. A guest that is
emulated takes milliseconds for each. Of sixteen connections at once, two ports each, four hung (2026-11-29, QEMU 7.2).

That the guest has read of a new port is known once it opens it. Whoever does not open it at once, or
has another sort of news, is taken to have read it after a while.
"""

import asyncio
from typing import Final

# Of QEMU's 32. The rest is for what it tells by itself: that a stream's host end was closed.
ROOM: Final = 20
# That there is a port, its name, and that its host end is open.
_OF_NEW: Final = 3
_NEW_READ_S: Final = 1.0
_OF_REMOVED: Final = 1
_REMOVED_READ_S: Final = 0.05


class News:
    """The messages that the guest may not have read yet, by the device that they are about."""

    def __init__(self) -> None:
        self._unread: dict[str, tuple[int, float]] = {}
        self._read = asyncio.Event()

    async def of_new(self, device: str) -> None:
        """Return when a new port may be told of."""
        await self._of(device, _OF_NEW, _NEW_READ_S)

    async def of_removed(self, device: str) -> None:
        """Return when the removal of a port may be told of."""
        await self._of(device, _OF_REMOVED, _REMOVED_READ_S)

    def read(self, device: str) -> None:
        """The guest knows what there is to know of this device."""
        if self._unread.pop(device, None) is not None:
            self._read.set()

    async def _of(self, device: str, messages: int, read_s: float) -> None:
        while self._waiting() + messages > ROOM:
            self._read.clear()
            try:
                async with asyncio.timeout_at(min(until for _, until in self._unread.values())):
                    await self._read.wait()
            except TimeoutError:
                continue
        self._unread[device] = (messages, asyncio.get_running_loop().time() + read_s)

    def _waiting(self) -> int:
        now = asyncio.get_running_loop().time()
        self._unread = {device: unread for device, unread in self._unread.items() if unread[1] > now}
        return sum(messages for messages, _ in self._unread.values())
