"""The removal, with nothing left of it but what docs/install.md says stays."""

import pytest

from tests.kvm.harness import listing
from tests.kvm.harness.host import PREFIX, Host

_UNINSTALL = f"{PREFIX}/share/qemubox/installer/install.sh --uninstall"


class Removal:
    """The last steps of a suite."""

    @pytest.mark.needs("test_release_is_installed")
    def test_uninstall_is_refused_under_a_running_container(self, host: Host) -> None:
        host.start("user")
        refused = host.run(f"{_UNINSTALL} 2>&1", 180, check=False)
        assert refused.status == 1
        assert "default/user" in refused.stdout
        assert host.exec("user", "echo there") == "there"
        host.remove("user")

    @pytest.mark.needs("test_uninstall_is_refused_under_a_running_container")
    def test_uninstall_leaves_nothing(self, host: Host) -> None:
        for image in host.ctr("image ls --quiet").stdout.split():
            host.ctr(f"image rm {image}")
        removed = host.run(f"{_UNINSTALL} 2>&1", 300)
        host.times.record("uninstall", removed.seconds)
        host.run("systemctl daemon-reload")
        before = frozenset(host.kept["before"].splitlines())
        differences = listing.differences(before, listing.take(host.machine))
        assert not differences, "\n".join(differences)
        assert host.failed_units() == ""

    @pytest.mark.needs("test_uninstall_leaves_nothing")
    def test_machine_powers_off(self, host: Host) -> None:
        host.machine.power_off()
