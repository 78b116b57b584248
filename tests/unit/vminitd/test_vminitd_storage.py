"""All that a container has mounted is taken apart, whatever of it fails."""

from pathlib import Path

import pytest

from vminitd.errors import MountError
from vminitd.storage import Storage


@pytest.mark.parametrize("failing", [(), ("share",), ("block volumes",), ("share", "block volumes")])
def test_one_that_cannot_be_unmounted_keeps_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: tuple[str, ...]
) -> None:
    """The root is written back by that: a share whose daemon is gone must not be in the way."""
    done = []

    def unmount(name: str) -> None:
        done.append(name)
        if name in failing:
            raise MountError(name)

    storage = Storage(str(tmp_path))
    monkeypatch.setattr(storage.rootfs, "unmount", lambda *, layers: unmount(f"root, layers: {layers}"))
    monkeypatch.setattr(storage._share, "unmount", lambda: unmount("share"))
    monkeypatch.setattr(storage._block_volumes, "unmount", lambda: unmount("block volumes"))
    if failing:
        with pytest.raises(MountError, match=failing[0]):
            storage.unmount(layers=False)
    else:
        storage.unmount(layers=False)
    assert done == ["block volumes", "share", "root, layers: False"]
