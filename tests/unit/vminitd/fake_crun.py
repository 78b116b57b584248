"""crun's place taken by a shell script, which does what a test tells it."""

from pathlib import Path

from tests.unit.vminitd.dialled_host import DialledHost
from vminitd.crun import Crun
from vminitd.launch import Machinery, launch
from vminitd.parked import Prepared
from vminitd.process import Process
from vminitd.reaper import Reaper
from vminitd.stdio import Stdio
from vminitd.uevent import Uevents

# Understands what vminitd passes: the log, --pid-file, and leaves a process behind as crun does.
FAKE_CRUN = """#!/bin/sh
echo "$@" >>"$0.calls"
for word; do
  case $word in --log=file:*) log=${word#--log=file:} ;; esac
  case $last in --pid-file) pid_file=$word ;; --bundle) bundle=$word ;; esac
  last=$word
done
. "$0.behaviour"
"""
# The process goes on only when the script is gone (it alone holds the FIFO's writing end): some shells reap their
# children without being asked, which crun does not.
LEAVE_BEHIND = """mkfifo "$0.gate"
exec 8<>"$0.gate" 9<"$0.gate"
sh -c "exec 8>&-; read _ <&9; exec 9<&-; %s" & echo $! >"$pid_file"
"""


async def no_network() -> None:
    """There is nothing to wait for."""


class World:
    """A fake crun that does as it is told, and what is needed to launch processes with it."""

    def __init__(self, directory: Path, reaper: Reaper, host: DialledHost, uevents: Uevents) -> None:
        self.program = directory / "crun"
        self.program.write_text(FAKE_CRUN)
        self.program.chmod(0o755)
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        self.reaper = reaper
        self.crun = Crun(reaper, str(directory / "state"), str(self.program))
        self.machinery = Machinery(uevents, reaper, self.crun, host.dial, Prepared(), no_network)

    def behave(self, script: str) -> None:
        Path(f"{self.program}.behaviour").write_text(script)

    def calls(self) -> list[str]:
        return Path(f"{self.program}.calls").read_text().splitlines()

    async def create(self, process: Process) -> Stdio:
        """What a container's create does, without a container."""
        stdio = await Stdio.open(process.wish, self.machinery.dial)
        try:
            started = await launch(
                self.machinery,
                stdio,
                lambda streams, console: self.crun.create("c", str(self.bundle), streams, console),
            )
        except BaseException:
            stdio.close()
            raise
        process.adopt(started.pid, stdio, started.ended, lambda: 3)
        stdio.begin(started.master)
        return stdio
