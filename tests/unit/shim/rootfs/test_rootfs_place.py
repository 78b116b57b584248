"""A snapshot's writable image: when it is kept, taken up, removed, and what `qemubox gc` finds of it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.errors import HostError
from shim.journal import Journal
from shim.reclaim import reclaim
from shim.rootfs import flock, kept, snapshot
from shim.rootfs.place import Place


class Host:
    """A host with one snapshot."""

    def __init__(self, root: Path) -> None:
        self.places = root / "data" / "writable"
        self.state = root / "state"
        self.state.mkdir()
        self.upper = root / "snapshots" / "7" / "fs"
        self.upper.mkdir(parents=True)

    def start(self) -> Place:
        """As a start does it."""
        place = Place.claim(self.places, self.upper, Journal(self.state))
        if not place.taken_up:
            place.image.write_bytes(b"empty")
        return place

    def crash(self, content: bytes = b"written") -> None:
        """A container that has written, and whose shim was killed."""
        place = self.start()
        place.begin()
        place.image.with_name("writable.ext4").write_bytes(content)
        os.close(place._lock)

    def images(self) -> list[Path]:
        """All that there are."""
        return sorted(self.places.glob("*/*.ext4"))

    def swept(self, *, dry_run: bool = False) -> list[tuple[str, str]]:
        """What gc finds: outcome and why."""
        return [(left.outcome, left.why) for left in kept.sweep(self.places, dry_run=dry_run)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_one_that_no_container_wrote_to_goes(host: Host) -> None:
    place = host.start()
    assert (place.taken_up, place.outlives) == (False, False)
    place.close()
    place.close()
    assert list(host.places.iterdir()) == []


def test_one_whose_content_has_come_back_goes(host: Host) -> None:
    place = host.start()
    place.begin()
    assert place.outlives
    place.returned(changed=True)
    assert not place.outlives
    place.close()
    assert list(host.places.iterdir()) == []


def test_one_whose_content_has_not_come_back_is_kept_until_it_has(host: Host) -> None:
    host.crash()
    for _ in range(2):
        place = host.start()
        assert (place.taken_up, place.outlives, place.changed_behind) == (True, True, False)
        assert place.image.read_bytes() == b"written"
        place.begin()
        place.close()
    place = host.start()
    place.returned(changed=False)
    place.close()
    assert list(host.places.iterdir()) == []


def test_what_a_start_left_that_came_to_nothing_is_made_anew(host: Host) -> None:
    place = host.start()
    place.upper.write_bytes(b"of then")
    os.close(place._lock)
    place = host.start()
    assert not place.taken_up
    assert not place.upper.exists()
    place.close()


def test_one_at_a_time(host: Host) -> None:
    place = host.start()
    with pytest.raises(HostError, match="in use by another machine"):
        host.start()
    place.close()
    host.start().close()


def test_another_snapshot_by_the_same_path_gets_its_own(host: Host) -> None:
    host.crash()
    before = snapshot.identify(host.upper)
    shutil.rmtree(host.upper.parent)
    host.upper.mkdir(parents=True)
    again = snapshot.identify(host.upper)
    assert before.birth_ns
    assert before.birth_ns != again.birth_ns
    place = host.start()
    assert not place.taken_up
    place.close()


@pytest.fixture
def small_inodes(tmp_path: Path) -> Iterator[Path]:
    """A file system that gives the number of a directory that was removed to the next."""
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)


def test_inode_numbers_are_used_again_and_births_are_not(small_inodes: Path) -> None:
    directory = small_inodes / "snapshots" / "7"
    found = []
    for _ in range(2):
        directory.mkdir(parents=True)
        found.append(snapshot.identify(directory))
        shutil.rmtree(directory.parent)
    assert found[0].inode == found[1].inode
    assert found[0].key != found[1].key


def test_the_key_survives_whatever_is_written_there(host: Host) -> None:
    before = snapshot.identify(host.upper).key
    (host.upper / "a").write_text("x")
    host.upper.chmod(0o700)
    os.utime(host.upper, (1, 1))
    assert snapshot.identify(host.upper).key == before


def test_who_changes_the_snapshot_behind_a_kept_image_is_noticed(host: Host) -> None:
    host.crash()
    (host.upper / "copied").write_text("by nerdctl cp")
    place = host.start()
    assert place.changed_behind
    assert place.image.read_bytes() == b"written"
    place.close()


def test_what_we_write_there_ourselves_is_not_taken_for_somebody_else_s(host: Host) -> None:
    for finishes in (True, False):
        place = host.start()
        place.begin()
        place.note(None)
        (host.upper / f"{finishes}").write_text("came back in a pause")
        if finishes:
            place.note_now()
        os.close(place._lock)
        place = host.start()
        assert not place.changed_behind
        place.close()


def test_times_that_cannot_be_noted_stop_nothing(host: Host) -> None:
    place = host.start()
    (host.places / place.snapshot.key / "facts.json.new").mkdir()
    place.note_now()
    place.close()
    assert list(host.places.iterdir()) == []


def test_the_journal_of_a_killed_shim_removes_unused_images_alone(host: Host) -> None:
    place = host.start()
    os.close(place._lock)
    assert reclaim(host.state) == []
    assert host.images() == []
    host.state.mkdir()
    host.crash()
    assert reclaim(host.state) == []
    assert len(host.images()) == 1
    host.state.mkdir()
    place = host.start()
    assert place.taken_up
    place.close()


def test_the_journal_leaves_alone_what_another_has_by_now(host: Host) -> None:
    place = host.start()
    journal = Journal(host.state)
    entry = journal.entries()[0]
    (host.state / "journal").unlink()
    journal.record("writable", path=str(entry["path"]), pid=1)
    assert reclaim(host.state) == []
    assert len(host.images()) == 1
    place.close()


def test_the_journal_of_who_found_it_in_use_leaves_it_alone(host: Host, tmp_path: Path) -> None:
    """The container whose place it is has been created, and is not started yet."""
    place = host.start()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(HostError, match="in use"):
        Place.claim(host.places, host.upper, Journal(other))
    assert reclaim(other) == []
    place.begin()
    assert len(host.images()) == 1
    place.close()


def test_a_shim_that_plays_its_own_journal_removes_what_it_has_locked(host: Host) -> None:
    host.start()
    assert reclaim(host.state) == []
    assert list(host.places.iterdir()) == []


def test_gc_keeps_what_the_next_start_takes_up(host: Host) -> None:
    host.crash()
    why = f"what was written to it has not come back to {host.upper}, whose next start takes it up"
    assert host.swept(dry_run=True) == host.swept() == [("kept", why)]
    assert len(host.images()) == 1


def test_gc_passes_over_what_is_in_use(host: Host) -> None:
    host.crash()
    place = host.start()
    shutil.rmtree(host.upper)
    assert host.swept() == []
    place.close()
    machine = host.images()[0].open("rb")
    with machine:
        lock = os.dup(machine.fileno())
        assert flock.try_exclusive(lock)
        assert host.swept() == []
        os.close(lock)
    assert host.swept() == [("gone", "")]


def test_gc_removes_what_nobody_can_take_up(host: Host) -> None:
    host.crash()
    shutil.rmtree(host.upper.parent)
    assert host.swept(dry_run=True) == [("gone", "")]
    assert len(host.images()) == 1
    assert host.swept() == [("gone", "")]
    assert list(host.places.iterdir()) == []
    assert host.swept() == []


def test_who_ends_removes_what_nobody_can_take_up_and_nothing_else(host: Host) -> None:
    host.crash()
    (kept_one,) = host.images()
    unused = host.places / "unused"
    unused.mkdir()
    kept.remove_gone(host.places)
    assert host.images() == [kept_one]
    shutil.rmtree(host.upper.parent)
    kept.remove_gone(host.places)
    assert list(host.places.iterdir()) == [unused]
    kept.remove_gone(host.places / "nowhere")


def test_one_that_cannot_be_looked_at_keeps_no_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.crash()
    lost, host.upper = host.upper, host.upper.parents[1] / "8" / "fs"
    host.upper.mkdir(parents=True)
    host.crash()
    shutil.rmtree(host.upper.parent)
    names = sorted(os.listdir(host.places), key=lambda name: str(lost) not in _facts(host, name))
    listed = os.listdir

    def dead(one: snapshot.Snapshot) -> bool | None:
        if one.directory == lost:
            raise HostError(f"{lost}: Stale file handle")
        return snapshot.is_gone(one)

    monkeypatch.setattr(os, "listdir", lambda path: names if path == host.places else listed(path))
    monkeypatch.setattr(kept, "is_gone", dead)
    kept.remove_gone(host.places)
    assert listed(host.places) == names[:1]


def _facts(host: Host, name: str) -> str:
    return (host.places / name / "facts.json").read_text()


def test_gc_keeps_what_another_directory_hides(host: Host) -> None:
    """No snapshotter gives a number twice: something is mounted there, or was put there by hand."""
    host.crash()
    shutil.rmtree(host.upper.parent)
    host.upper.mkdir(parents=True)
    assert host.swept() == [("kept", f"whether its snapshot has been removed cannot be told: {host.upper}")]


def test_gc_removes_unused_images(host: Host) -> None:
    place = host.start()
    os.close(place._lock)
    assert host.swept() == [("gone", "")]
    assert list(host.places.iterdir()) == []


def test_gc_keeps_what_it_cannot_know(host: Host) -> None:
    """A disk that is not mounted yet, or another mount namespace; facts that a power loss has cut short."""
    host.crash()
    shutil.rmtree(host.upper.parents[1])
    for _ in range(2):
        assert host.swept() == [("kept", f"whether its snapshot has been removed cannot be told: {host.upper}")]
        kept.remove_gone(host.places)
        host.upper.parents[1].mkdir(exist_ok=True)  # another containerd's, at the same place
    (facts,) = host.places.glob("*/facts.json")
    for text in ("", "{}", json.dumps({"directory": 1, "inode": "x", "birth_ns": None})):
        facts.write_text(text)
        assert host.swept() == [("kept", f"whose it is cannot be read: {facts}")]
    assert len(host.images()) == 1
