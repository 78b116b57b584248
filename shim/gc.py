"""`qemubox gc`: removes what is left of containers whose shims cannot do it any more.

After a crash that is a directory under the runtime directory whose journal nobody plays, because containerd's `delete`
did not come, failed, or was cut short. After a power loss the runtime directory is empty, and what was on a disk has
no journal: images, leases and what CNI plugins were asked for. All of it has the container's key in its name
(shim/identity.py).

Writable layers are their snapshots' and no container's (shim/rootfs/place.py): those that were kept go when the
snapshot is gone.

It may run at any time, beside containers that run, start or end, and beside itself: it touches nothing of a key before
it has claimed the key's directory as a shim does (shim/claim.py), made it if need be, and leaves alone what somebody
else has claimed. What it finds it writes into the journal there, and has that undone like any other: so what one gc did
not finish, the next one or the container's next start does.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from cni import CniError
from shim.claim import LOCK_NAME, ClaimTimeout, claim, make_directory, sign
from shim.config import Config
from shim.errors import HostError
from shim.journal import FILE_NAME, Journal
from shim.network import attached, leases, netns
from shim.network.attached import Attached
from shim.network.orphans import Orphans
from shim.reclaim import reclaim
from shim.rootfs import flock, kept, place

_KEY: Final = re.compile(r"[0-9a-f]{24}")
_WORDS: Final = {"removed": "removed", "found": "would remove", "kept": "left alone", "failed": "cannot remove"}

What = Literal["container", "attachment", "network namespace", "data", "writable layer", "lease", "network"]
Outcome = Literal["removed", "found", "kept", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was left, by its path or an attachment's name, and what became of it.

    `outcome` is "found" where it was only looked for, "kept" where somebody uses it; `why` says what failed, or who.
    """

    what: What
    name: str
    outcome: Outcome
    why: str = ""

    def __str__(self) -> str:
        return f"{_WORDS[self.outcome]}: {self.what} {self.name}{f': {self.why}' if self.why else ''}"


def run(config: Config, *, dry_run: bool, as_json: bool) -> int:
    """Sweep, and print what was found, a line each; the answer is the exit status, 1 where something is still there.

    Raises HostError where nothing can be done at all.
    """
    if os.geteuid() != 0:
        raise HostError("qemubox gc: containers are root's", hint="run it as root")
    findings = []
    for finding in sweep(config, dry_run=dry_run):
        findings.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return 1 if any(finding.outcome == "failed" for finding in findings) else 0


