"""Trees packed and unpacked on a real file system, and streams that want more than they may. Needs root."""

import io
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive import ArchiveError, CutError
from archive.errors import RefusedError, said
from archive.pack import pack
from archive.records import END, HEADER, Entry, Kind, Record, encode, read
from archive.unpack import ALL, HARMLESS, Keep, unpack
from harness.copying import tree

_ROOT = encode(Entry(b"", Kind.DIRECTORY))


class Site:
    """A directory to unpack into, beside a victim that nothing may touch."""

    def __init__(self, directory: Path) -> None:
        self.here = directory / "here"
        self.victim = directory / "victim"
        self.here.mkdir()
        self.victim.mkdir()
        (self.victim / "secret").write_text("untouched")
        self._before = tree(self.victim)
        self.told: list[str] = []
        self.place = os.open(self.here, os.O_PATH | os.O_DIRECTORY)

    def unpack(self, *records: bytes, base: bytes = b"", keep: Keep = HARMLESS) -> None:
        stream = io.BytesIO(b"".join(records))
        unpack(read(stream.read), self.place, base, keep, self.told.append)

    def packed(self, path: Path) -> bytes:
        source = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            stream = io.BytesIO()
            pack(source, stream.write, self.told.append)
            return stream.getvalue()
        finally:
            os.close(source)

    def close(self) -> None:
        os.close(self.place)
        assert tree(self.victim) == self._before


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def file(path: bytes, content: bytes = b"", **more: int) -> bytes:
    entry = encode(Entry(path, Kind.FILE, size=len(content))._replace(**more))  # type: ignore[arg-type]
    return entry + (HEADER.pack(b"D", len(content)) + content if content else b"")


