"""Debian 12: the release beside the host's containerd 1.6, with its QEMU 7.2."""

from typing import ClassVar

from tests.kvm.harness.host import Suite
from tests.kvm.steps.containers import Containers
from tests.kvm.steps.faults import Faults
from tests.kvm.steps.install import Checked, Clean, Fresh
from tests.kvm.steps.reboot import Reboot
from tests.kvm.steps.uninstall import Removal


class TestBookworm(Removal, Reboot, Faults, Containers, Checked, Fresh, Clean):
    """In the order of the steps, which is that of the bases from the last to the first (pytest: reversed MRO)."""

    suite: ClassVar[Suite] = Suite("bookworm", "host", shim_only=True, qemu="QEMU 7.2")
