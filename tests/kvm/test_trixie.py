"""Debian 13 with nothing that runs containers: the full release with its containerd and QEMU, and an upgrade."""

from typing import ClassVar

from tests.kvm.harness.host import Suite
from tests.kvm.steps.containers import Containers
from tests.kvm.steps.faults import Faults
from tests.kvm.steps.install import Checked, Clean, Upgrade
from tests.kvm.steps.reboot import Reboot
from tests.kvm.steps.uninstall import Removal


class TestTrixie(Removal, Reboot, Faults, Containers, Checked, Upgrade, Clean):
    """In the order of the steps, which is that of the bases from the last to the first (pytest: reversed MRO)."""

    suite: ClassVar[Suite] = Suite("trixie", "bare", shim_only=False, qemu="QEMU 10")
