"""Plugins that do not do what plugins do: each is one clear error, and nothing of it goes on."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from cni import CniError, PluginEnded, PluginError, PluginGarbage, PluginMissing, PluginTimeout
from tests.unit.cni.fakes import Fakes, made, network, on
from tests.unit.shim.observe import until

_WHERE = r"CNI ADD of network 'testnet' \(/net\.d/test\.conflist\): plugin 'only' "


async def _failure(fakes: Fakes, *, timeout_s: float = 20.0) -> CniError:
    with pytest.raises(CniError, match=_WHERE) as caught:
        await fakes.cni(timeout_s=timeout_s).add(network("only"), fakes.attachment())
    return caught.value


def _pid(path: Path) -> int:
    return int(path.read_text())


def _is_gone(pid: int) -> bool:
    """Dead, or at least nobody that does anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_missing(fakes: Fakes) -> None:
    error = await _failure(fakes)
    assert isinstance(error, PluginMissing)
    assert f"is not in {fakes.plugin_dir} (install it" in str(error)
    assert fakes.entries() == []


async def test_one_behind_others_is_missing(fakes: Fakes) -> None:
    """Nothing is begun that cannot come to its end."""
    fakes.plugin("only", add=made())
    for plugins in (["only", "other"], ["only", {"type": "only", "ipam": {"type": "other"}}]):
        with pytest.raises(PluginMissing, match="plugin 'other' is not in"):
            await fakes.cni().add(network(*plugins), fakes.attachment())
    assert fakes.said() == []
    assert fakes.entries() == []


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("#!/bin/sh\n", 0o644, "cannot be executed: .*only: Permission denied"),
        ("no program\n", 0o755, "cannot be executed: .*only: Exec format error"),
        ("#!/no/such/interpreter\n", 0o755, "cannot be executed: .*only: No such file or directory"),
    ],
)
async def test_not_executable(fakes: Fakes, text: str, mode: int, words: str) -> None:
    fakes.foreign("only", text, mode)
    error = await _failure(fakes)
    assert isinstance(error, PluginMissing)
    with pytest.raises(CniError, match=words):
        raise error


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("", "printed nothing where its result should be"),
        (r" \n", "printed nothing where its result should be"),
        ("usage: only [x]", r"no CNI result: line 1, column 1: Expecting value; it printed usage: only \[x\]"),
        ("[]", "it is a list, and must be an object"),
        ("7", "it is 7, and must be an object"),
        (r'{"cniVersion":"1.0.0"}{}', "Extra data"),
        (r'{"cniVersion":"0.2.0"}', r"cniVersion is '0\.2\.0', and must be one of"),
        (r'{"cniVersion":"9"}', "cniVersion is '9'"),
        (r'{"cniVersion":1}', "cniVersion is 1, and must be a text"),
        (r'{"interfaces":{}}', "interfaces is an object, and must be a list"),
        (r'{"interfaces":["eth0"]}', r"interfaces\[0\] is \"eth0\", and must be an object"),
        (r'{"interfaces":[{"name":"a","mtu":"big"}]}', r"interfaces\[0\]\.mtu is \"big\", and must be a whole number"),
        (r'{"ips":[{"address":"10.0.0.1"}]}', r"ips\[0\]\.address is '10\.0\.0\.1', and must be an address with"),
        (r'{"ips":[{"address":"10.0.0.1/33"}]}', r"ips\[0\]\.address is"),
        (r'{"ips":[{"address":"10.0.0.1/24","gateway":"there"}]}', r"ips\[0\]\.gateway is 'there'"),
        (r'{"ips":[{"address":"10.0.0.1/24","interface":-1}]}', r"ips\[0\]\.interface is -1"),
        (r'{"routes":[{"gw":"10.0.0.1"}]}', r"routes\[0\]\.dst is ''"),
        (r'{"dns":{"nameservers":"10.0.0.1"}}', r"dns\.nameservers must be a list of texts"),
        (r"\377\376", "byte 0 is not UTF-8"),
        (r'{"a":NaN}', "NaN is not JSON"),
    ],
)
async def test_garbage(fakes: Fakes, printed: str, words: str) -> None:
    fakes.plugin("only", on("ADD", f"printf '{printed}'"))
    with pytest.raises(PluginGarbage, match=_WHERE + f".*{words}"):
        await fakes.cni().add(network("only"), fakes.attachment())
    assert fakes.said() == ["ADD only", "DEL only"]
    assert fakes.entries() == []


