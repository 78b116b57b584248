"""What the shim wants a container to be, as a value."""

from typing import NamedTuple

from vminitd.block_volumes import BlockVolume
from vminitd.files import File
from vminitd.rootfs import Plan
from vminitd.stdio import Wish


class Order(NamedTuple):
    """What the shim wants a container to be: guest.proto's CreateRequest."""

    container_id: str
    spec: bytes
    rootfs: Plan
    stdio: Wish
    files: tuple[File, ...]
    block_volumes: tuple[BlockVolume, ...] = ()
    # The virtiofs tag of the share with its volumes; empty where it has none.
    volumes: str = ""
