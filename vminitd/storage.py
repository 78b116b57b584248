"""All file systems of one container: its root, its disks, and the share of the host's directories and files.

Mounted while crun waits for what it is to make, and taken apart in reverse once no process can see them.
"""

from contextlib import ExitStack

from vminitd.block_volumes import BlockVolume, BlockVolumes
from vminitd.rootfs import Plan, Rootfs
from vminitd.uevent import Uevents
from vminitd.volumes import Share


class Storage:
    """Those of one container, below `directory`."""

    def __init__(self, directory: str) -> None:
        self.rootfs = Rootfs(directory)
        self._block_volumes = BlockVolumes(directory)
        self._share = Share(directory)

    @property
    def writable(self) -> tuple[str, ...]:
        """Where those file systems are mounted that are the container's own and can be written to."""
        return tuple(filter(None, (self.rootfs.writable, *self._block_volumes.writable)))

    def share(self, volumes: str) -> str:
        """Where the share with that tag is, or will be; empty if there is none."""
        return self._share.path if volumes else ""

    async def mount(self, uevents: Uevents, rootfs: Plan, volumes: str) -> None:
        """Mounts the root, and the share with the tag `volumes` if that is not empty. Must not be cancelled.

        After an error, what was mounted by then is left for `unmount`. Raises RequestError, DeviceError or MountError.
        """
        await self.rootfs.mount(uevents, rootfs)
        await self._share.mount(uevents, volumes)

    async def mount_block_volumes(self, uevents: Uevents, volumes: tuple[BlockVolume, ...], spec: bytes) -> bytes:
        """As BlockVolumes.mount."""
        return await self._block_volumes.mount(uevents, volumes, spec)

    def unmount(self, *, layers: bool = True) -> None:
        """Takes all of it apart, as far as it is there, or all but read-only layers. Blocks; call it in a thread.

        Raises MountError.
        """
        with ExitStack() as undo:  # one that fails keeps none of the others
            undo.callback(self.rootfs.unmount, layers=layers)
            undo.callback(self._share.unmount)
            undo.callback(self._block_volumes.unmount)
