"""What goes wrong with the layer cache: damaged images, changing layers, full disks, processes that are killed."""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from shim.errors import HostError, ResourceError
from shim.log import Logger
from shim.rootfs import erofs
from shim.rootfs.cache import LayerCache
from shim.rootfs.store import OpenLayer

_TOP = Path(__file__).parents[4]
_ENSURE = """
import asyncio, os, sys; from pathlib import Path; from shim.rootfs.cache import LayerCache
cache = LayerCache(Path(sys.argv[1]), limit_mib=int(sys.argv[2]), mkfs_erofs="mkfs.erofs", deadline_s=30)
print("ready", flush=True)
async def run():
    for layer in sys.argv[3:]:
        image = await cache.ensure(Path(layer))
        print(layer, image.digest, flush=True)
        if image.path.stat().st_ino != os.fstat(image.fd).st_ino:
            sys.exit("an image in use is another one's now")
        image.close()
asyncio.run(run())
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _cache(directory: Path, *, limit_mib: int = 100, mkfs: str = "mkfs.erofs") -> LayerCache:
    log = cast("Logger", structlog.get_logger())
    return LayerCache(directory, limit_mib=limit_mib, mkfs_erofs=mkfs, deadline_s=30, log=log)


def _layer(root: Path, number: int, size: int = 1_000_000) -> Path:
    path = root / "snapshots" / str(number) / "fs"
    path.mkdir(parents=True)
    (path / "file").write_bytes(random.Random(number).randbytes(size))
    return path


def _files(directory: Path) -> dict[str, int]:
    return {name: len(os.listdir(directory / name)) for name in ("blobs", "index", "layers", "making")}


async def _warned(cache: LayerCache, layer: Path) -> tuple[OpenLayer, list[EventDict]]:
    with capture_logs() as lines:
        return await cache.ensure(layer), lines


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def _lengthen(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 4096)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _cut_in_the_superblock(path: Path) -> None:
    os.truncate(path, 1030)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _rot(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        (byte,) = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)


def _rot_of_the_root(path: Path) -> None:
    _rot(path, 1024 + 14)


def _rot_of_the_uuid(path: Path) -> None:
    _rot(path, 1024 + 50)


def _rot_of_the_size(path: Path) -> None:
    _rot(path, 1024 + 38)


def _another_s_image(path: Path) -> None:
    other = path.parents[2] / "other"
    (other / "file").parent.mkdir()
    (other / "file").write_bytes(b"x")
    image = path.parents[2] / "other.erofs"
    asyncio.run(erofs.convert(erofs.tool("mkfs.erofs", 30), other, image))
    erofs.name(image)
    image.rename(path)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link_to_the_host(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "is cut short"),
        (_lengthen, "is too long: has"),
        (_empty, "is cut short at 0 bytes"),
        (_cut_in_the_superblock, "is cut short at 1030 bytes"),
        (_zero, "is no EROFS image"),
        (_rot_of_the_root, "its first block is damaged"),
        (_rot_of_the_uuid, "its first block is damaged"),
        (_rot_of_the_size, "is cut short"),
        (_another_s_image, "another image's"),
        (_fifo, "is no file"),
        (_link_to_the_host, "is no file"),
    ],
)
async def test_a_damaged_image_is_made_anew_with_one_warning(
    damage: Callable[[Path], None], words: str, tmp_path: Path, directory: Path
) -> None:
    cache, layer = _cache(directory), _layer(tmp_path, 1)
    (image := await cache.ensure(layer)).close()
    content = image.path.read_bytes()
    image.path.chmod(0o600)
    await asyncio.to_thread(damage, image.path)
    again, lines = await _warned(cache, layer)
    with again:
        assert os.pread(again.fd, len(content) + 1, 0) == content == image.path.read_bytes()
    assert [line["log_level"] for line in lines] == ["warning"]
    assert lines[0]["image"] == str(image.path)
    assert words in lines[0]["fault"]
    assert _files(directory) == {"blobs": 1, "index": 1, "layers": 1, "making": 0}
    found, lines = await _warned(cache, layer)
    with found:
        assert lines == []


async def test_whoever_has_a_damaged_image_keeps_it(tmp_path: Path, directory: Path) -> None:
    cache, layer = _cache(directory), _layer(tmp_path, 1)
    with await cache.ensure(layer) as machine_s:
        image = machine_s.path
        image.chmod(0o600)
        _cut(image)
        with await cache.ensure(layer) as again:
            assert os.fstat(machine_s.fd).st_size == os.fstat(again.fd).st_size - 4096
            assert os.fstat(again.fd).st_ino == image.stat().st_ino != os.fstat(machine_s.fd).st_ino


@pytest.mark.parametrize("target", ["../blobs/nothing.erofs", "/nowhere/at/all", "../../../../etc/passwd", ".."])
async def test_a_link_into_nowhere_counts_as_none(target: str, tmp_path: Path, directory: Path) -> None:
    cache, layer = _cache(directory), _layer(tmp_path, 1)
    (image := await cache.ensure(layer)).close()
    (link,) = (directory / "index").iterdir()
    link.unlink()
    link.symlink_to(target)
    with await cache.ensure(layer) as again:
        assert again.path == image.path


async def test_a_file_in_the_link_s_place_counts_as_none(tmp_path: Path, directory: Path) -> None:
    cache, layer = _cache(directory), _layer(tmp_path, 1)
    (image := await cache.ensure(layer)).close()
    (link,) = (directory / "index").iterdir()
    link.unlink()
    link.write_text("")
    with await cache.ensure(layer) as again:
        assert (again.path, link.is_symlink()) == (image.path, True)


async def test_a_directory_in_the_image_s_place_is_named(tmp_path: Path, directory: Path) -> None:
    cache, layer = _cache(directory), _layer(tmp_path, 1)
    (image := await cache.ensure(layer)).close()
    image.path.unlink()
    image.path.mkdir()
    with pytest.raises(HostError, match="Is a directory"):
        await cache.ensure(layer)
    assert os.listdir(directory / "making") == []


async def test_the_links_of_an_image_that_is_being_published_stay(tmp_path: Path, directory: Path) -> None:
    """Whoever cleans up at that moment sees links to an image that is not there yet."""
    (await _cache(directory).ensure(_layer(tmp_path, 1))).close()
    for place, target in (("index", "../blobs/soon.erofs"), ("layers", "/layer")):
        (directory / place / "key").symlink_to(target)
        (directory / place / "left").symlink_to(target)
    (directory / "making" / "key.erofs").touch()
    (await _cache(directory).ensure(_layer(tmp_path, 2))).close()
    assert (directory / "index" / "key").is_symlink()
    assert (directory / "layers" / "key").is_symlink()
    assert not (directory / "index" / "left").is_symlink()
    assert not (directory / "layers" / "left").is_symlink()


def _mkfs_that_first(tmp_path: Path, command: str) -> str:
    script = tmp_path / "mkfs"
    script.write_text(f'#!/bin/sh\n{command}\nexec mkfs.erofs "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo more >> {layer}/deep/file", "layer {layer}: changed while its image was made, 2 times"),
        ("touch {layer}/file$$", "layer {layer}: changed while its image was made, 2 times"),
        ("rm -r {layer}", "layer {layer}: No such file or directory"),
        ("mkfs.erofs() {{ :; }}; rm -rf {layer}/deep; exec false", "could not make an image of {layer} as"),
    ],
)
async def test_a_layer_that_changes_or_vanishes_meanwhile(
    command: str, words: str, tmp_path: Path, directory: Path
) -> None:
    layer = _layer(tmp_path, 1)
    (layer / "deep").mkdir()
    (layer / "deep" / "file").touch()
    cache = _cache(directory, mkfs=_mkfs_that_first(tmp_path, command.format(layer=layer)))
    with pytest.raises(HostError) as failure:
        await cache.ensure(layer)
    assert words.format(layer=layer) in failure.value.message
    assert "\n" not in str(failure.value)
    assert _files(directory) == {"blobs": 0, "index": 0, "layers": 0, "making": 0}


async def test_a_file_of_a_layer_may_get_another_link_meanwhile(tmp_path: Path, directory: Path) -> None:
    """That is a change, but not one that goes on."""
    layer = _layer(tmp_path, 1)
    command = f"[ -e {tmp_path}/linked ] || ln {layer}/file {tmp_path}/linked"
    with await _cache(directory, mkfs=_mkfs_that_first(tmp_path, command)).ensure(layer) as image:
        assert image.size > 1_000_000


async def test_another_directory_in_its_place_meanwhile(tmp_path: Path, directory: Path) -> None:
    layer = _layer(tmp_path, 1)
    command = (
        f"[ -e {tmp_path}/gone ] || {{ cp -a {layer} {layer}2; mv {layer} {tmp_path}/gone; mv {layer}2 {layer}; }}"
    )
    with pytest.raises(HostError, match=f"layer {layer}: is another one than when its image was begun"):
        await _cache(directory, mkfs=_mkfs_that_first(tmp_path, command)).ensure(layer)
    assert _files(directory) == {"blobs": 0, "index": 0, "layers": 0, "making": 0}


async def test_images_that_nobody_uses_make_room_on_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    cache = _cache(small_disk)
    used = await cache.ensure(_layer(tmp_path, 1, 300_000))
    (await cache.ensure(_layer(tmp_path, 2, 300_000))).close()
    with await cache.ensure(_layer(tmp_path, 3, 500_000)) as third, used:
        assert {path.stem for path in (small_disk / "blobs").iterdir()} == {used.digest, third.digest}
        with pytest.raises(ResourceError, match=r"no room to make an image of .*/snapshots/4/fs") as failure:
            await cache.ensure(_layer(tmp_path, 4, 500_000))
        assert failure.value.hint == "free some of that file system, or put runtime.cache_dir on a larger one"
    assert _files(small_disk) == {"blobs": 2, "index": 2, "layers": 2, "making": 0}


async def test_processes_killed_at_any_moment(tmp_path: Path, directory: Path) -> None:
    """Two at once convert the same layers, and both are killed: what is there afterwards is whole or not used."""
    layers = [_layer(tmp_path, number, 400_000) for number in range(1, 5)]
    expected: dict[Path, str] = {}
    for layer in layers:
        image = tmp_path / "expected"
        await erofs.convert(erofs.tool("mkfs.erofs", 30), layer, image)
        expected[layer] = erofs.name(image)
    chance = random.Random(7)
    for _ in range(10):
        pair = [await _shim(directory, 1, layers) for _ in range(2)]
        await asyncio.sleep(chance.random() * 0.15)
        for shim in pair:
            with contextlib.suppress(ProcessLookupError):  # done already
                shim.kill()
            await shim.communicate()
        with capture_logs() as lines:
            for layer in layers:
                if (found := _cache(directory).lookup(layer)) is not None:
                    assert found.digest == expected[layer] == _read_digest(found)
                    found.close()
        assert lines == []
    for layer in layers:
        with await _cache(directory).ensure(layer) as opened:
            assert opened.digest == expected[layer]
    (await _cache(directory).ensure(_layer(tmp_path, 9))).close()
    assert _files(directory)["making"] == 0


async def _shim(directory: Path, limit_mib: int, layers: Sequence[Path]) -> asyncio.subprocess.Process:
    """A process that wants the images of these layers, one after the other; it has everything imported."""
    words = [sys.executable, "-c", _ENSURE, str(directory), str(limit_mib), *map(str, layers)]
    shim = await asyncio.create_subprocess_exec(*words, cwd=_TOP, stdout=asyncio.subprocess.PIPE)
    assert shim.stdout is not None
    assert await shim.stdout.readline() == b"ready\n"
    return shim


def _read_digest(image: OpenLayer) -> str:
    with open(image.fd, "rb", closefd=False) as file:
        return erofs.read_digest(file)


async def test_many_processes_stay_below_the_limit_and_take_nothing_that_is_in_use(
    tmp_path: Path, directory: Path
) -> None:
    """Four processes go through twelve layers of 1 MiB in four orders, with room for three."""
    layers = [_layer(tmp_path, number) for number in range(1, 13)]
    with await _cache(directory, limit_mib=3).ensure(layers[0]) as used:
        orders = [random.Random(number).sample(layers, len(layers)) for number in range(4)]
        shims = [await _shim(directory, 3, order) for order in orders]
        answers = [(await shim.communicate())[0].decode().splitlines() for shim in shims]
        assert [shim.returncode for shim in shims] == [0] * 4
        assert {len(lines) for lines in answers} == {12}
        assert len({line for lines in answers for line in lines}) == 12
        assert used.path.exists()
    (await _cache(directory, limit_mib=3).ensure(_layer(tmp_path, 20))).close()
    assert _files(directory) == {"blobs": 3, "index": 3, "layers": 3, "making": 0}
