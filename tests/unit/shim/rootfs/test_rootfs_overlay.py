"""Options of overlay and bind mounts: carried over, without effect, or refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import UnsupportedError
from shim.rootfs.overlay import (
    BindOptions,
    NewDirectory,
    OverlayOptions,
    Owners,
    read_bind,
    read_directory,
    read_overlay,
    split_lowerdir,
)

DIRECTORIES = ["lowerdir=/c:/b:/a", "upperdir=/u", "workdir=/w"]


def test_the_directories() -> None:
    assert read_overlay(DIRECTORIES) == OverlayOptions(("/c", "/b", "/a"), "/u", "/w")
    assert read_overlay(["lowerdir=/a"]) == OverlayOptions(("/a",))


@pytest.mark.parametrize(
    "option",
    ["rw", "index=off", "volatile", "xino=auto", "nfs_export=on", "uuid=null", "redirect_dir=on", "metacopy=off"],
)
def test_options_without_effect_in_the_guest(option: str) -> None:
    assert read_overlay([option, *DIRECTORIES]) == read_overlay(DIRECTORIES)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("userxattr", "the layers were made by a rootless containerd"),
        ("metacopy=on", "files without their data cannot be converted"),
        ("index=maybe", "its meaning inside a virtual machine is not known"),
        ("brand-new", "its meaning inside a virtual machine is not known"),
        ("X-containerd.news=1", "its meaning inside a virtual machine is not known"),
        ("lowerdir+=/d", "not written by any containerd"),
    ],
)
def test_other_options_are_refused_by_name(option: str, reason: str) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        read_overlay([*DIRECTORIES, option])
    assert f"overlay mount with option {option}: {reason}" in refusal.value.message


def test_layers_with_other_owners() -> None:
    options = ["uidmap=0:100000:65536", "gidmap=0:5:1,1:7:10", *DIRECTORIES]
    assert read_overlay(options).owners == Owners("0 100000 65536", "0 5 1\n1 7 10")
    assert read_overlay(DIRECTORIES).owners is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["uidmap=0:1:2"], "only one of uidmap and gidmap"),
        (["gidmap=0:1:2"], "only one of uidmap and gidmap"),
        (["uidmap=0:1", "gidmap=0:1:2"], "the map of owners 0:1: not understood"),
        (["uidmap=0:1:2", "gidmap=0:1:2\n"], "not understood"),
    ],
)
def test_owners_that_are_not_understood(options: list[str], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        read_overlay([*options, *DIRECTORIES])


@pytest.mark.parametrize("option", ["uidmap=0:100000:65536", "gidmap=0:100000:65536"])
def test_a_bind_mount_with_other_owners_is_refused(option: str) -> None:
    with pytest.raises(UnsupportedError, match=f"bind mount with option {option}: only the layers of an overlay"):
        read_bind(["rw", "rbind", option])


def test_a_read_only_overlay() -> None:
    assert read_overlay(["ro", *DIRECTORIES]).read_only


@pytest.mark.parametrize("options", [[], ["upperdir=/u", "workdir=/w"], ["lowerdir="]])
def test_without_lower_directories(options: list[str]) -> None:
    with pytest.raises(UnsupportedError, match="without lowerdir"):
        read_overlay(options)


@pytest.mark.parametrize("lone", ["upperdir=/u", "workdir=/w"])
def test_upper_and_work_come_together(lone: str) -> None:
    with pytest.raises(UnsupportedError, match="only one of upperdir and workdir"):
        read_overlay(["lowerdir=/a", lone])


@pytest.mark.parametrize("value", ["/a::/data", "/a:", ":/a"])
def test_data_only_layers_are_refused(value: str) -> None:
    with pytest.raises(UnsupportedError, match="data-only layers"):
        split_lowerdir(value)


_PATHS = st.text(min_size=1, max_size=12)


@given(st.lists(_PATHS, min_size=1, max_size=200))
def test_lowerdir_splits_into_what_it_was_joined_from(paths: list[str]) -> None:
    escaped = (path.replace("\\", "\\\\").replace(":", "\\:") for path in paths)
    assert split_lowerdir(":".join(escaped)) == tuple(paths)


@pytest.mark.parametrize(
    ("option", "directory"),
    [
        ("X-containerd.mkdir.path=/a/b", NewDirectory("/a/b", 0o700, 0, 0)),
        ("X-containerd.mkdir.path=/a:0755", NewDirectory("/a", 0o755, 0, 0)),
        ("X-containerd.mkdir.path=/a:1:2:3", NewDirectory("/a", 0o1, 2, 3)),
    ],
)
def test_directories_to_make(option: str, directory: NewDirectory) -> None:
    assert read_directory(option) == directory
    assert read_overlay([*DIRECTORIES, option]).directories == (directory,)
    assert read_bind(["rbind", "rw", option]) == BindOptions(False, (directory,))


@pytest.mark.parametrize("value", ["path=", "path=/a:", "path=/a:0999", "path=/a:7777", "path=/a:755:1", "mode=1", ""])
def test_directories_that_containerd_would_not_make(value: str) -> None:
    with pytest.raises(UnsupportedError, match=r"mount option X-containerd\.mkdir\..*: not understood"):
        read_directory(f"X-containerd.mkdir.{value}")


def test_bind_options() -> None:
    assert read_bind(["rw", "rbind"]) == BindOptions(False)
    assert read_bind(["ro", "rbind"]) == BindOptions(True)
    with pytest.raises(UnsupportedError, match="bind mount with option noexec: "):
        read_bind(["rbind", "noexec"])
