"""Every list of mounts that a snapshotter of containerd 1.6 to 2.4 hands out, and what else may come."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import types_pb2
from shim.errors import SpecError, UnsupportedError
from shim.rootfs.mounts import Directory, FsType, Image, Mount, NewWritable, Plan, SnapshotWritable, from_messages, read

OVERLAYFS = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
EROFS = "/var/lib/containerd/io.containerd.snapshotter.v1.erofs/snapshots"


def _overlayfs(*options: str) -> Mount:
    return Mount("overlay", "overlay", "", options)


def _fs(number: int) -> Directory:
    return Directory(Path(f"{OVERLAYFS}/{number}/fs"), committed=True)


def _erofs(number: int, *options: str) -> Mount:
    return Mount("erofs", f"{EROFS}/{number}/layer.erofs", "", ("ro", "loop", *options))


def _layer(number: int) -> Image:
    return Image((Path(f"{EROFS}/{number}/layer.erofs"),), "erofs")


RWLAYER = Mount("ext4", f"{EROFS}/9/rwlayer.img", "", ("rw", "loop"))
WRITABLE = SnapshotWritable(Path(f"{EROFS}/9/rwlayer.img"))
BLOCK_OPTIONS = (
    "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
    "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
    "workdir={{ mount 0 }}/work",
    "upperdir={{ mount 0 }}/upper",
)


def test_overlayfs_active() -> None:
    mounts = [
        _overlayfs(
            "index=off",
            f"workdir={OVERLAYFS}/9/work",
            f"upperdir={OVERLAYFS}/9/fs",
            f"lowerdir={OVERLAYFS}/3/fs:{OVERLAYFS}/1/fs",
        )
    ]
    assert read(mounts) == Plan((_fs(3), _fs(1)), Path(f"{OVERLAYFS}/9/fs"), NewWritable())


def test_overlayfs_view_of_several_layers() -> None:
    assert read([_overlayfs(f"lowerdir={OVERLAYFS}/3/fs:{OVERLAYFS}/1/fs")]) == Plan((_fs(3), _fs(1)), None, None)


def test_overlayfs_view_of_one_layer() -> None:
    assert read([Mount("bind", f"{OVERLAYFS}/3/fs", "", ("ro", "rbind"))]) == Plan((_fs(3),), None, None)


def test_overlayfs_without_parents() -> None:
    mount = Mount("bind", f"{OVERLAYFS}/9/fs", "", ("rw", "rbind"))
    assert read([mount]) == Plan((), Path(f"{OVERLAYFS}/9/fs"), NewWritable())


def test_a_directory_outside_of_a_snapshotter_may_change_so_its_image_is_not_kept() -> None:
    assert read([Mount("bind", "/srv/root", "", ("ro", "rbind"))]).lower == (Directory(Path("/srv/root"), False),)
    assert read([_overlayfs("lowerdir=/srv/snapshots/a/fs")]).lower[0] == Directory(Path("/srv/snapshots/a/fs"), False)


def test_overlayfs_of_1_6_to_2_3_differ_only_in_the_order_of_options() -> None:
    """1.6 and 1.7 write the configured options before the directories, 2.x behind them; `volatile` may be one."""
    directories = (f"workdir={OVERLAYFS}/9/work", f"upperdir={OVERLAYFS}/9/fs", f"lowerdir={OVERLAYFS}/1/fs")
    wanted = Plan((_fs(1),), Path(f"{OVERLAYFS}/9/fs"), NewWritable())
    assert read([_overlayfs("index=off", "volatile", *directories)]) == wanted
    assert read([_overlayfs(*directories, "index=off", "metacopy=off", "volatile")]) == wanted


def test_overlayfs_view_without_parents() -> None:
    assert read([Mount("bind", f"{OVERLAYFS}/9/fs", "", ("ro", "rbind"))]) == Plan((_fs(9),), None, None)


NATIVE = "/var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots"


def test_native_view() -> None:
    mount = Mount("bind", f"{NATIVE}/4", "", ("rbind", "ro"))
    assert read([mount]).lower == (Directory(Path(mount.source), committed=True),)


def test_native_active_is_a_copy_of_what_is_below_and_so_its_content() -> None:
    mount = Mount("bind", f"{NATIVE}/4", "", ("rbind", "rw"))
    assert read([mount]) == Plan((), Path(mount.source), NewWritable())


def test_erofs_block_mode_with_several_layers() -> None:
    overlay = Mount("format/mkdir/overlay", "overlay", "", (*BLOCK_OPTIONS, "lowerdir={{ overlay 1 2 }}"))
    assert read([RWLAYER, _erofs(3), _erofs(1), overlay]) == Plan((_layer(3), _layer(1)), None, WRITABLE)


def test_erofs_block_mode_with_one_layer() -> None:
    overlay = Mount("format/mkdir/overlay", "overlay", "", (*BLOCK_OPTIONS, "lowerdir={{ mount 1 }}"))
    assert read([RWLAYER, _erofs(3), overlay]) == Plan((_layer(3),), None, WRITABLE)


def test_erofs_block_mode_without_parents() -> None:
    bind = Mount("format/mkdir/bind", "{{ mount 0 }}/upper", "", (BLOCK_OPTIONS[0], "rw", "rbind"))
    assert read([RWLAYER, bind]) == Plan((), None, WRITABLE)


@pytest.mark.parametrize(
    ("size", "size_bytes"), [("1073741824", 1 << 30), ("10G", 10 << 30), ("512MiB", 512 << 20), ("7 kb", 7 << 10)]
)
def test_erofs_block_mode_whose_image_is_still_to_be_made(size: str, size_bytes: int) -> None:
    options = ("X-containerd.mkfs.fs=ext4", f"X-containerd.mkfs.size={size}", "X-containerd.mkfs.uuid=u", "rw", "loop")
    bind = Mount("format/mkdir/bind", "{{ mount 0 }}/upper", "", ("rw", "rbind"))
    plan = read([Mount("mkfs/ext4", RWLAYER.source, "", options), bind])
    assert plan.writable == SnapshotWritable(Path(RWLAYER.source), size_bytes, "u")


def test_an_image_that_containerd_has_made_keeps_its_size() -> None:
    mount = Mount("ext4", RWLAYER.source, "", ("X-containerd.mkfs.size=1G", "rw", "loop"))
    assert read([mount]).writable == WRITABLE


def test_erofs_with_the_upper_directory_on_the_host() -> None:
    options = (f"workdir={EROFS}/9/work", f"upperdir={EROFS}/9/fs", "lowerdir={{ overlay 0 1 }}")
    mounts = [_erofs(3), _erofs(1), Mount("format/mkdir/overlay", "overlay", "", options)]
    assert read(mounts) == Plan((_layer(3), _layer(1)), Path(f"{EROFS}/9/fs"), NewWritable())


def test_erofs_views() -> None:
    assert read([_erofs(3)]) == Plan((_layer(3),), None, None)
    overlay = Mount("format/mkdir/overlay", "overlay", "", ("lowerdir={{ overlay 0 1 }}",))
    assert read([_erofs(3), _erofs(1), overlay]) == Plan((_layer(3), _layer(1)), None, None)


def test_erofs_with_merged_metadata_is_one_disk_of_all_files_in_order() -> None:
    mount = _erofs(3, f"device={EROFS}/1/layer.erofs", f"device={EROFS}/3/layer.erofs")
    files = tuple(Path(f"{EROFS}/{name}") for name in ("3/layer.erofs", "1/layer.erofs", "3/layer.erofs"))
    bind = Mount("format/bind", "{{ mount 0 }}", "", ("ro", "rbind"))
    assert read([mount, bind]) == Plan((Image(files, "erofs"),), None, None)


def test_erofs_with_layers_above_merged_metadata() -> None:
    index = _erofs(2, f"device={EROFS}/1/layer.erofs", f"device={EROFS}/2/layer.erofs")
    overlay = Mount("format/mkdir/overlay", "overlay", "", (*BLOCK_OPTIONS, "lowerdir={{ overlay 1 2 }}"))
    files = tuple(Path(f"{EROFS}/{number}/layer.erofs") for number in (2, 1, 2))
    assert read([RWLAYER, _erofs(3), index, overlay]) == Plan((_layer(3), Image(files, "erofs")), None, WRITABLE)


def test_erofs_without_parents_and_without_block_mode() -> None:
    assert read([Mount("bind", f"{EROFS}/9/fs", "", ("rw", "rbind"))]) == Plan((), Path(f"{EROFS}/9/fs"), NewWritable())


def test_erofs_of_2_1_is_an_overlay_of_what_containerd_has_mounted() -> None:
    """mounted.py finds the images behind it."""
    options = (f"workdir={EROFS}/9/work", f"upperdir={EROFS}/9/fs", f"lowerdir={EROFS}/3/fs:{EROFS}/1/fs")
    lower = tuple(Directory(Path(f"{EROFS}/{number}/fs"), committed=True) for number in (3, 1))
    assert read([_overlayfs(*options)]) == Plan(lower, Path(f"{EROFS}/9/fs"), NewWritable())


BLOCKFILE = "/var/lib/containerd/io.containerd.snapshotter.v1.blockfile/snapshots/4"


@pytest.mark.parametrize(
    ("mount", "fstype", "options"),
    [
        (Mount("ext4", BLOCKFILE, "", ("loop", "rw")), "ext4", ()),
        (Mount("xfs", BLOCKFILE, "", ("loop", "nouuid", "rw")), "xfs", ("nouuid",)),
        (Mount("btrfs", BLOCKFILE, "", ("loop", "rw")), "btrfs", ()),
        (Mount("ext4", "/dev/mapper/pool-snap-4", "", ()), "ext4", ()),
        (Mount("ext2", "/dev/mapper/pool-snap-4", "", ()), "ext4", ()),
        (Mount("xfs", "/dev/mapper/pool-snap-4", "", ("nouuid",)), "xfs", ("nouuid",)),
    ],
)
def test_a_whole_file_system_of_blockfile_or_devmapper(mount: Mount, fstype: FsType, options: tuple[str, ...]) -> None:
    path = Path(mount.source)
    assert read([mount]) == Plan((), None, SnapshotWritable(path, options=options, fstype=fstype), whole=True)
    view = Mount(mount.type, mount.source, "", (*(option for option in mount.options if option != "rw"), "ro"))
    assert read([view]) == Plan((Image((path,), fstype, options),), None, None)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300, unique=True))
def test_the_order_of_layers_is_kept(numbers: list[int]) -> None:
    lower = ":".join(f"{OVERLAYFS}/{number}/fs" for number in numbers)
    assert read([_overlayfs(f"lowerdir={lower}")]).lower == tuple(map(_fs, numbers))
    images = [_erofs(number) for number in numbers]
    overlay = Mount("format/overlay", "", "", (f"lowerdir={{{{ overlay {len(images) - 1} 0 }}}}",))
    assert read([*images, overlay]).lower == tuple(map(_layer, reversed(numbers)))


def _block(*options: str) -> list[Mount]:
    return [RWLAYER, _erofs(1), Mount("format/mkdir/overlay", "", "", ("lowerdir={{ mount 1 }}", *options))]


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ([Mount("virtiofs", "tag")], "mount of type virtiofs, source tag: no snapshotter known here"),
        ([Mount("windows-layer", "x")], "mount of type windows-layer, source x: no snapshotter known here"),
        ([Mount("mkfs/xfs", "/dev/x", "", ("rw",))], "mount of type mkfs/xfs, source /dev/x"),
        ([_overlayfs("metacopy=on", f"lowerdir={OVERLAYFS}/1/fs")], "option metacopy=on: files without their data"),
        ([_overlayfs("lowerdir=" + ":".join(f"/l/{i}" for i in range(501)))], "501 layers are more than the 500"),
        ([Mount("encrypt/erofs", "/x")], "mount of type encrypt/erofs, source /x"),
        ([Mount("format/erofs", "/x")], "mount of type format/erofs, source /x"),
        ([RWLAYER, Mount("tmpfs", "t")], "mount of type tmpfs, source t: is the last of 2 mounts"),
        ([Mount("overlay", "o", "", ("lowerdir=/a",)), Mount("bind", "/x", "", ("ro",))], "mount of type overlay"),
        ([_erofs(1, "X-containerd.dmverity=/x")], "dm-verity, which the guest does not check"),
        ([_erofs(1, "X-containerd.news=/x")], "option X-containerd.news=/x is not known"),
        ([Mount("mkfs/ext4", "/x", "", ("X-containerd.mkfs.size=1", "X-containerd.mkfs.fs=xfs"))], "mkfs.fs=xfs"),
        ([Mount("erofs", "relative", "", ())], "mount of 'relative': not an absolute path"),
        ([_overlayfs("lowerdir=relative")], "mount of 'relative': not an absolute path"),
        ([Mount("bind", "/x", "/inside", ("ro",))], "to be mounted at /inside inside the root"),
        (
            [RWLAYER, Mount("format/overlay", "", "", ("lowerdir={{ mount 0 }}",))],
            "lowerdir=mount0: not the root of a read-only image",
        ),
        (
            [_erofs(1), Mount("format/overlay", "", "", ("lowerdir={{ mount 0 }}/sub",))],
            "lowerdir=mount0/sub: not the root",
        ),
        (_block("upperdir={{ mount 0 }}/up", BLOCK_OPTIONS[2]), "upperdir=mount0/up"),
        (_block("upperdir={{ mount 0 }}/upper", "workdir=/w"), "workdir=/w"),
        (_block("ro", *BLOCK_OPTIONS), "upperdir=mount0/upper"),
        (_block(*BLOCK_OPTIONS, "X-containerd.mkdir.path={{ mount 0 }}/upper:0700"), "with mode 0700, owner 0:0"),
        (_block(*BLOCK_OPTIONS, "X-containerd.mkdir.path={{ mount 0 }}/other:0755"), "path=mount0/other"),
        ([RWLAYER, Mount("format/bind", "{{ mount 0 }}", "", ("rw",))], "bind mount of mount0 with options rw"),
        ([RWLAYER, Mount("format/bind", "{{ mount 0 }}/upper", "", ("ro",))], "bind mount of mount0/upper with"),
        ([_erofs(1), Mount("format/bind", "{{ mount 0 }}", "", ("rw",))], "bind mount of mount0 with options rw"),
    ],
)
def test_what_is_not_known_is_refused_by_name(mounts: list[Mount], words: str) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        read(mounts)
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ([], "Create names no root file system: it is a directory, or docker has mounted it by itself"),
        ([Mount("mkfs/ext4", "/x", "", ("rw",))], "is to be made, but has no X-containerd.mkfs.size"),
        ([Mount("mkfs/ext4", "/x", "", ("X-containerd.mkfs.size=big",))], "X-containerd.mkfs.size=big is no size"),
        ([_erofs(1), Mount("format/bind", "{{ mount 1 }}", "", ("ro",))], "names a mount beyond the 1 before it"),
    ],
)
def test_what_makes_no_sense(mounts: list[Mount], words: str) -> None:
    with pytest.raises(SpecError) as refusal:
        read(mounts)
    assert words in refusal.value.message


def test_templates_are_expanded_only_where_the_type_says_so() -> None:
    with pytest.raises(UnsupportedError, match="not an absolute path"):
        read([_erofs(1), Mount("bind", "{{ mount 0 }}", "", ("ro",))])


def test_messages() -> None:
    message = types_pb2.Mount(type="bind", source="/s", target="/", options=["ro", "rbind"])
    assert from_messages([message]) == (Mount("bind", "/s", "/", ("ro", "rbind")),)
