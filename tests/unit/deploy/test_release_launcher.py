"""A release's launcher (deploy/release/launcher.c), with a loader that tells how it was called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "deploy/release/launcher.c"
LOADER = '#!/bin/sh\nprintf "%s\\n" "$@"\necho "--- ${XTABLES_LIBDIR-} ${MKE2FS_CONFIG-} ${LD_PRELOAD-} ${KEPT-}"\n'


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled as runtime.sh does, warnings being errors."""
    program = tmp_path_factory.mktemp("launcher") / "launcher"
    options = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
    subprocess.run(["gcc", *options, "-o", program, SOURCE], check=True, timeout=50)
    return program


@pytest.fixture
def runtime(tmp_path: Path, launcher: Path) -> Path:
    tree = tmp_path / "some where" / "runtime-1"
    for name in ("python3", "iptables-save", "mkfs.ext4", "nft"):
        for directory in ("bin", "libexec"):
            (tree / directory).mkdir(parents=True, exist_ok=True)
            shutil.copy(launcher, tree / directory / name)
    loader = tree / "bin/ld-linux-x86-64.so.2"
    loader.write_text(LOADER)
    loader.chmod(0o755)
    return tree


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_loader_gets_the_program_its_name_its_libraries_and_the_arguments(runtime: Path) -> None:
    result = run(runtime / "bin/python3", "-c", "two words", "", "--argv0")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:-1] == [
        *("--inhibit-cache", "--argv0", f"{runtime}/bin/python3", "--library-path", f"{runtime}/lib"),
        *(f"{runtime}/libexec/python3", "-c", "two words", "", "--argv0"),
    ]


def test_the_link_that_it_is_called_by_is_followed(runtime: Path) -> None:
    """A process keeps the runtime that it began with, wherever the link leads later."""
    (runtime.parent / "runtime").symlink_to("runtime-1")
    (runtime.parent / "another-name").symlink_to("runtime/bin/python3")
    assert f"{runtime}/libexec/python3\n" in run(runtime.parent / "runtime/bin/python3").stdout
    assert f"{runtime}/libexec/python3\n" in run(runtime.parent / "another-name").stdout


def test_its_name_is_its_files_and_not_what_a_caller_claims(runtime: Path) -> None:
    done = subprocess.run(["nonsense"], executable=runtime / "bin/nft", check=True, capture_output=True, timeout=20)
    assert f"--argv0\n{runtime}/bin/nft\n".encode() in done.stdout


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("python3", "   here"),
        ("iptables-save", "{}/lib/xtables   here"),
        ("nft", "{}/lib/xtables   here"),
        ("mkfs.ext4", " {}/etc/mke2fs.conf  here"),
    ],
)
def test_the_environment_is_for_whom_it_is_meant(runtime: Path, name: str, told: str) -> None:
    # A preload of the machine's own would be of another C library; that it is not there would be said by sh.
    result = run(runtime / "bin" / name, KEPT="here")
    assert result.stdout.splitlines()[-1] == f"--- {told.format(runtime)}"


def test_a_library_to_preload_is_not_passed_on(runtime: Path) -> None:
    result = run(runtime / "bin/python3", LD_PRELOAD="/nonexistent/library.so", KEPT="here")
    assert result.stdout.splitlines()[-1] == "---    here"
    assert result.stderr == ""


@pytest.mark.parametrize("missing", ["libexec/python3", "bin/ld-linux-x86-64.so.2"])
def test_what_is_missing_is_named_in_one_line(runtime: Path, missing: str) -> None:
    (runtime / missing).unlink()
    result = run(runtime / "bin/python3")
    assert result.returncode == 127
    assert result.stderr == (
        f"{runtime}/bin/python3: cannot execute {runtime}/{missing}: No such file or directory"
        " (is the installation whole? run install.sh again)\n"
    )
