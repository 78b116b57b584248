"""Where the benchmark runs: one cell with a containerd, the checkout's qemubox, and its templates."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness.box import Box
from harness.cell import Cell
from harness.containerd import Containerd
from harness.deadline import eventually
from harness.flavours import flavour
from harness.images import BUSYBOX
from harness.qemubox import Qemubox
from tests.bench.variants import Variant


class Place:
    """A running containerd. What is started in it ends with it."""

    def __init__(self, cell: Cell, containerd: Containerd, qemubox: Qemubox) -> None:
        self.cell = cell
        self.containerd = containerd
        self.qemubox = qemubox

    def box(self, variant: Variant) -> Box:
        """The variant's runtime, for use within `configured`."""
        return Box(self.containerd, variant.runtime)

    def configured(self, variant: Variant) -> AbstractContextManager[None]:
        """The variant's configuration for a while: every shim reads it at its start.

        Each has a cache of its own: a new template takes the place of one for another machine.
        """
        cache = self.qemubox.cache.with_name(f"cache-{variant.name.replace(', ', '-')}")
        return self.qemubox.changed({**variant.changes, "runtime": {"cache_dir": str(cache)}})

    def present(self, variants: Sequence[Variant]) -> tuple[list[Variant], dict[str, str]]:
        """Those that can run here, each tried once and its template built; and the others' names, with why not."""
        there: list[Variant] = []
        absent: dict[str, str] = {}
        for variant in variants:
            if reason := self._reason_against(variant):
                absent[variant.name] = reason.replace(str(self.qemubox.config), "config.toml")
            else:
                there.append(variant)
        for variant in there:
            if (variant.start, variant.memory) == ("clone", "private"):
                self._hold_template(variant)
        return there, absent

    def _hold_template(self, variant: Variant) -> None:
        """Have the service keep the memory of this variant's template: the last that it was told of is another's."""
        with self.configured(variant):
            self.qemubox.command("template", "build")
            eventually(lambda: not self._why_not_private(variant), "the service keeps the template's memory", 60.0)

    def _why_not_private(self, variant: Variant) -> str:
        begin = self.containerd.log_size()
        self.box(variant).run("true").checked()
        return self.why_another(variant, begin)

    def accelerator(self) -> str:
        """Whether KVM runs machines here, by the shim's own trial, which it keeps; asked after `present`."""
        for path in self.cell.path("/run/qemubox").glob("accel-*.json"):
            verdict = json.loads(path.read_text())
            return "KVM" if verdict["usable"] else f"TCG, as KVM is not usable ({verdict['reason'].partition(';')[0]})"
        return "KVM is not there: TCG"

    def _reason_against(self, variant: Variant) -> str:
        with self.configured(variant):
            if variant.start == "clone":
                built = self.qemubox.command("template", "build")
                if built.returncode:
                    return built.stderr.strip()
            begin = self.containerd.log_size()
            tried = self.box(variant).run("true")
            return self.why_cold(begin) if tried.code == 0 and variant.start == "clone" else tried.error

    def why_cold(self, log_offset: int) -> str:
        """What shims have said since then of a machine that booted though it was to be a clone; empty if none did."""
        lines = self.containerd.log_tail(log_offset).splitlines()
        return next((line for line in lines if "cold boot" in line), "")

    def why_another(self, variant: Variant, log_offset: int) -> str:
        """What is wrong with the last machine since then, for the variant's; empty if it was one of that kind."""
        lines = [line for line in self.containerd.log_tail(log_offset).splitlines() if "boot timeline" in line]
        wanted = f"how={'clone' if variant.start == 'clone' else 'boot'} memory={variant.memory_from}"
        if not lines:
            return "its start left no line in the log"
        return "" if wanted in lines[-1] else self.why_cold(log_offset) or f"not {wanted}: {lines[-1]}"


@contextmanager
def place(containerd_name: str) -> Iterator[Place]:
    """A place with the containerd of that name; raises MissingPart where a part is not there."""
    # On a disk, as in tests/vm/conftest.py.
    directory = Path(tempfile.mkdtemp(prefix="qemubox-bench-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        with Cell(directory) as cell:
            qemubox = Qemubox(directory, cell)
            qemubox.install()
            containerd = Containerd(flavour(containerd_name), cell, qemubox, directory)
            containerd.service.start()
            containerd.start()
            containerd.import_image(BUSYBOX)
            yield Place(cell, containerd, qemubox)
    finally:
        shutil.rmtree(directory)
