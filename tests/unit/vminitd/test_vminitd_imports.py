"""What vminitd loads before the host hears of it is paid on every cold boot, at a tenth of a host's speed."""

import subprocess
import sys

# Each of them was measured at 5 to 100 ms in the guest (2026-11), or is not in its image at all.
UNWANTED = {
    *("ssl", "dataclasses", "shutil", "tempfile", "glob", "pathlib", "argparse", "multiprocessing", "unittest"),
    *("email", "http", "urllib", "structlog", "psutil", "pyroute2", "qemu", "shim", "ttrpc.client", "ttrpc.plugin"),
    *("uuid", "decimal", "datetime", "zipfile", "bz2", "lzma"),
}
# Loaded by protobuf itself, not by us.
PROTOBUF_S_OWN = {"datetime", "decimal"}

SCRIPT = """
import sys
sys.modules["ssl"] = None  # as main() does
before = set(sys.modules)
import vminitd.__main__, vminitd.power, vminitd.boot, asyncio, vminitd.serve
print(*sorted(name for name in set(sys.modules) - before if sys.modules[name] is not None))
"""


def loaded(script: str) -> set[str]:
    # As in the guest, without `site`, which may load some of them on its own.
    program = f"import sys; sys.path[:] = {sys.path!r}\n{script}"
    run = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_start_path_loads_only_what_it_needs() -> None:
    modules = loaded(SCRIPT)
    assert "vminitd.services.containers" in modules
    assert modules & UNWANTED <= PROTOBUF_S_OWN


def test_main_itself_loads_next_to_nothing() -> None:
    """The milestone "python" is taken there."""
    modules = loaded(
        "import sys; before = set(sys.modules); import vminitd.__main__; print(*set(sys.modules) - before)"
    )
    assert modules == {"vminitd", "vminitd.__main__", "vminitd.milestones"}


def test_a_template_has_what_asyncio_imports_with_the_first_thread() -> None:
    """Whatever else of the warm-up fails: here there is neither crun nor a place for it."""
    modules = loaded(
        "import sys, asyncio, vminitd.warm as warm\n"
        "from vminitd.parked import Prepared\n"
        "assert 'concurrent.futures.thread' not in sys.modules\n"
        "class Machinery: crun = reaper = None; prepared = Prepared()\n"
        "async def fails(*_): raise OSError('no crun')\n"
        "async def made(*_): return False\n"
        "warm._run_one, warm.park = made, fails\n"
        "asyncio.run(warm.warm(Machinery()))\n"
        "print(*sys.modules)"
    )
    assert "concurrent.futures.thread" in modules
