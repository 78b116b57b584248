"""containerds: served by grpclib in our own process, whose environment a made up /proc tells of."""

import os
import socket
from collections.abc import AsyncIterator

import pytest
from google.protobuf import empty_pb2
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from api import containerd_pb2 as api
from shim.check import containerd
from shim.check.thread import in_thread
from shim.version import BINARY_NAME, VERSION
from tests.unit.shim.check.conftest import FakeHost, Say

_SHIM = f"echo 'containerd-shim-qemubox-v1: {VERSION}'"


class Containerd:
    """Says its version, and nothing else."""

    version = "v2.1.4"

    def __mapping__(self) -> dict[str, Handler]:
        async def answer(stream: Stream[empty_pb2.Empty, api.VersionResponse]) -> None:
            await stream.recv_message()
            await stream.send_message(api.VersionResponse(version=self.version))

        handler = Handler(answer, Cardinality.UNARY_UNARY, empty_pb2.Empty, api.VersionResponse)
        return {"/containerd.services.version.v1.Version/Version": handler}


def _process(fake: FakeHost, *command_line: str, **environment: str) -> None:
    """Ours, as the fake /proc has it."""
    base = f"/proc/{os.getpid()}"
    fake.put(f"{base}/environ", "".join(f"{key}={value}\0" for key, value in environment.items()))
    fake.put(f"{base}/cmdline", "\0".join(command_line))
    own = fake.put("/opt/containerd/bin/containerd")
    (fake.root / base.lstrip("/") / "exe").symlink_to(own)
    (fake.root / base.lstrip("/") / "root").symlink_to(fake.root)


@pytest.fixture
async def running(fake: FakeHost) -> AsyncIterator[Containerd]:
    """One at the host's own socket."""
    path = fake.path_of(containerd.HOSTS)
    service = Containerd()
    server = Server([service])
    await server.start(path=str(path))
    yield service
    server.close()
    await server.wait_closed()


async def test_one_that_has_everything(running: Containerd, fake: FakeHost, say: Say) -> None:
    fake.program(BINARY_NAME, _SHIM, fake.root / "usr/local/bin")
    _process(fake, "containerd", PATH="/usr/bin:/usr/local/bin")
    said = await say(containerd.look)
    assert {line.level for line in said} == {"ok"}
    assert said.of(containerd.HOSTS).found == f"containerd 2.1.4, process {os.getpid()}"
    shim = said.of("/usr/local/bin/")
    assert shim.found == f"version {VERSION}, found by the containerd at {containerd.HOSTS}"


@pytest.mark.parametrize(
    ("version", "level"), [("1.5.18", "failure"), ("1.6.20~ds1", "ok"), ("v1.7.24", "ok"), ("odd", "ok")]
)
async def test_versions(version: str, level: str, running: Containerd, fake: FakeHost, say: Say) -> None:
    running.version = version
    _process(fake, "containerd", PATH="")
    assert (await say(containerd.look))[0].level == level


async def test_a_shim_that_it_does_not_find(running: Containerd, fake: FakeHost, say: Say) -> None:
    fake.program(BINARY_NAME, _SHIM, fake.root / "usr/local/bin")
    _process(fake, "containerd", PATH="/usr/bin:/bin")
    found = (await say(containerd.look)).told(BINARY_NAME)
    assert found[0] == "failure"
    assert "its PATH is /usr/bin:/bin" in found[1]
    assert "ln -s" in found[2]


async def test_a_shim_beside_containerd_is_found(running: Containerd, fake: FakeHost, say: Say) -> None:
    _process(fake, "containerd", PATH="/usr/bin")
    # Where its program really is, seen from outside.
    fake.program(BINARY_NAME, _SHIM, fake.root / str(fake.root / "opt/containerd/bin").lstrip("/"))
    assert containerd.find_shim(fake.host, os.getpid(), "/usr/bin") == str(
        fake.root / "opt/containerd/bin" / BINARY_NAME
    )


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        ("echo 'containerd-shim: 0.0.9'", "warning", "is of version 0.0.9"),
        ("echo no >&2; exit 1", "failure", "-v fails: no"),
    ],
)
async def test_a_shim_that_is_another(
    script: str, level: str, words: str, running: Containerd, fake: FakeHost, say: Say
) -> None:
    fake.program(BINARY_NAME, script, fake.root / "usr/bin")
    _process(fake, "containerd", PATH="/usr/bin")
    found = (await say(containerd.look)).told(f"/usr/bin/{BINARY_NAME}")
    assert found[0] == level
    assert words in found[1]


