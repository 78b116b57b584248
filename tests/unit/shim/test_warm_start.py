"""`start` has exactly one shim, whatever the service is, does, or becomes."""

import os
import random
import signal
import threading
import time

import pytest

from tests.unit.shim.observe import until
from tests.unit.shim.program import Answer, Host
from tests.unit.shim.warm_service import WarmService, answer_of, parent


def test_without_a_service(host: Host) -> None:
    shim, told = host.shim(), host.shim("told")
    assert shim.start() == Answer(0, answer_of(shim), b"")
    assert told.start(environment={**told.environment, "QEMUBOX_SERVICE": ""}).status == 0
    for each, reason in ((shim, "No such file or directory"), (told, "QEMUBOX_SERVICE is empty")):
        assert each.connect().shim_pid == each.pid
        text = each.log_text()
        assert "not forked from the service" in text
        assert reason in text


def test_a_service_that_hangs_is_not_waited_for(host: Host, service: WarmService) -> None:
    """And when it goes on, its late child makes no second shim."""
    os.kill(service.pid, signal.SIGSTOP)
    shim = host.shim()
    began = time.monotonic()
    assert shim.start() == Answer(0, answer_of(shim), b"")
    assert time.monotonic() - began < 4
    os.kill(service.pid, signal.SIGCONT)
    service.until_logged("a connection that asks for nothing")
    until(lambda: service.children() == [], "the late child has ended")
    assert shim.daemons() == [shim.pid]
    assert shim.connect().shim_pid == shim.pid


@pytest.mark.timeout(400)
def test_killed_at_any_moment_there_is_exactly_one_daemon(host: Host, service: WarmService) -> None:
    """kill -9 of the service at a moment of chance during each of 30 starts."""
    from_service = 0
    for number in range(30):
        shim = host.shim(f"c{number}")
        delay_s = random.uniform(0, 0.06)
        victim = service.pid
        killer = threading.Timer(delay_s, os.kill, (victim, signal.SIGKILL))
        killer.start()
        started = shim.start()
        killer.join()
        assert service.process is not None
        service.process.wait()
        context = f"number {number}, killed after {delay_s:.4f} s"
        assert started == Answer(0, answer_of(shim), b""), context
        assert shim.connect().shim_pid == shim.pid, context
        until(lambda shim=shim: shim.daemons() == [shim.pid], f"one daemon: {context}")  # type: ignore[misc]
        from_service += "not forked from the service" not in shim.log_text()
        shim.shutdown()
        until(lambda shim=shim: shim.left() == [], f"nothing is left: {context}")  # type: ignore[misc]
        service.start()
    assert service.stop() == 0
    assert not host.service.exists()
    assert from_service < 30


def test_a_start_elsewhere_makes_its_shim_itself(host: Host, service: WarmService) -> None:
    """In another mount, pid or network namespace, or with less rights."""
    for number, unshare in enumerate((("--mount",), ("--net",), ("--ipc",))):
        shim = host.shim(f"c{number}")
        started = shim.run(["unshare", *unshare, "--", *shim.words("start")], shim.bootstrap)
        assert started == Answer(0, answer_of(shim), b"")
        assert parent(shim.pid) != service.pid
        assert shim.connect().shim_pid == shim.pid
    for words in ("mnt namespace", "net namespace", "ipc namespace"):
        service.until_logged(words)
    shim = host.shim("less")
    started = shim.run(["setpriv", "--no-new-privs", "--", *shim.words("start")], shim.bootstrap)
    assert started.status == 0
    assert parent(shim.pid) != service.pid
    service.until_logged("NoNewPrivs")


def test_a_start_in_another_pid_namespace_makes_its_shim_itself(host: Host, service: WarmService) -> None:
    shim = host.shim()
    words = ["unshare", "--pid", "--fork", "--", *shim.words("start")]
    started = shim.run(words, shim.bootstrap)
    assert started == Answer(0, answer_of(shim), b"")
    until(lambda: service.children() == [], "the child has refused")
    assert "pid namespace" in service.text()