def test_a_tree_comes_back_with_everything_in_it(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/f").write_bytes(os.urandom(1 << 20))
    os.link(source / "a/f", source / "a/b/again")
    os.symlink("../nowhere", source / "l")
    os.mkfifo(source / "p", 0o640)
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    with (source / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 26)
        sparse.seek(1 << 25)
        sparse.write(b"in the middle")
    os.chown(source / "a/f", 1, 2)
    (source / "a/f").chmod(0o6755)
    os.chown(source / "a/b", 3, 4)
    (source / "a").chmod(0o1500)
    os.setxattr(source / "a/b", "user.x", b"y")
    for path in source.rglob("*"):
        os.utime(path, ns=(0, 1_234_567_890_987_654_321), follow_symlinks=False)
    before = tree(source)
    stream = site.packed(source)
    assert len(stream) < 2 << 20  # the hole takes nothing
    site.unpack(stream, base=b"copy", keep=ALL)
    assert tree(site.here / "copy") == before
    assert (site.here / "copy/sparse").stat().st_blocks < 100
    # Once more over it: it is joined, and comes out the same.
    site.unpack(stream, base=b"copy", keep=ALL)
    assert tree(site.here / "copy") == before
    assert site.told == []


def test_what_is_not_trusted_has_no_power(site: Site) -> None:
    site.unpack(
        _ROOT,
        file(b"f", mode=0o6777, uid=5, gid=6),
        encode(Entry(b"x", Kind.FILE, xattrs=((b"user.a", b"1"), (b"security.capability", b"2"), (b"trusted.t", b"")))),
        encode(Entry(b"kmem", Kind.CHARACTER, device=(1, 2))),
        encode(Entry(b"disk", Kind.BLOCK, device=(8, 0))),
        encode(Entry(b"d", Kind.DIRECTORY, mode=0o7777, uid=5)),
        END,
    )
    status = (site.here / "f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o777, 0, 0)
    assert os.listxattr(site.here / "x") == ["user.a"]
    assert stat.S_IMODE((site.here / "d").stat().st_mode) == 0o1777
    assert sorted(path.name for path in site.here.iterdir()) == ["d", "f", "x"]
    assert [line.partition(":")[0] for line in site.told] == ["kmem", "disk"]


def test_nothing_is_written_through_a_link_that_the_stream_made(site: Site) -> None:
    link = encode(Entry(b"x", Kind.SYMLINK, target=os.fsencode(site.victim)))
    for then in (
        file(b"x/secret", b"hacked"),
        encode(Entry(b"x/new", Kind.DIRECTORY)),
        encode(Entry(b"x/deep/new", Kind.FIFO)),
        encode(Entry(b"stolen", Kind.LINK, target=b"x/secret")),
        encode(Entry(b"x", Kind.DIRECTORY, mode=0o777)),
    ):
        with pytest.raises(RefusedError):
            site.unpack(_ROOT, link, then, END)
    # A link to a file is replaced, and a name of a link is one of the link itself.
    link = encode(Entry(b"y", Kind.SYMLINK, target=os.fsencode(site.victim / "secret")))
    site.unpack(_ROOT, link, file(b"y", b"mine"), link, encode(Entry(b"z", Kind.LINK, target=b"y")), END)
    assert (site.here / "y").is_symlink()
    assert (site.here / "z").is_symlink()
    assert (site.here / "y").lstat().st_ino == (site.here / "z").lstat().st_ino


def test_nothing_is_written_through_a_link_that_was_planted(site: Site) -> None:
    (site.here / "d").symlink_to(site.victim)
    (site.here / "f").symlink_to(site.victim / "secret")
    os.link(site.victim / "secret", site.here / "hard")
    for record in (file(b"d/secret", b"hacked"), encode(Entry(b"d", Kind.DIRECTORY))):
        with pytest.raises(RefusedError):
            site.unpack(_ROOT, record, END)
    os.unlink(site.here / "hard")
    site.unpack(_ROOT, file(b"f", b"mine", mode=0o600), END)
    assert (site.here / "f").read_text() == "mine"
    assert not (site.here / "f").is_symlink()


def test_a_file_with_other_names_is_replaced_and_not_written_into(site: Site) -> None:
    os.link(site.victim / "secret", site.here / "hard")
    site.unpack(_ROOT, file(b"hard", b"mine"), END)
    assert (site.here / "hard").read_text() == "mine"


def test_directories_and_files_do_not_take_each_others_place(site: Site) -> None:
    (site.here / "d/kept").mkdir(parents=True)
    (site.here / "f").write_text("kept")
    for record in (
        file(b"d"),
        encode(Entry(b"d", Kind.SYMLINK, target=b"x")),
        encode(Entry(b"d", Kind.FIFO)),
        encode(Entry(b"d", Kind.LINK, target=b"f")),
        encode(Entry(b"f", Kind.DIRECTORY)),
        file(b"f/below"),
    ):
        with pytest.raises((RefusedError, OSError)):
            site.unpack(_ROOT, record, END)
    assert (site.here / "f").read_text() == "kept"
    assert (site.here / "d/kept").is_dir()


def test_hard_links_are_to_what_is_below(site: Site) -> None:
    (site.here / "outside").write_text("beside what is unpacked")
    with pytest.raises(FileNotFoundError, match="stolen"):
        site.unpack(_ROOT, encode(Entry(b"stolen", Kind.LINK, target=b"outside")), END, base=b"copy")
    with pytest.raises(RefusedError, match="itself"):
        site.unpack(_ROOT, file(b"a"), encode(Entry(b"a", Kind.LINK, target=b"a")), END)


def test_names_that_are_alike_but_for_case(site: Site) -> None:
    """On a file system that knows no difference the second is the first: a link there leads nowhere, either."""
    link = encode(Entry(b"Dir", Kind.SYMLINK, target=os.fsencode(site.victim)))
    site.unpack(_ROOT, link, file(b"dir/secret", b"mine"), END)
    assert (site.here / "dir/secret").read_text() == "mine"


def test_a_file_that_is_not_whole_goes_and_the_rest_stays(site: Site) -> None:
    with pytest.raises(CutError):
        site.unpack(_ROOT, file(b"whole", b"x"), file(b"half", b"x" * 10)[:-3])
    assert [path.name for path in site.here.iterdir()] == ["whole"]


def test_the_directory_that_is_filled_keeps_what_it_is(site: Site) -> None:
    """docker cp changes the mode of what `dir/.` is copied into, /tmp for one."""
    site.here.chmod(0o1777)
    site.unpack(encode(Entry(b"", Kind.DIRECTORY, mode=0o700, uid=5)), file(b"f"), END, keep=ALL)
    status = site.here.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o1777, 0)
    with pytest.raises(RefusedError):
        site.unpack(file(b"", b"x"), END)


def test_directories_that_a_stream_leaves_out_are_made(site: Site) -> None:
    site.unpack(_ROOT, file(b"a/b/c/f", b"deep"), END)
    assert (site.here / "a/b/c/f").read_text() == "deep"


def test_a_path_of_as_many_directories_as_it_can_have(site: Site) -> None:
    try:
        site.unpack(_ROOT, file(b"d/" * 1500 + b"f", b"deep"), END)
        assert (site.here / ("d/" * 1500 + "f")).read_text() == "deep"
    finally:
        subprocess.run(["rm", "-r", site.here / "d"], check=True, timeout=60)  # pytest would by recursion


def test_half_a_file_that_somebody_has_removed_hides_no_error(site: Site) -> None:
    def records() -> Iterator[Record]:
        yield Entry(b"", Kind.DIRECTORY)
        yield Entry(b"f", Kind.FILE, size=1)
        (site.here / "f").unlink()
        raise CutError

    with pytest.raises(CutError):
        unpack(records(), site.place, b"", HARMLESS, site.told.append)


def test_more_than_a_file_system_has_room_for(site: Site) -> None:
    with pytest.raises(OSError, match="File too large") as caught:
        site.unpack(
            _ROOT,
            encode(Entry(b"huge", Kind.FILE, size=(1 << 63) - 1)),
            HEADER.pack(b"H", 8) + b"\x7f" + b"\xff" * 7,
            END,
        )
    assert said(caught.value) == "huge: File too large"
    assert [*site.here.iterdir()] == []


def test_sockets_are_told_of_and_the_kernels_own_files_refused(site: Site, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.here / "s"))
        site.packed(site.here)
        assert site.told == ["s: a socket is not copied"]
        with pytest.raises(RefusedError):
            site.packed(site.here / "s")
    with pytest.raises(RefusedError, match="no size"):
        site.packed(Path("/proc/self/status"))


