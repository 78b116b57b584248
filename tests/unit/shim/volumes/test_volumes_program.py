"""Which virtiofsd is taken, and what each of the two is told."""

from pathlib import Path

import pytest

from shim import deadlines
from shim.errors import HostError, MissingPartError
from shim.volumes import program


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A program that says what is in the file beside it."""
    path = tmp_path / "virtiofsd"
    path.write_text('#!/bin/sh\nexec cat "${0%/*}/says"\n')
    path.chmod(0o755)
    return path


def _says(fake: Path, words: str) -> None:
    (fake.parent / "says").write_text(words)


@pytest.mark.parametrize("word", ["auto", ""])
def test_the_first_place_that_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: Path, word: str) -> None:
    monkeypatch.setattr(program, "_KNOWN", (str(tmp_path / "nothing"), str(fake), "/bin/true"))
    assert program.find(word) == fake


def test_path_is_the_last_place(monkeypatch: pytest.MonkeyPatch, fake: Path) -> None:
    monkeypatch.setattr(program, "_KNOWN", ("/nowhere/virtiofsd",))
    monkeypatch.setenv("PATH", str(fake.parent))
    assert program.find("auto") == fake
    assert program.find("virtiofsd") == fake


def test_a_path_that_is_a_link_is_followed(tmp_path: Path, fake: Path) -> None:
    """The file system that the program itself is in is to be there when it runs."""
    link = tmp_path / "link"
    link.symlink_to(fake)
    assert program.find(str(link)) == fake


def test_where_it_is_missing_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_KNOWN", ())
    monkeypatch.setenv("PATH", "/nowhere")
    for word, named in (("auto", "in PATH"), ("/nowhere/virtiofsd", "volumes.daemon = '/nowhere/virtiofsd'")):
        with pytest.raises(MissingPartError) as caught:
            program.find(word)
        assert named in caught.value.message
        assert "apt-get install virtiofsd" in caught.value.hint


async def test_qemus_own_is_told_in_its_words(fake: Path) -> None:
    _says(fake, "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright\n")
    command = await program.command(fake, submounts=False)
    options = "source=/sys,sandbox=namespace,cache=auto,xattr,posix_acl,no_flock,no_posix_lock,log_level=warn"
    assert command == [str(fake), "-o", options]
    assert await program.command(fake, submounts=True) == [*command, "-o", "announce_submounts"]


async def test_the_other_is_told_to_use_no_file_handles(fake: Path) -> None:
    """For which it would keep a capability that opens every file of a file system."""
    _says(fake, "virtiofsd 1.13.2\n")
    command = await program.command(fake, submounts=False)
    assert "--inode-file-handles=never" in command
    assert {"--sandbox=namespace", "--seccomp=kill", "--shared-dir=/sys"} < {*command}
    assert command[-1] == "--no-announce-submounts"
    assert (await program.command(fake, submounts=True))[-1] == "--announce-submounts"


@pytest.mark.parametrize("words", ["", "QEMU emulator version 7.2.22", "\0\xff"])
async def test_another_program_is_refused(fake: Path, words: str) -> None:
    _says(fake, words)
    with pytest.raises(HostError, match=r"--version says .*no virtiofsd"):
        await program.command(fake, submounts=False)


async def test_one_that_cannot_be_run_or_does_not_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/sh\n")
    broken.chmod(0o755)
    with pytest.raises(HostError, match="cannot be run: No such file"):
        await program.command(broken, submounts=False)
    monkeypatch.setattr(deadlines, "VOLUMES_READY_S", 0.2)
    fake.write_text("#!/bin/sh\nexec sleep 1000\n")
    with pytest.raises(HostError, match=r"--version does not end within 0\.2 s"):
        await program.command(fake, submounts=False)
