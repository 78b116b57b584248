"""A shim, started and called as containerd does: its binary in the bundle, then ttrpc on its socket."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from api import task_pb2
from harness.containerd import ADDRESS
from harness.qemubox import BINARY
from harness.shim import bootstrap, dial, parse
from tests.bench.bundle import Bundle
from tests.bench.place import Place
from tests.bench.variants import Variant
from ttrpc import Client, ConnectionClosed

_NAMESPACE: Final = "default"
_DEADLINE_S: Final = 120.0
_Reply = TypeVar("_Reply", bound=Message)


class Ran(NamedTuple):
    """A command's answer, and how long it took from its start to its end and that of its output."""

    stdout: bytes
    took_ms: float


class ShimBinary:
    """The shim binary of one variant, for one bundle."""

    def __init__(self, place: Place, variant: Variant, bundle: Bundle) -> None:
        self._place = place
        self._bundle = bundle
        flavour = place.containerd.flavour
        self._path = str(place.qemubox.bin / BINARY if variant.is_vm else flavour.shims / "containerd-shim-runc-v2")
        self._environment = {
            **place.containerd.environment,
            "TTRPC_ADDRESS": f"{ADDRESS}.ttrpc",
            "GRPC_ADDRESS": ADDRESS,
            "NAMESPACE": _NAMESPACE,
            "GOMAXPROCS": "2",
            # containerd 1.6 sets none, and takes nothing but a plain address.
            **({"MAX_SHIM_VERSION": "2"} if flavour.config_version > 2 else {}),
        }

    def start(self) -> Ran:
        """`start`; raises RuntimeError where it fails."""
        said = bootstrap(self._place.containerd.flavour, self._bundle.container_id, _NAMESPACE)
        return self.run(*self._words(), "start", stdin=said)

    def delete(self) -> Ran:
        """`delete`, after the shim has gone."""
        return self.run(*self._words(), "-bundle", str(self._bundle.path), "delete")

    def info(self) -> Ran:
        """`-info`."""
        return self.run(self._path, "-info")

    def _words(self) -> list[str]:
        flags = ["-namespace", _NAMESPACE, "-address", ADDRESS, "-publish-binary", "/usr/bin/containerd"]
        return [self._path, *flags, "-id", self._bundle.container_id]

    def run(self, *argv: str, stdin: bytes = b"") -> Ran:
        """Any command in the bundle's directory, with the shim's environment."""
        command = self._place.cell.inside(argv, self._bundle.path)
        begin = time.perf_counter()
        done = subprocess.run(
            command,
            check=False,
            input=stdin,
            capture_output=True,
            env=self._environment,
            timeout=_DEADLINE_S,
        )
        took_ms = round((time.perf_counter() - begin) * 1000, 2)
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(argv)} failed with {done.returncode}: {done.stderr.decode(errors='replace')}"
            )
        return Ran(done.stdout, took_ms)


class Task:
    """The task API of a shim, for its one container."""

    def __init__(self, client: Client, service: str, container_id: str) -> None:
        self._client = client
        self._service = service
        self.container_id = container_id

    async def call(self, method: str, request: Message, reply: type[_Reply]) -> _Reply:
        """One call. Raises what the shim answers."""
        return await self._client.call(f"/{self._service}/{method}", request, reply, timeout_s=_DEADLINE_S)

    async def shutdown(self) -> None:
        """The last call: the shim ends, runc's now and then before it has answered."""
        with contextlib.suppress(ConnectionClosed):
            await self.call("Shutdown", task_pb2.ShutdownRequest(id=self.container_id), Empty)

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()


async def connect(place: Place, answer: bytes, container_id: str) -> Task:
    """Dial the shim that has answered so."""
    address, service = parse(answer)
    return Task(Client(await dial(place.containerd, address)), service, container_id)


@contextlib.contextmanager
def started(binary: ShimBinary) -> Iterator[Ran]:
    """A shim that is there; `delete` at the end of the block, which kills one that has not been shut down."""
    ran = binary.start()
    try:
        yield ran
    finally:
        binary.delete()