def test_what_changes_while_it_is_packed(site: Site, tmp_path: Path) -> None:
    """It is packed as far as it can be, and that is told."""
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(bytes(300_000))
    (source / "b").write_bytes(os.urandom(300_000))
    place = os.open(source, os.O_PATH)
    stream = io.BytesIO()

    def meanwhile(entry: Entry) -> Entry:
        if entry.path == b"a":
            (source / "c").unlink()
        if entry.path == b"b":
            os.truncate(source / "b", 100)
        return entry

    pack(place, stream.write, site.told.append, meanwhile)
    os.close(place)
    stream.seek(0)
    unpack(read(stream.read), site.place, b"copy", ALL, site.told.append)
    assert sorted(path.name for path in (site.here / "copy").iterdir()) == ["a", "b"]
    assert [line.partition(":")[0] for line in site.told] == ["b", "c"]


_NAMES = st.sampled_from([b"a", b"b", b"A", b"link"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map(b"/".join)


@st.composite
def _hostile(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(Kind))
    target = {Kind.LINK: _PATHS, Kind.SYMLINK: st.sampled_from([b"../victim", b"..", b"/", b"a", b"../victim/secret"])}
    content = draw(st.binary(min_size=1, max_size=5)) if kind is Kind.FILE else b""
    entry = Entry(
        draw(_PATHS), kind, draw(st.integers(0, 0o7777)), size=len(content), target=draw(target.get(kind, st.just(b"")))
    )
    return encode(entry) + (HEADER.pack(b"D", len(content)) + content if content else b"")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(_hostile(), max_size=12))
def test_no_stream_reaches_beyond_its_directory(site: Site, records: list[bytes]) -> None:
    """Whatever it does; that the victim is as it was is looked at in the end, over all examples."""
    try:
        site.unpack(_ROOT, *records, END)
    except (ArchiveError, OSError):
        return
