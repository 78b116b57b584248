"""The service keeps each template's memory, sealed, and a shim finds that of the very template it has opened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from shim.config import Config, RuntimeConfig
from shim.log import Logger
from shim.template import held
from shim.template.choice import open_store
from shim.template.store import Made, Store, name_of
from shim.warm import holdings
from shim.warm.holdings import Holdings

_MEMORY = 4096
_NAMES = (name_of("a" * 64), name_of("a" * 64, "other"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(runtime=RuntimeConfig(cache_dir=str(tmp_path)))


@pytest.fixture
def store(config: Config) -> Store:
    return open_store(config)


@pytest.fixture
def log() -> Logger:
    log: Logger = structlog.get_logger()
    return log


@pytest.fixture
def kept() -> Iterator[Holdings]:
    before = set(os.listdir("/proc/self/fd"))
    kept = Holdings()
    yield kept
    kept.keep_only(())
    holdings.inherit(Holdings())
    assert set(os.listdir("/proc/self/fd")) == before


async def make(store: Store, name: str, content: bytes, *, again: bool = False) -> None:
    async def write(_directory: Path, fd: int) -> Made:
        os.write(fd, content.ljust(_MEMORY, b".") + b"devices")
        return Made("7.2.0", _MEMORY)

    await store.build(name, write, 10, again=again)


async def test_a_shim_finds_its_template_s_memory_and_owns_what_it_gets(
    store: Store, config: Config, kept: Holdings, log: Logger
) -> None:
    await make(store, _NAMES[0], b"first")
    held.refresh(kept, config, log)
    holdings.inherit(kept)
    template = store.open(_NAMES[0])
    for _ in range(2):
        fd = held.find(template)
        assert fd is not None
        assert os.pread(fd, 5, 0) == b"first"
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        os.close(fd)
    template.close()


async def test_another_template_of_the_same_name_is_another(
    store: Store, config: Config, kept: Holdings, log: Logger
) -> None:
    await make(store, _NAMES[0], b"first")
    held.refresh(kept, config, log)
    holdings.inherit(kept)
    await make(store, _NAMES[0], b"second", again=True)
    template = store.open(_NAMES[0])
    assert held.find(template) is None
    held.refresh(kept, config, log)
    fd = held.find(template)
    assert fd is not None
    assert os.pread(fd, 6, 0) == b"second"
    assert len(kept.fds) == 1
    os.close(fd)
    template.close()


async def test_what_is_removed_or_damaged_is_let_go_of(
    store: Store, config: Config, kept: Holdings, log: Logger, tmp_path: Path
) -> None:
    for name in _NAMES:
        await make(store, name, b"x")
    held.refresh(kept, config, log)
    assert len(kept.fds) == 2
    store.remove(_NAMES[1])
    held.refresh(kept, config, log)
    assert len(kept.fds) == 1
    os.truncate(tmp_path / "templates" / _NAMES[0] / "state", 10)
    held.refresh(kept, config, log)
    assert kept.fds == {}


async def test_a_shim_without_the_service_has_none(store: Store, kept: Holdings) -> None:
    await make(store, _NAMES[0], b"first")
    template = store.open(_NAMES[0])
    assert held.find(template) is None
    template.close()
