"""What is taken out of unpacked packages (deploy/tree.py), and what a release takes (deploy/release/runtime.py)."""

import os
import zipfile
from pathlib import Path

import pytest

from deploy import tree
from deploy.release import runtime, site_packages

LISTING = """\
\tlinux-vdso.so.1 (0x00007ffd)
\tlibz.so.1 => /base/lib/libz.so.1 (0x00007f01)
\tlibc.so.6 => /base/lib/libc.so.6 (0x00007f02)
\t/lib64/ld-linux-x86-64.so.2 => /base/lib/ld-linux-x86-64.so.2 (0x00007f03)
\tstatically linked
"""


def test_libraries_are_named_as_the_loader_lists_them() -> None:
    listed = tree.listed(LISTING, Path("program"), Path("/base/lib"))
    assert listed == {"libz.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}


@pytest.mark.parametrize("found", ["not found", "/lib/x86_64-linux-gnu/libz.so.1 (0x00007f01)"])
def test_a_library_that_is_not_there_is_named_with_who_wants_it(found: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"libz\.so\.1: usr/bin/program is linked with it"):
        tree.listed(f"\tlibz.so.1 => {found}\n", Path("usr/bin/program"), Path("/base/lib"))


def test_a_copy_has_a_mode_of_its_own(tmp_path: Path) -> None:
    for name, mode, expected in (("text", 0o600, 0o644), ("program", 0o700, 0o755)):
        (tmp_path / name).touch(mode=mode)
        copied = tree.copy(tmp_path / name, tmp_path / "out/deep" / name)
        assert copied.stat().st_mode & 0o777 == expected


def test_packages_are_those_that_have_brought_what_is_taken() -> None:
    listings = {"one": "./\n./usr/\n./usr/bin/a\n", "two": "./usr/bin/b\n", "three": "./usr/bin/c\n"}
    assert runtime.packages_of({"usr/bin/c", "usr/bin/a"}, listings) == ["one", "three"]
    with pytest.raises(LookupError, match="usr/bin/d"):
        runtime.packages_of({"usr/bin/d"}, listings)


def test_what_is_taken_is_remembered_by_the_name_in_the_package(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    (base / "usr/lib").mkdir(parents=True)
    (base / "usr/lib/libz.so.1.3").write_text("z")
    (base / "usr/lib/libz.so.1").symlink_to("libz.so.1.3")
    taking = runtime.Taking(base, out)
    taking.file("usr/lib/libz.so.1", "lib/libz.so.1")
    assert taking.taken == {"usr/lib/libz.so.1", "usr/lib/libz.so.1.3"}
    assert (out / "lib/libz.so.1").read_text() == "z"
    assert not (out / "lib/libz.so.1").is_symlink()


def test_a_directory_is_taken_less_what_is_left_out_at_its_top(tmp_path: Path) -> None:
    base = tmp_path / "base"
    for name in ("lib/test/a.py", "lib/json/test/b.py", "lib/c.py"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    copies = runtime.Taking(base, tmp_path / "out").directory("lib", "to", frozenset({"test"}))
    assert [str(path.relative_to(tmp_path / "out")) for path in copies] == ["to/c.py", "to/json/test/b.py"]


def test_programs_have_a_launcher_for_each_name(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    for source in runtime.PROGRAMS:
        (base / source).parent.mkdir(parents=True, exist_ok=True)
        (base / source).touch(mode=0o755)
    (tmp_path / "launcher").touch()
    runtime.programs(runtime.Taking(base, out), tmp_path / "launcher")
    names = {name for names in runtime.PROGRAMS.values() for name in names}
    assert {path.name for path in (out / "bin").iterdir()} == names
    assert len({path.stat().st_ino for path in (out / "bin").iterdir()}) == 1
    assert all(os.access(out / "libexec" / name, os.X_OK) and os.access(out / "bin" / name, os.X_OK) for name in names)


def _wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x = 1\n")
    return path


def test_a_wheel_is_unpacked_and_no_two_bring_the_same(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path / "one-1-py3-none-any.whl", "one/__init__.py")
    site_packages.unpack(wheel, tmp_path / "out")
    assert (tmp_path / "out/one/__init__.py").read_text() == "x = 1\n"
    with pytest.raises(ValueError, match=r"one/__init__\.py is in another wheel"):
        site_packages.unpack(wheel, tmp_path / "out")


def test_a_wheel_that_wants_an_installer_is_refused(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path / "one-1-py3-none-any.whl", "one-1.data/scripts/one")
    with pytest.raises(ValueError, match="wants an installer"):
        site_packages.unpack(wheel, tmp_path / "out")
