"""The layer cache: converted once, shared, bounded, and whole whatever happens."""

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shim.errors import HostError, MissingPartError, ResourceError
from shim.journal import Journal
from shim.rootfs.cache import LayerCache


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _cache(directory: Path, *, limit_mib: int = 100, mkfs: str = "mkfs.erofs", deadline_s: float = 30) -> LayerCache:
    return LayerCache(directory, limit_mib=limit_mib, mkfs_erofs=mkfs, deadline_s=deadline_s)


def _layer(root: Path, number: int, content: bytes = b"") -> Path:
    path = root / "snapshots" / str(number) / "fs"
    path.mkdir(parents=True)
    (path / "file").write_bytes(content or bytes([number]) * 1_000_000)
    for part in (path / "file", path):
        os.utime(part, ns=(0, 1))
    return path


def _files(directory: Path) -> dict[str, int]:
    return {name: len(os.listdir(directory / name)) for name in ("blobs", "index", "making")}


def _counting(tmp_path: Path) -> tuple[str, Path]:
    """An mkfs.erofs that notes each of its runs."""
    script, log = tmp_path / "mkfs", tmp_path / "runs"
    script.write_text(f'#!/bin/sh\necho run >> {log}\nexec mkfs.erofs "$@"\n')
    script.chmod(0o755)
    return str(script), log


async def test_a_layer_is_converted_once(tmp_path: Path, directory: Path) -> None:
    mkfs, log = _counting(tmp_path)
    layer = _layer(tmp_path, 1)
    assert _cache(directory).lookup(layer) is None
    with await _cache(directory, mkfs=mkfs).ensure(layer) as first, await _cache(directory, mkfs=mkfs).ensure(layer):
        assert first.path == directory / "blobs" / f"{first.digest}.erofs"
        assert first.size == os.fstat(first.fd).st_size > 1_000_000
        assert first.path.stat().st_mode & 0o777 == 0o400
    assert log.read_text().splitlines() == ["run"]
    assert _files(directory) == {"blobs": 1, "index": 1, "making": 0}


async def test_many_at_once_convert_once(tmp_path: Path, directory: Path) -> None:
    mkfs, log = _counting(tmp_path)
    layer = _layer(tmp_path, 1)
    opened = await asyncio.gather(*(_cache(directory, mkfs=mkfs).ensure(layer) for _ in range(8)))
    assert len({image.digest for image in opened}) == 1
    assert log.read_text().splitlines() == ["run"]
    assert _files(directory) == {"blobs": 1, "index": 1, "making": 0}
    for image in opened:
        image.close()


async def test_two_processes_at_once_convert_once(tmp_path: Path, directory: Path) -> None:
    mkfs, log = _counting(tmp_path)
    layer = _layer(tmp_path, 1)
    code = (
        "import asyncio; from pathlib import Path; from shim.rootfs.cache import LayerCache;"
        f"c = LayerCache(Path({str(directory)!r}), limit_mib=100, mkfs_erofs={mkfs!r}, deadline_s=30);"
        f"print(asyncio.run(c.ensure(Path({str(layer)!r}))).digest)"
    )
    words = (sys.executable, "-c", code)
    top = Path(__file__).parents[4]
    shims = [await asyncio.create_subprocess_exec(*words, cwd=top, stdout=subprocess.PIPE) for _ in range(3)]
    answers = [(await shim.communicate())[0] for shim in shims]
    assert len(set(answers)) == 1
    assert len(answers[0]) == 65
    assert log.read_text().splitlines() == ["run"]


async def test_equal_layers_share_an_image(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory)
    layers = _layer(tmp_path / "a", 1, b"same"), _layer(tmp_path / "b", 2, b"same")
    with await cache.ensure(layers[0]) as one, await cache.ensure(layers[1]) as two:
        assert one.digest == two.digest
    assert _files(directory) == {"blobs": 1, "index": 2, "making": 0}


async def test_a_directory_in_place_of_another_is_another_layer(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory)
    layer = _layer(tmp_path, 1)
    with await cache.ensure(layer) as before:
        layer.rename(tmp_path / "gone")
        again = _layer(tmp_path / "new", 1, b"other")
        again.rename(layer)
        with await cache.ensure(layer) as after:
            assert before.digest != after.digest


async def test_the_least_recently_used_goes_first_and_what_is_in_use_stays(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory, limit_mib=3)
    images = [await cache.ensure(_layer(tmp_path, number)) for number in range(1, 4)]
    assert _files(directory)["blobs"] == 3
    images[1].close()
    images[2].close()
    os.utime(images[1].path, (2, 2))
    os.utime(images[2].path, (1, 1))
    fourth = await cache.ensure(_layer(tmp_path, 4))
    kept = {path.stem for path in (directory / "blobs").iterdir()}
    assert kept == {images[0].digest, images[1].digest, fourth.digest}
    assert _files(directory)["index"] == 3
    assert cache.lookup(tmp_path / "snapshots/3/fs") is None
    images[0].close()
    fourth.close()


async def test_a_use_makes_an_image_recent(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory, limit_mib=2)
    for number in (1, 2):
        with await cache.ensure(_layer(tmp_path, number)) as image:
            os.utime(image.path, (number, number))
    with await cache.ensure(tmp_path / "snapshots/1/fs") as first:
        pass
    (await cache.ensure(_layer(tmp_path, 3))).close()
    assert first.path.exists()
    assert cache.lookup(tmp_path / "snapshots/2/fs") is None


