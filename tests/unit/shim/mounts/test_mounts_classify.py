"""What each mount of a specification becomes, and which are refused by name."""

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import SpecError, UnsupportedError
from shim.json_types import Json, JsonValue
from shim.mounts import FILES_LIMIT, BlockVolume, GuestMounts, HostFile, Volume, classify

_ELSEWHERE = Path("/nonexistent/bundle")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 1.1.1.1\n")
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    return path


def _bind(source: object, *options: str, at: str = "/data") -> Json:
    return {"destination": at, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def _disk(source: object, kind: str, *options: str, at: str = "/data") -> Json:
    return {"destination": at, "type": kind, "source": str(source), "options": [*options]}


def _read(*mounts: Json, bundle: Path = _ELSEWHERE) -> GuestMounts:
    return classify(mounts, bundle)


def _refused(mount: Json, *words: str, bundle: Path = _ELSEWHERE) -> None:
    """With source and destination named, what is the matter, and what to do."""
    with pytest.raises((SpecError, UnsupportedError)) as caught:
        _read(mount, bundle=bundle)
    for word in (str(mount.get("source")), str(mount.get("destination")), *words):
        assert word in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "kind", ["proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "hugetlbfs", "securityfs"]
)
def test_file_systems_of_the_kernel_are_the_guest_s(kind: str) -> None:
    mount: Json = {
        "destination": "/x",
        "type": kind,
        "source": kind,
        "options": ["nosuid", "size=65536k", "mode=1777", "uid=5", "tmpcopyup", "rshared", "no-such-option"],
    }
    found = _read(mount)
    assert found == GuestMounts([mount])


@pytest.mark.parametrize("kind", ["overlay", "9p", "nfs", "devtmpfs", "erofs", "", None, ["proc"]])
def test_a_file_system_that_lies_on_the_host_is_refused(kind: JsonValue) -> None:
    mount: Json = {"destination": "/data", "type": kind, "source": "/dev/sda1", "options": ["rw"]}
    _refused(mount, f"of the type {kind}")


def test_small_read_only_files_travel_with_the_container(small: Path) -> None:
    """The path stays as it was written, since the file is followed by it."""
    link = small.with_name("link")
    link.symlink_to(small)
    found = _read(_bind(small, "ro"), _bind(link, "nosuid", "rro"))
    assert found.files == [HostFile("0", small), HostFile("1", link)]
    assert [mount["source"] for mount in found.mounts] == ["qemubox-file:0", "qemubox-file:1"]
    assert found.mounts[1]["options"] == ["rbind", "nosuid", "rro"]
    assert not found.volumes


@pytest.mark.parametrize("destination", ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"])
def test_files_that_clients_mount_writable_are_copied(small: Path, destination: str) -> None:
    found = _read(_bind(small, "rw", at=destination))
    assert found.files == [HostFile("0", small)]
    assert found.mounts[0]["options"] == ["rbind", "rw"]


@pytest.mark.parametrize("destination", ["/etc/hosts/", "/etc/../etc/hosts", "/etc/passwd", "etc/hosts"])
def test_no_other_place_is_one_of_those(small: Path, destination: str) -> None:
    found = _read(_bind(small, "rw", at=destination))
    assert found.volumes == [Volume("0", small, read_only=False, recursive=True, is_file=True)]


@pytest.mark.parametrize("destination", [None, 5, ["/x"]])
def test_what_is_no_place(small: Path, destination: JsonValue) -> None:
    with pytest.raises(SpecError, match="no place"):
        _read({"destination": destination, "type": "bind", "source": str(small), "options": ["ro"]})


@pytest.mark.parametrize("options", [[], ["rw"], ["ro", "rw"], ["rro", "rrw"]])
def test_a_file_that_is_written_is_a_volume(small: Path, options: list[str]) -> None:
    found = _read(_bind(small, *options))
    assert found.volumes == [Volume("0", small, read_only=False, recursive=True, is_file=True)]
    assert found.mounts == [_bind("qemubox-volume:0", *options)]


def test_files_beyond_what_is_copied_are_volumes(tmp_path: Path) -> None:
    half, one = tmp_path / "half", tmp_path / "one"
    half.write_bytes(bytes(FILES_LIMIT // 2))
    one.write_bytes(b"x")
    found = _read(_bind(half, "ro"), _bind(half, "ro"), _bind(one, "ro"))
    assert found.files == [HostFile("0", half), HostFile("1", half)]
    assert found.volumes == [Volume("0", one, read_only=True, recursive=True, is_file=True)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["bind"], {}),
        (["rbind"], {"recursive": True}),
        (["bind", "ro"], {"read_only": True}),
        (["rbind", "rro"], {"recursive": True, "read_only": True}),
        (["rbind", "ro", "rprivate"], {"recursive": True, "read_only": True}),
        (["rbind", "rslave", "rw"], {"recursive": True, "follows": True}),
        (["bind", "slave", "nosuid", "noexec", "nodev", "noatime"], {"follows": True}),
    ],
)
def test_a_directory_is_a_volume(tmp_path: Path, options: list[str], expected: dict[str, bool]) -> None:
    listed: list[JsonValue] = [*options]
    mount: Json = {"destination": "/data", "type": "none", "source": str(tmp_path), "options": listed}
    found = _read(mount)
    plain = {"read_only": False, "recursive": False, "is_file": False}
    assert found.volumes == [Volume("0", tmp_path, **{**plain, **expected})]
    assert found.mounts == [{**mount, "source": "qemubox-volume:0"}]


def test_a_bind_mount_is_known_by_its_type_alone(tmp_path: Path) -> None:
    found = _read({"destination": "/data", "type": "bind", "source": str(tmp_path)})
    assert found.volumes == [Volume("0", tmp_path, read_only=False, recursive=False, is_file=False)]


def test_a_volume_is_named_by_what_it_is(tmp_path: Path) -> None:
    """Whatever becomes of a symbolic link after Create, the container has what was looked at."""
    directory, link = tmp_path / "directory", tmp_path / "link"
    directory.mkdir()
    link.symlink_to(directory)
    assert _read(_bind(link)).volumes[0].source == directory


def test_sources_are_relative_to_the_bundle(tmp_path: Path, small: Path) -> None:
    found = _read(_bind("."), _bind(small.name, "ro"), bundle=tmp_path)
    assert found.volumes[0].source == tmp_path
    assert found.files == [HostFile("0", small)]


def test_several_at_one_place_and_one_in_another_stay_in_order(tmp_path: Path) -> None:
    mounts = [_bind(tmp_path, at="/data"), _bind(tmp_path, at="/data"), _bind(tmp_path, at="/data/below")]
    found = _read(*mounts)
    assert [mount["destination"] for mount in found.mounts] == ["/data", "/data", "/data/below"]
    assert [volume.name for volume in found.volumes] == ["0", "1", "2"]


@pytest.mark.parametrize("source", ["/nonexistent/x", "qemubox-file:0"])
def test_a_source_that_is_not_there(source: str) -> None:
    _refused(_bind(source, "ro"), "No such file or directory")


def test_a_source_that_cannot_be(tmp_path: Path) -> None:
    _refused(_bind("/a\0b", "ro"), "null byte")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    _refused(_bind(loop), "Too many levels of symbolic links")
    with pytest.raises(SpecError, match="no source"):
        _read({"destination": "/data", "type": "bind", "source": None})


def test_a_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        _refused(_bind(path), "is a socket")


def test_a_fifo_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    _refused(_bind(path, "ro"), "is a FIFO")


def test_a_character_device_of_the_host_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    os.mknod(path, 0o20600, os.makedev(1, 11))
    _refused(_bind(path), "is a character device")


def test_a_device_that_the_guest_has_too_is_the_guest_s(tmp_path: Path) -> None:
    """Clients hide a file by binding /dev/null over it."""
    path = tmp_path / "nothing"
    os.mknod(path, 0o20666, os.makedev(1, 3))
    found = _read(_bind("/dev/null", "ro"), _bind(path))
    assert [mount["source"] for mount in found.mounts] == ["/dev/null", "/dev/null"]
    assert not found.files
    assert not found.volumes


@pytest.mark.parametrize("source", ["/proc", "/sys", "/dev", "/sys/fs/cgroup", "/proc/1", "/proc/cpuinfo", "/dev/pts"])
def test_what_only_the_host_s_kernel_has_is_refused(source: str) -> None:
    _refused(_bind(source, "ro"), "the host's kernel")


def test_files_in_the_host_s_shared_memory_are_files() -> None:
    assert _read(_bind("/dev/shm")).volumes[0].source == Path("/dev/shm")


@pytest.mark.parametrize("option", ["shared", "rshared"])
def test_mounts_cannot_appear_on_the_host(tmp_path: Path, image: Path, option: str) -> None:
    _refused(_bind(tmp_path, option), f"option {option}")
    _refused(_disk(image, "ext4", option), f"option {option}")


@pytest.mark.parametrize("option", ["size=5", "tmpcopyup", "data=journal", "copy-symlink", "x-mount.mkdir", "RO"])
def test_what_a_bind_mount_cannot_be_told_is_refused(tmp_path: Path, option: str) -> None:
    _refused(_bind(tmp_path, option), f"no option '{option}'")


@pytest.mark.parametrize(
    "changes",
    [
        {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]},
        {"gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]},
        {"options": ["rbind", "idmap"]},
        {"options": ["rbind", "idmap=uids=0-1-10"]},
        {"options": ["rbind", "ridmap"]},
    ],
)
def test_a_mapping_of_owners_is_refused(tmp_path: Path, changes: Json) -> None:
    _refused({**_bind(tmp_path), **changes}, "idmap")


@pytest.mark.parametrize("options", ["rbind", [5], [["ro"]], {"ro": True}])
def test_options_that_are_no_words(tmp_path: Path, options: JsonValue) -> None:
    with pytest.raises(SpecError, match="mount options of /data"):
        _read({"destination": "/data", "type": "bind", "source": str(tmp_path), "options": options})


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_an_image_becomes_a_block_volume(image: Path, kind: str) -> None:
    found = _read(_disk(image, kind, "loop", "noatime", "ro", "data=journal"))
    (volume,) = found.block_volumes
    assert (volume.name, volume.source, volume.fstype, volume.read_only) == ("0", image, kind, True)
    assert volume.options == ("noatime", "ro", "data=journal")
    assert found.mounts == [_disk("qemubox-disk:0", kind, "noatime", "ro", "data=journal")]


def test_a_raw_disk_says_who_may_open_it(image: Path) -> None:
    image.chmod(0o640)
    os.chown(image, 5, 6)
    found = _read(_disk(image, "raw", "uid=7", at="/dev/xvda"))
    words = ("uid=7", "mode=640", "gid=6")
    assert found.block_volumes == [
        BlockVolume("0", image, "raw", read_only=False, options=words, destination="/dev/xvda")
    ]
    assert found.mounts == [_disk("qemubox-disk:0", "raw", *words, at="/dev/xvda")]
    _refused(_disk(image, "raw", "noatime"), "no option 'noatime'")


def test_a_block_device_that_is_bound_is_a_raw_disk(tmp_path: Path) -> None:
    device = tmp_path / "device"
    os.mknod(device, 0o60600, os.makedev(7, 250))
    (volume,) = _read(_bind(device, "ro", "rprivate", at="/dev/xvda")).block_volumes
    assert (volume.fstype, volume.read_only, volume.options) == ("raw", True, ("ro", "mode=600", "uid=0", "gid=0"))
    _refused(_bind(device, "nodev"), "nodev")


def test_a_directory_is_no_disk(tmp_path: Path) -> None:
    _refused(_disk(tmp_path, "ext4"), "must be a block device or a file")


def test_one_disk_cannot_be_mounted_twice(image: Path) -> None:
    with pytest.raises(SpecError, match=f"cannot mount {image} at /b: another mount of the same container"):
        _read(_disk(image, "ext4", at="/a"), _disk(image, "ext4", at="/b"))


_WORDS = st.sampled_from(["ro", "rw", "rro", "bind", "rbind", "rslave", "rprivate", "nosuid", "size=5", "shared", "x"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["bind", "ext4", "raw", "tmpfs", "none", "proc"]), st.lists(_WORDS, max_size=4)),
        max_size=4,
    )
)
def test_nothing_is_dropped(asked: list[tuple[str, list[str]]]) -> None:
    """As many mounts as there were; each word is passed on, or the mount is refused."""
    mounts = [_disk("/etc/passwd" if kind != "bind" else "/etc", kind, *words, at="/x") for kind, words in asked]
    before = json.dumps(mounts)
    found = None
    with contextlib.suppress(SpecError):
        found = _read(*mounts)
    if found is None:
        return
    assert json.dumps(mounts) == before
    assert len(found.mounts) == len(mounts)
    for (_, words), mount in zip(asked, found.mounts, strict=True):
        options = mount["options"]
        assert isinstance(options, list)
        assert set(words) <= set(options)
