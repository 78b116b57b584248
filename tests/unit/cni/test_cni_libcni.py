"""libcni itself, by its command `cnitool`: it reads what we have cached, and we what it has."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cni import Attachment, CachedAttachment
from cni.cache import Cache
from cni.document import Json, load_object
from tests.unit.cni.namespaces import as_host
from tests.unit.cni.site import CAPABILITIES, Site, newest

# The first test may have to build it.
pytestmark = pytest.mark.timeout(900)

# libcni keeps its cache in /var/lib/cni; for cnitool that is another directory.
_IN_ITS_PLACE = 'mount -t tmpfs none /var/lib && mkdir /var/lib/cni && mount --bind "$0" /var/lib/cni && exec "$@"'


class Libcni:
    """cnitool in the place of a site."""

    def __init__(self, site: Site, directory: Path, netns: str) -> None:
        self._site = site
        self._conf_dir = directory / "net.d"
        self._netns = netns
        self._conf_dir.mkdir()
        site.cache_dir.mkdir()
        (self._conf_dir / "10-test.conflist").write_bytes(site.chain().raw)

    @property
    def attachment(self) -> Attachment:
        """What cnitool calls a container in this namespace."""
        number = hashlib.sha512(self._netns.encode()).hexdigest()[:20]
        args = (("IgnoreUnknown", "1"), ("K8S_POD_NAME", "a"))
        return Attachment(f"cnitool-{number}", self._netns, "eth0", args=args, capabilities=CAPABILITIES)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """add, check, del or gc."""
        environ: Mapping[str, str] = dict(os.environ) | {
            "CNI_PATH": str(self._site.plugin_dir),
            "NETCONFPATH": str(self._conf_dir),
            "CAP_ARGS": json.dumps(dict(CAPABILITIES)),
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a",
        }
        tool = [str(self._site.plugin_dir / "cnitool"), command, "testnet", self._netns]
        line = ["unshare", "--mount", "sh", "-c", _IN_ITS_PLACE, str(self._site.cache_dir), *tool]
        return subprocess.run(line, check=False, env=environ, capture_output=True, text=True, timeout=60)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with as_host():
        yield Site(tmp_path, newest())


@pytest.fixture
def libcni(site: Site, tmp_path: Path, netns: str) -> Libcni:
    return Libcni(site, tmp_path, netns)


def _entry(site: Site) -> Json:
    (name,) = site.results()
    return load_object((site.cache_dir / "results" / name).read_bytes())


async def test_the_cache_files_are_the_same(site: Site, libcni: Libcni) -> None:
    """But for MAC addresses and names that the kernel and the plugins draw, and the order of keys within."""
    assert libcni.run("add").returncode == 0
    theirs, name = _entry(site), site.results()
    assert libcni.run("del").returncode == 0
    assert site.left() == []
    await site.cni().add(site.chain(), libcni.attachment)
    ours = _entry(site)
    assert site.results() == name
    assert list(ours) == list(theirs)
    assert _shape(ours) == _shape(theirs)
    assert {key: value for key, value in ours.items() if key != "result"} == {
        key: value for key, value in theirs.items() if key != "result"
    }
    await site.cni().delete(site.chain(), libcni.attachment)


async def test_we_check_and_delete_what_libcni_has_added(site: Site, libcni: Libcni) -> None:
    added = libcni.run("add")
    assert added.returncode == 0, added.stderr
    (found,) = site.cni().cached()
    assert found.attachment == libcni.attachment
    assert found.result is not None
    assert found.result.document("1.0.0") == load_object(added.stdout.encode())
    await site.cni().check(found.network, found.attachment)
    await site.cni().delete(found.network, Attachment(found.attachment.container_id, found.attachment.netns, "eth0"))
    assert site.left() == []


async def test_libcni_checks_and_deletes_what_we_have_added(site: Site, libcni: Libcni) -> None:
    await site.cni().add(site.chain(), libcni.attachment)
    checked = libcni.run("check")
    assert checked.returncode == 0, checked.stderr
    deleted = libcni.run("del")
    assert deleted.returncode == 0, deleted.stderr
    assert site.left() == []


@pytest.mark.parametrize("command", ["del", "gc"])
async def test_libcni_deletes_by_an_entry_that_has_no_result_yet(site: Site, libcni: Libcni, command: str) -> None:
    """What there is of ours while the first plugin runs."""
    Cache(site.cache_dir).write(CachedAttachment(site.chain(), libcni.attachment, None))
    deleted = libcni.run(command)
    assert deleted.returncode == 0, deleted.stderr
    assert site.results() == []


async def test_a_file_in_the_making_is_no_entry_to_libcni(site: Site, libcni: Libcni) -> None:
    await site.cni().add(site.chain(), libcni.attachment)
    name = site.results()[0]
    (site.cache_dir / f".{name}").write_bytes((site.cache_dir / "results" / name).read_bytes())
    assert libcni.run("del").returncode == 0
    gone = libcni.run("gc")
    assert gone.returncode == 0, gone.stderr
    assert site.left() == []
    await site.cni().delete(site.chain(), libcni.attachment)
    assert os.listdir(site.cache_dir) == ["results"]


def _shape(value: object) -> object:
    """Keys and kinds of values."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return type(value)
