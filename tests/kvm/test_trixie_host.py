"""Debian 13 with its containerd 1.7 and QEMU 10: the release beside them, over the previous one.

Before a release: `task test:all`.
"""

from typing import ClassVar

from tests.kvm.harness.host import Suite
from tests.kvm.steps.containers import ColdBoot, Containers, Ended
from tests.kvm.steps.install import Checked, CheckedAgain, Clean, Upgrade
from tests.kvm.steps.uninstall import Removal


class TestTrixieHost(Removal, Ended, ColdBoot, Containers, CheckedAgain, Checked, Upgrade, Clean):
    """In the order of the steps, which is that of the bases from the last to the first (pytest: reversed MRO)."""

    suite: ClassVar[Suite] = Suite("trixie", "host", shim_only=True, qemu="QEMU 10")
