"""Debian 12 with its containerd 1.6: the release beside it, over the previous one.

Before a release: `task test:all`.
"""

from typing import ClassVar

from tests.kvm.harness.host import Suite
from tests.kvm.steps.install import Clean, Upgrade
from tests.kvm.steps.uninstall import Removal


class TestBookwormUpgrade(Removal, Upgrade, Clean):
    """In the order of the steps, which is that of the bases from the last to the first (pytest: reversed MRO)."""

    suite: ClassVar[Suite] = Suite("bookworm", "host", shim_only=True, qemu="QEMU 7.2")
