"""docker's daemon.json."""

import pytest

from shim.check import docker
from tests.unit.shim.check.conftest import FakeHost, Say


async def test_no_docker(say: Say) -> None:
    assert [(line.level, line.found) for line in await say(docker.look)] == [("ok", "no dockerd here")]


async def test_docker_without_a_file(fake: FakeHost, say: Say) -> None:
    fake.program("dockerd", "true")
    (line,) = await say(docker.look)
    assert line.level == "ok"
    assert "docker run --runtime io.containerd.qemubox.v1" in line.found


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("", "ok", "none is needed"),
        ("{}", "ok", "none is needed"),
        ('{"runtimes": {"runsc": {"path": "/x"}}}', "ok", "none is needed"),
        (
            '{"runtimes": {"qemubox": {"runtimeType": "io.containerd.qemubox.v1"}}}',
            "ok",
            "docker run --runtime qemubox",
        ),
        ('{"runtimes": {"qb": {"path": "/usr/local/bin/containerd-shim-qemubox-v1"}}}', "failure", "named by a path"),
        ('{\n  "runtimes": {,}\n}', "failure", "line 2, column 16"),
        ('{"runtimes": []}', "failure", "must be an object"),
        ("[]", "failure", "must be an object"),
    ],
)
async def test_daemon_json(text: str, level: str, words: str, fake: FakeHost, say: Say) -> None:
    path = fake.put("/etc/docker/daemon.json", text)
    (line,) = await say(docker.look)
    assert (line.level, line.what) == (level, str(path))
    assert words in line.found