async def test_another_configuration_of_ours(running: Containerd, fake: FakeHost, say: Say) -> None:
    fake.program(BINARY_NAME, _SHIM, fake.root / "usr/bin")
    _process(fake, "containerd", PATH="/usr/bin", QEMUBOX_CONFIG="/srv/config.toml")
    found = (await say(containerd.look)).told("QEMUBOX_CONFIG")
    assert found[::2] == ("warning", "QEMUBOX_CONFIG=/srv/config.toml qemubox check")


@pytest.mark.parametrize("words", [("--config", "/srv/c.toml"), ("-c", "/srv/c.toml"), ("--config=/srv/c.toml",)])
async def test_the_configuration_of_its_command_line(
    words: tuple[str, ...], running: Containerd, fake: FakeHost, say: Say
) -> None:
    _process(fake, "containerd", *words, PATH="/usr/bin")
    path = fake.put("/srv/c.toml", "version = 2\noops\n")
    assert "line 2" in (await say(containerd.look)).of(str(path)).found


async def test_a_socket_that_nobody_serves(fake: FakeHost, say: Say) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(fake.path_of(containerd.HOSTS)))
    said = await say(containerd.look)
    assert said.told(containerd.HOSTS)[:2] == ("failure", "nobody answers: Connection refused")


async def test_the_one_that_clients_are_told_to_use(running: Containerd, fake: FakeHost, say: Say) -> None:
    """Wherever it is."""
    (fake.root / "srv").mkdir()
    (fake.root / containerd.HOSTS.lstrip("/")).rename(fake.root / "srv" / "c.sock")
    fake.host.environ = {**fake.host.environ, "CONTAINERD_ADDRESS": "/srv/c.sock"}
    _process(fake, "containerd", PATH="/odd")
    assert (await say(containerd.look)).of("/srv/c.sock").level == "ok"
    found = await in_thread(lambda: containerd.with_its_path(fake.host.environ, fake.root))
    assert found["PATH"] == "/odd"


async def test_one_that_does_not_run(fake: FakeHost, say: Say) -> None:
    fake.program("containerd", "true")
    fake.put("/run/systemd/system/x")
    assert [(line.level, line.mend) for line in await say(containerd.look)] == [
        ("warning", "systemctl start containerd")
    ]


async def test_none_at_all(say: Say) -> None:
    assert [(line.level, line.what) for line in await say(containerd.look)] == [("failure", "containerd")]


async def test_the_own_one_of_a_full_installation(running: Containerd, fake: FakeHost, say: Say) -> None:
    _process(fake, "containerd", PATH="")
    fake.put(containerd.FULL_CONFIG)
    found = (await say(containerd.look)).told(containerd.FULL)
    assert found[::2] == ("warning", "systemctl enable --now qemubox-containerd")


async def test_the_configuration_is_read_where_none_runs(fake: FakeHost, say: Say) -> None:
    fake.program("containerd", "true")
    path = fake.put("/etc/containerd/config.toml", "[oops\n")
    assert (await say(containerd.look)).told(str(path))[0] == "failure"


async def test_programs_are_looked_for_where_containerd_looks(running: Containerd, fake: FakeHost) -> None:
    """In a release its PATH has the release's own programs, and the shell's has not."""
    _process(fake, "containerd", PATH="/usr/share/qemubox/lib/qemubox/runtime/bin:/usr/bin")
    found = await in_thread(lambda: containerd.with_its_path({"PATH": "/bin", "HOME": "/root"}, fake.root))
    assert found == {"PATH": "/usr/share/qemubox/lib/qemubox/runtime/bin:/usr/bin", "HOME": "/root"}


async def test_what_a_release_brings_comes_last_as_for_the_shim(running: Containerd, fake: FakeHost) -> None:
    _process(fake, "containerd", PATH="/usr/bin")
    tools = "/usr/share/qemubox/lib/qemubox/runtime/bin"
    found = await in_thread(lambda: containerd.with_its_path({"PATH": f"/bin:{tools}"}, fake.root))
    assert found == {"PATH": f"/usr/bin:{tools}"}


def test_without_one_they_are_looked_for_in_our_path(fake: FakeHost) -> None:
    assert containerd.with_its_path({"PATH": "/bin"}, fake.root) == {"PATH": "/bin"}


def test_the_path_of_a_process_that_has_ended(fake: FakeHost) -> None:
    assert containerd.environment(fake.host, 4711) == {}
    assert containerd.find_shim(fake.host, 4711, "/usr/bin") is None