async def test_nesting_without_end(fakes: Fakes) -> None:
    fakes.plugin("only", on("ADD", "head -c 200000 /dev/zero | tr '\\0' '['"))
    error = await _failure(fakes)
    assert "nested too deeply" in error.message
    assert len(error.message) < 3000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 3", "ended with exit status 3 and no error object: no message"),
        (
            "echo 'panic: boom' >&2; echo 'goroutine 1' >&2; exit 2",
            "exit status 2 and no error object: panic: boom gor",
        ),
        ("echo 'not JSON'; echo noise >&2; exit 1", "ended with exit status 1 and no error object: not JSON"),
        ("echo '{}'; exit 1", "ended with exit status 1 and no error object: no message"),
        ('echo \'{"code":"x"}\'; exit 1', 'ended with exit status 1 and no error object: {"code":"x"}'),
        ("echo half; kill -9 $$", "was killed by SIGKILL"),
        ("echo why >&2; kill -11 $$", "was killed by SIGSEGV: why"),
        ("kill -40 $$", "was killed by signal 40"),
    ],
)
async def test_an_end_without_an_error_object(fakes: Fakes, body: str, words: str) -> None:
    fakes.plugin("only", on("ADD", body))
    error = await _failure(fakes)
    assert isinstance(error, PluginEnded)
    assert words in error.message
    assert fakes.said() == ["ADD only", "DEL only"]


@pytest.mark.parametrize("status", [0, 1])
async def test_an_error_object_is_an_error_whatever_the_status(fakes: Fakes, status: int) -> None:
    told = '{"code": 999, "msg": "two\\\\nlines", "details": "no address is left"}'
    fakes.plugin("only", on("ADD", f"printf '{told}'; exit {status}"))
    error = await _failure(fakes)
    assert isinstance(error, PluginError)
    assert (error.code, error.msg, error.details) == (999, "two lines", "no address is left")


async def test_one_that_hangs_is_ended_with_its_children(fakes: Fakes, tmp_path: Path) -> None:
    pid, child = tmp_path / "pid", tmp_path / "child"
    fakes.plugin("only", on("ADD", f"echo $$ >{pid}; sleep 600 & echo $! >{child}; echo waiting >&2; wait"))
    error = await _failure(fakes, timeout_s=0.5)
    assert isinstance(error, PluginTimeout)
    assert "did not end within 0.5 s and was killed: waiting" in error.message
    assert _is_gone(_pid(pid))
    until(lambda: _is_gone(_pid(child)), "its child is gone")
    assert fakes.said() == ["ADD only", "DEL only"]


async def test_one_that_does_not_heed_a_warning_is_killed(fakes: Fakes, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    fakes.plugin("only", on("ADD", f"echo $$ >{pid}; trap '' TERM; while :; do sleep 0.2; done"))
    error = await _failure(fakes, timeout_s=0.3)
    assert isinstance(error, PluginTimeout)
    assert _is_gone(_pid(pid))


async def test_a_warning_lets_it_clean_up(fakes: Fakes, tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    fakes.plugin("only", on("ADD", f"trap 'touch {cleaned}; exit 1' TERM; sleep 600 & wait"))
    await _failure(fakes, timeout_s=0.3)
    assert cleaned.exists()


async def test_output_without_end_is_bounded(fakes: Fakes) -> None:
    fakes.plugin("only", on("ADD", "echo look >&2; yes"))
    error = await _failure(fakes)
    assert isinstance(error, PluginGarbage)
    assert "wrote more than 1048576 bytes and was killed: look" in error.message


async def test_complaints_without_end_are_passed_over(fakes: Fakes) -> None:
    fakes.plugin("only", on("ADD", "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last words >&2"), add=made())
    await fakes.cni().add(network("only"), fakes.attachment())
    fakes.plugin("only", on("ADD", "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last words >&2; exit 4"))
    error = await _failure(fakes)
    assert "exit status 4" in error.message


async def test_one_that_leaves_somebody_with_its_streams_is_not_waited_for(fakes: Fakes, tmp_path: Path) -> None:
    pid = tmp_path / "daemon"
    fakes.plugin("only", on("ADD", f"setsid sleep 600 & echo $! >{pid}"), add=made())
    try:
        await asyncio.wait_for(fakes.cni().add(network("only"), fakes.attachment()), 10)
        assert not _is_gone(_pid(pid))  # it may be what the plugin is for, as dnsmasq is for dnsname
        await asyncio.wait_for(fakes.cni(timeout_s=5).delete(network("only"), fakes.attachment()), 10)
    finally:
        os.kill(_pid(pid), signal.SIGKILL)


async def test_one_that_does_not_read(fakes: Fakes) -> None:
    fakes.foreign("only", "#!/bin/sh\n[ $CNI_COMMAND = DEL ] || echo '{}'\n")
    listed = network({"type": "only", "long": "x" * 300_000})
    await fakes.cni().add(listed, fakes.attachment())
    await fakes.cni().delete(listed, fakes.attachment())


async def test_a_long_configuration_arrives_whole(fakes: Fakes) -> None:
    fakes.plugin("only", add=made())
    await fakes.cni().add(network({"type": "only", "long": "x" * 300_000}), fakes.attachment())
    assert fakes.calls()[0].request["long"] == "x" * 300_000


async def test_a_plugin_that_is_being_installed_is_waited_for(fakes: Fakes) -> None:
    path = fakes.plugin("only", add=made())
    with path.open("ab"):
        adding = asyncio.ensure_future(fakes.cni().add(network("only"), fakes.attachment()))
        await asyncio.wait([adding], timeout=0.2)
        assert not adding.done()
    await adding
