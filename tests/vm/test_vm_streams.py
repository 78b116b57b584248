"""The connections that a guest dials to the host: streams that are expected, and callers that are not."""

import asyncio
import hashlib
import os
import secrets

import pytest

from harness.machine import Start
from shim.errors import MachineError

pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20


@pytest.mark.release
async def test_streams_of_many_megabytes_in_large_pieces(start: Start) -> None:
    """A guest's packets of more than 32 KiB come in pieces that the daemon does not take: see vsock_user."""
    count = 20 * MIB
    loop = asyncio.get_running_loop()
    async with start() as guest:
        await guest.boot()
        for _ in range(2):
            token = secrets.token_bytes(16)
            expected = guest.backend.expect(token)
            await guest.tell("send", token.hex(), count)
            async with asyncio.timeout(60):
                stream = await expected
                left, digest = count, hashlib.sha256()
                while left:
                    data = await loop.sock_recv(stream, 1 << 18)
                    assert data
                    digest.update(data)
                    left -= len(data)
            stream.close()
            assert await guest.answer() == digest.hexdigest()

            token, data = secrets.token_bytes(16), os.urandom(MIB) * (count // MIB)
            expected = guest.backend.expect(token)
            await guest.tell("receive", token.hex(), count)
            async with asyncio.timeout(60):
                stream = await expected
                await loop.sock_sendall(stream, data)
            assert await guest.answer() == hashlib.sha256(data).hexdigest()
            stream.close()


async def test_who_is_not_expected_is_turned_away(start: Start) -> None:
    async with start() as guest:
        await guest.boot()
        assert await guest.ask("turned_away", bytes(16).hex()) is True
        assert await guest.ask("turned_away", secrets.token_hex(16)) is True
        late = guest.backend.expect(secrets.token_bytes(16))
        await guest.vm.kill(10)
        with pytest.raises(MachineError, match="gone"):
            await late
