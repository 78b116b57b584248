"""The service: its clients, its ends, its successors."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.unit.shim.observe import until
from tests.unit.shim.program import Answer, Host
from tests.unit.shim.warm_service import WarmService, answer_of, hung_up, install, parent


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\5GET /", b"\xff" * 64])
def test_a_client_that_stalls_or_talks_nonsense_disturbs_nobody(host: Host, service: WarmService, sent: bytes) -> None:
    clients = [service.connect() for _ in range(20)]
    for client in clients:
        client.sendall(sent)
    shim = host.shim()
    began = time.monotonic()
    assert shim.start().status == 0
    assert parent(shim.pid) == service.pid
    for client in clients:
        assert hung_up(client)
        client.close()
    assert time.monotonic() - began < 10
    until(lambda: service.children() == [shim.pid], "the service has reaped the rest")


def test_its_end_by_signal_leaves_shims_running(host: Host, service: WarmService) -> None:
    shim = host.shim()
    shim.start()
    assert service.stop() == 0
    assert os.listdir(host.service.parent) == []
    assert "told to end" in service.text()
    assert shim.connect().shim_pid == shim.pid
    service.start()
    other = host.shim("other")
    other.start()
    assert service.stop(signal.SIGKILL) == -9
    assert other.connect().shim_pid == other.pid
    service.start()  # over what the killed one left
    third = host.shim("third")
    third.start()
    assert parent(third.pid) == service.pid


def test_a_second_service_is_refused(service: WarmService) -> None:
    second = subprocess.run(
        [*service.command, "service"],
        env={"QEMUBOX_SERVICE": str(service.socket)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert f"a service serves at {service.socket} already (pid {service.pid})".encode() in second.stderr
    service.connect().close()


def test_only_root_may_connect(service: WarmService) -> None:
    assert service.socket.stat().st_mode & 0o777 == 0o600
    service.socket.chmod(0o666)
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
        "s.connect(sys.argv[1]); print(s.recv(9))"
    )
    service.socket.parent.parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program, service.socket], capture_output=True, timeout=30, check=False)
    assert done.stdout == b"b''\n", done.stderr
    service.until_logged("somebody who is not root")
    assert service.children() == []


def test_a_new_installation_is_served_by_a_new_service(host: Host) -> None:
    """install.sh puts new code beside the old, and `venv` leads to it then."""
    prefix = host.path / "prefix"
    service = WarmService(host.service, install(prefix))
    service.start()
    try:
        pid, shim, other = service.pid, host.shim(), host.shim("other")
        binary = str(prefix / "bin/containerd-shim-qemubox-v1")
        words = [binary, *shim.words("start")[4:]]
        assert shim.run(words, shim.bootstrap) == Answer(0, answer_of(shim), b"")
        assert parent(shim.pid) == pid
        foreign = host.shim("foreign")  # the checkout's own code
        assert foreign.start() == Answer(0, answer_of(foreign), b"")
        assert parent(foreign.pid) != pid
        assert "executing anew" not in service.text()  # which would not help
        install(prefix)
        again = host.shim("again")
        started = again.run([binary, *again.words("start")[4:]], again.bootstrap)
        assert started == Answer(0, answer_of(again), b"")
        assert parent(again.pid) != pid
        until(lambda: service.text().count("msg=serving") == 2, "the service has executed itself anew")
        assert other.run([binary, *other.words("start")[4:]], other.bootstrap) == Answer(0, answer_of(other), b"")
        assert parent(other.pid) == service.pid == pid
        assert shim.connect().shim_pid == shim.pid
        shim.shutdown()
        until(lambda: shim.pid not in service.children(), "the new service has reaped the old one's shim")
    finally:
        service.close()


def test_changed_files_are_noticed_on_reload(host: Host) -> None:
    prefix = host.path / "prefix"
    service = WarmService(host.service, install(prefix))
    service.start()
    try:
        os.kill(service.pid, signal.SIGHUP)
        os.kill(service.pid, signal.SIGHUP)
        (file,) = prefix.glob("lib/qemubox/venv/lib/*/site-packages/shim/version.py")
        file.write_text(file.read_text() + "\n")
        os.kill(service.pid, signal.SIGHUP)
        service.until_logged("shim/version.py has changed")
        until(lambda: service.text().count("msg=serving") == 2, "the service has executed itself anew")
        assert service.stop() == 0
        assert not host.service.exists()
    finally:
        service.close()