async def test_all_in_use_may_be_over_the_limit(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory, limit_mib=1)
    images = [await cache.ensure(_layer(tmp_path, number)) for number in range(1, 5)]
    assert _files(directory)["blobs"] == 4
    for image in images:
        image.close()


async def test_a_machine_s_copy_of_the_descriptor_keeps_the_image(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory, limit_mib=1)
    image = await cache.ensure(_layer(tmp_path, 1))
    of_the_machine = os.dup(image.fd)
    image.close()
    image.close()
    (await cache.ensure(_layer(tmp_path, 2))).close()
    assert image.path.exists()
    os.close(of_the_machine)
    (await cache.ensure(_layer(tmp_path, 3))).close()
    assert not image.path.exists()


async def test_a_removed_image_is_made_again(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory)
    layer = _layer(tmp_path, 1)
    with await cache.ensure(layer) as image:
        image.path.unlink()
    with await cache.ensure(layer) as again:
        assert again.digest == image.digest
        assert again.path.exists()


async def test_an_image_about_to_be_removed_is_not_handed_out(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory)
    layer = _layer(tmp_path, 1)
    (image := await cache.ensure(layer)).close()
    remover = os.open(image.path, os.O_RDONLY)
    fcntl.flock(remover, fcntl.LOCK_EX)
    assert cache.lookup(layer) is None
    os.close(remover)
    with cache.lookup(layer) or pytest.fail("no image") as found:
        assert found.digest == image.digest


async def test_what_killed_makers_left_is_removed_but_not_what_is_being_made(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory)
    (await cache.ensure(_layer(tmp_path, 1))).close()
    for name in ("left.erofs.lock", "left.erofs", "growing.erofs.lock", "growing.erofs"):
        (directory / "making" / name).write_bytes(bytes(1000))
    with (directory / "making" / "growing.erofs.lock").open("rb") as maker:
        fcntl.flock(maker, fcntl.LOCK_EX)
        (await cache.ensure(_layer(tmp_path, 2))).close()
        assert sorted(os.listdir(directory / "making")) == ["growing.erofs", "growing.erofs.lock"]


async def test_what_is_begun_is_in_the_journal_first(tmp_path: Path, directory: Path) -> None:
    journal = Journal(tmp_path)
    cache = LayerCache(directory, limit_mib=64, mkfs_erofs="false", deadline_s=5, journal=journal)
    with pytest.raises(HostError):
        await cache.ensure(_layer(tmp_path, 1))
    (draft,) = journal.entries()
    assert draft["kind"] == "draft"
    assert Path(str(draft["path"])).parent == directory / "making"


async def test_a_half_written_image_of_the_same_layer_is_overwritten(tmp_path: Path, directory: Path) -> None:
    cache = _cache(directory)
    layer = _layer(tmp_path, 1)
    with await cache.ensure(layer) as image:
        (identity,) = os.listdir(directory / "index")
        image.path.unlink()
    (directory / "making" / f"{identity}.erofs.lock").touch()
    (directory / "making" / f"{identity}.erofs").write_bytes(os.urandom(5_000_000))
    with await cache.ensure(layer) as again:
        assert again.digest == image.digest
    assert _files(directory) == {"blobs": 1, "index": 1, "making": 0}


async def test_a_failed_conversion_leaves_nothing(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(HostError, match="false could not make an image"):
        await _cache(directory, mkfs="false").ensure(_layer(tmp_path, 1))
    with pytest.raises(MissingPartError, match="erofs-utils"):
        await _cache(directory, mkfs="no-such-mkfs").ensure(tmp_path / "snapshots/1/fs")
    assert _files(directory) == {"blobs": 0, "index": 0, "making": 0}


async def test_a_full_disk_leaves_nothing(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(ResourceError, match=f"no room to make an image of {tmp_path}/snapshots/1/fs as {small_disk}"):
        await _cache(small_disk).ensure(_layer(tmp_path, 1, os.urandom(2_000_000)))
    assert _files(small_disk) == {"blobs": 0, "index": 0, "making": 0}


async def test_cancellation_leaves_nothing(tmp_path: Path, directory: Path) -> None:
    fifo, script = tmp_path / "fifo", tmp_path / "mkfs"
    os.mkfifo(fifo)
    script.write_text(f"#!/bin/sh\necho started > {fifo}\nexec sleep 1000\n")
    script.chmod(0o755)
    running = asyncio.create_task(_cache(directory, mkfs=str(script)).ensure(_layer(tmp_path, 1)))
    await asyncio.to_thread(fifo.read_text)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert _files(directory) == {"blobs": 0, "index": 0, "making": 0}


async def test_a_maker_that_never_ends_is_waited_for_until_the_deadline(tmp_path: Path, directory: Path) -> None:
    layer = _layer(tmp_path, 1)
    (await _cache(directory).ensure(layer)).close()
    (identity,) = os.listdir(directory / "index")
    (directory / "index" / identity).unlink()
    with (directory / "making" / f"{identity}.erofs.lock").open("wb") as maker:
        fcntl.flock(maker, fcntl.LOCK_EX)
        with pytest.raises(HostError, match=r"another process did not finish this image within 0\.1 s"):
            await _cache(directory, deadline_s=0.1).ensure(layer)
        assert os.listdir(directory / "making") == [f"{identity}.erofs.lock"]


async def test_no_such_layer(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(HostError, match="layer /nowhere: No such file or directory"):
        await _cache(directory).ensure(Path("/nowhere"))
