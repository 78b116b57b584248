"""A package is installed in a distribution, files are changed, and the whole is committed: every inode is compared.

The images are in harness/distros.py. One for each snapshotter; `--distros` tries all of them on all.
"""

import pytest

from harness import commit
from harness.box import Box
from harness.distros import BUSYBOX, DEBIAN, DISTROS, PACKAGE, Distro, archive

pytestmark = pytest.mark.timeout(600)

_RUNNING = "localhost/committed:running"
_STOPPED = "localhost/committed:stopped"
_STOCK = "localhost/committed:stock"
_CHANGES = r"""
mkdir -p /work/deep/er
echo data >/work/file
ln /work/file /work/deep/link
ln -s ../file /work/deep/symlink
ln -s "$(printf '%0200d' 0)" /work/deep/long
mkfifo -m 640 /work/pipe
mknod /work/null c 1 3
chown 70000:4000000000 /work/file
chmod 4751 /work/deep
echo x >"/work/$(printf 'caf\351 \n"')"
dd if=/dev/urandom of=/work/random bs=64k count=33 2>/dev/null
dd if=/dev/zero of=/work/sparse bs=1 count=1 seek=3000000 2>/dev/null
rm /opt/removed
rm -r /opt/opaque; mkdir /opt/opaque; echo new >/opt/opaque/new
mv /opt/renamed /opt/away
mv /opt/moved /opt/moved-away
rm /opt/was-file; mkdir /opt/was-file; echo x >/opt/was-file/x
rm -r /opt/was-directory; echo x >/opt/was-directory
chown 12:34 /opt/owned
chmod 6711 /opt/modes
echo more >>/opt/appended
touch -h /opt/link
mkdir /opt/empty
"""
# minbase has perl; setxattr(2) is 188.
_ATTRIBUTES = r"""
perl -e 'my ($p, $n, $v) = ("/work/file", "user.qemubox", "a\0b\xff");
         syscall(188, $p, $n, $v, length $v, 0) and die $!;
         ($p, $n, $v) = ("/work/random", "security.capability", pack("V5", 0x02000001, 0x400, 0, 0, 0));
         syscall(188, $p, $n, $v, length $v, 0) and die $!'
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One distribution or all of them."""
    if "distro" in metafunc.fixturenames:
        erofs = "on_erofs" in metafunc.function.__name__
        chosen = DISTROS if metafunc.config.getoption("distros") else (BUSYBOX,) if erofs else (DEBIAN,)
        metafunc.parametrize("distro", chosen, ids=[distro.name for distro in chosen])


@pytest.mark.release
@pytest.mark.on("1.6")
def test_installed_and_changed_on_overlayfs(vm: Box, distro: Distro) -> None:
    """Committed while it runs and after its end, and by containerd's own means."""
    before = _change_and_commit(vm, distro, "overlayfs", stock=True)
    _compare(vm, before, "overlayfs")
    stock = commit.tree_of_image(vm, _STOCK, "runc")
    commit.assert_same([_coarse(line) for line in before], [_coarse(line) for line in stock])
    _remove(vm, distro, _STOCK)


@pytest.mark.each_case
@pytest.mark.on("2")
def test_installed_and_changed_on_erofs(vm: Box, distro: Distro) -> None:
    """Several layers, in block mode, where containerd's own comparison fails."""
    before = _change_and_commit(vm, distro, "erofs", stock=False)
    _compare(vm, before, "erofs")
    _remove(vm, distro)


def _change_and_commit(box: Box, distro: Distro, snapshotter: str, *, stock: bool) -> list[str]:
    """The tree as the container saw it."""
    tar = str(archive(distro, box.containerd.archives))
    box.containerd.ctr("images", "import", "--snapshotter", snapshotter, tar, deadline_s=240).checked()
    with commit.sleeping(box, distro.image, "--snapshotter", snapshotter) as container:
        assert PACKAGE in commit.shell(box, container, distro.install)
        commit.shell(box, container, _CHANGES + (_ATTRIBUTES if distro.suite else ""))
        before = commit.tree(box, container)
        _commit(box, container, _RUNNING)
        assert box.status(container) == "RUNNING"
        commit.end(box, container)
        _commit(box, container, _STOPPED)
        if stock:
            commit.commit_stock(box, container, distro.image, _STOCK)
    return before


def _compare(box: Box, before: list[str], snapshotter: str) -> None:
    on = ("--snapshotter", snapshotter)
    for name, runtime in ((_RUNNING, "qemubox"), (_RUNNING, "runc"), (_STOPPED, "runc")):
        commit.assert_same(before, commit.tree_of_image(box, name, runtime, *on))
    hello = box.run(PACKAGE, options=(*on, "--env", "PATH=/usr/bin:/bin"), image=_STOPPED)
    assert hello.checked().text == "greeting = hello"


def _remove(box: Box, distro: Distro, *more: str) -> None:
    for name in (_RUNNING, _STOPPED, distro.image, *more):
        box.containerd.remove_image(name)


def _commit(box: Box, container: str, name: str) -> None:
    done = commit.commit(box, container, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name} sha256:")
    assert done.stderr == ""


def _coarse(line: str) -> str:
    """What containerd's comparison keeps: no nanoseconds, of attributes capabilities, of directories no time alone."""
    path, mode, owner, size, mtime, links, attributes, content = line.split("\t")
    kept = ",".join(entry for entry in attributes.split(",") if entry.startswith("security.capability=")) or "-"
    second = "-" if mode.startswith("04") else mtime.partition(".")[0]
    return "\t".join((path, mode, owner, size, second, links, kept, content))