def sweep(config: Config, *, dry_run: bool) -> Iterator[Finding]:
    """Remove what is left, one container after the other. Blocks; on the main thread only.

    With `dry_run` nothing is removed, made or changed. Raises HostError where nothing can be done at all.
    """
    state, data = Path(config.runtime.state_dir, "vm"), Path(config.runtime.data_dir)
    try:
        orphans = Orphans(config)
        attached_keys = orphans.keys()
        keys = {name for directory in (state, data) for name in _names(directory)}
        namespaces = [name for name in _names(Path(netns.DIRECTORY)) if name.startswith(netns.PREFIX)]
        keys |= {name.removeprefix(netns.PREFIX) for name in namespaces}
    except (CniError, OSError) as error:
        raise HostError(f"cannot look for what is left: {error}") from error
    for key in sorted(key for key in keys | attached_keys if _KEY.fullmatch(key)):
        seen = orphans if key in attached_keys else None
        left = _Left(key, state / key, data / key, Path(netns.DIRECTORY, f"{netns.PREFIX}{key}"), seen)
        try:
            yield from left.look() if dry_run else left.remove()
        except (CniError, OSError) as error:
            yield Finding("container", str(left.directory), "failed", str(error))
    yield from _sweep_layers(data / place.DIRECTORY, dry_run=dry_run)
    yield from _sweep_networks(orphans, dry_run=dry_run)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class _Thing:
    """What no journal names, and the kind of record that undoes it."""

    what: What
    name: str
    kind: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Left:
    """What there may be of one container: its directory, and what is found without that.

    `orphans` is where it may have attachments; None where it had none when the sweep began.
    """

    key: str
    directory: Path
    data: Path
    netns: Path
    orphans: Orphans | None

    def look(self) -> Iterator[Finding]:
        """What `remove` would come upon."""
        if _is_locked(self.directory / LOCK_NAME):
            return
        if (self.directory / FILE_NAME).exists():
            yield Finding("container", str(self.directory), "found")
        elif not self.directory.is_dir() and (user := self._user()):
            yield user
            return
        for thing in self._things(self._attachments()):
            yield Finding(thing.what, thing.name, "found")

    def remove(self) -> Iterator[Finding]:
        """Claim it, and remove what is there."""
        was_there = self.directory.is_dir()
        try:
            lock = _claim(self.directory)
        except ClaimTimeout:  # a shim, `delete`, or another gc is at it
            return
        try:
            had_journal = (self.directory / FILE_NAME).exists()
            problems = reclaim(self.directory, keep_directory=True)
            if had_journal or problems:
                outcome: Outcome = "failed" if problems else "removed"
                yield Finding("container", str(self.directory), outcome, "; ".join(problems))
            if problems:
                return  # they are in its journal, and it stays
            if not was_there and (user := self._user()):
                yield user
            else:
                yield from self._adopt()
            reclaim(self.directory)
        finally:
            os.close(lock)

    def _adopt(self) -> Iterator[Finding]:
        """Write everything down as if it were ours, and have it undone, in the order of a container's end."""
        attachments = self._attachments()
        things = self._things(attachments)
        journal = Journal(self.directory)
        for thing in reversed(things):
            if thing.kind != "cni":
                journal.record(thing.kind, path=str(thing.path))
        for number, attachment in enumerate(attachments):
            attached.leave(self.directory, journal, attachment, name=f"{number}.{attached.FILE_NAME}")
        problems = reclaim(self.directory, keep_directory=True)
        for thing in things:
            why = [problem for problem in problems if problem.startswith(f"{thing.kind} {thing.path}: ")]
            yield Finding(thing.what, thing.name, "failed" if why else "removed", "; ".join(why))

    def _attachments(self) -> list[Attached]:
        return [] if self.orphans is None else self.orphans.attachments(self.key)

    def _things(self, attachments: list[Attached]) -> list[_Thing]:
        things = [
            _Thing("attachment", _described(attachment), "cni", self.directory / f"{number}.{attached.FILE_NAME}")
            for number, attachment in enumerate(attachments)
        ]
        if self.netns.exists():
            things.append(_Thing("network namespace", str(self.netns), "netns", self.netns))
        if self.data.exists():
            things.append(_Thing("data", str(self.data), "path", self.data))
        return things

    def _user(self) -> Finding | None:
        """Who uses what has no directory here: a qemubox with another runtime directory, or somebody by hand."""
        if pid := _process_in(self.netns):
            return Finding("network namespace", str(self.netns), "kept", f"process {pid} is in it")
        return None


def _sweep_layers(places: Path, *, dry_run: bool) -> Iterator[Finding]:
    try:
        for left in kept.sweep(places, dry_run=dry_run):
            outcome: Outcome = left.outcome if left.outcome != "gone" else "found" if dry_run else "removed"
            yield Finding("writable layer", str(left.directory), outcome, left.why)
    except OSError as error:
        yield Finding("writable layer", str(places), "failed", str(error))


def _sweep_networks(orphans: Orphans, *, dry_run: bool) -> Iterator[Finding]:
    try:
        networks = orphans.networks()
    except CniError as error:
        yield Finding("network", "of the configuration", "failed", str(error))
        return
    for network in networks:
        try:
            for path in leases.empty(network) if dry_run else leases.remove_empty(network):
                yield Finding("lease", str(path), "found" if dry_run else "removed")
        except OSError as error:
            yield Finding("network", network.name, "failed", str(error))
    if dry_run:
        return  # only its plugins know
    try:
        orphans.collect()
    except CniError as error:
        yield Finding("network", "of the configuration", "failed", "; ".join([str(error), *_notes(error)]))


def _notes(error: CniError) -> list[str]:
    return getattr(error, "__notes__", [])


def _described(attachment: Attached) -> str:
    of = attachment.attachment
    return f"{of.container_id} {of.ifname} to {attachment.network.name}"


def _claim(directory: Path) -> int:
    """Own the directory, made if need be, if nobody else does; the lock. Raises ClaimTimeout, OSError."""
    while True:
        make_directory(directory)
        try:
            lock = claim(directory, deadline_s=0)
        except FileNotFoundError:
            continue  # its owner has just removed it
        with contextlib.suppress(OSError):
            sign(lock, 0)  # `delete` kills a shim that it has waited for in vain, and we have others to sweep
        return lock


def _is_locked(path: Path) -> bool:
    """Whether somebody has the file locked. Leaves nothing behind, not even a lock file.

    That of a directory is its shim's (shim/claim.py).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not flock.try_shared(fd)
    finally:
        os.close(fd)


def _process_in(netns: Path) -> int:
    """A process that is in this network namespace; 0 where there is none."""
    try:
        there = netns.stat()
    except FileNotFoundError:
        return 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), there):
                return int(pid)
        except OSError:  # it has ended
            continue
    return 0
