"""The kernel's fragments and scripts: nothing asked for is lost unsaid, and each input changes the key."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

KERNEL = Path(__file__).parents[3] / "kernel"
FRAGMENTS = sorted((KERNEL / "config").glob("*.config"))


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def check(directory: Path, *config: Path) -> subprocess.CompletedProcess[str]:
    return run("sh", KERNEL / "check-config.sh", directory, *config)


@pytest.fixture
def fragments(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    directory.mkdir()
    (directory / "boot.config").write_text(
        '# Why.\n\nCONFIG_PVH=y\nCONFIG_NR_CPUS=256\nCONFIG_NAME="a b"\n# CONFIG_MODULES is not set\n'
    )
    (directory / "net.config").write_text("#\nCONFIG_NET=y\n")
    return directory


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    config = tmp_path / ".config"
    config.write_text(
        '# Automatically generated file\nCONFIG_PVH=y\nCONFIG_NR_CPUS=256\nCONFIG_NAME="a b"\n'
        "# CONFIG_MODULES is not set\nCONFIG_NET=y\nCONFIG_SELECTED_BY_OTHERS=y\n"
    )
    return config


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of kernel/, and a dpkg-query that says version 1."""
    copy = tmp_path / "kernel"
    shutil.copytree(KERNEL, copy)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dpkg-query").write_text('#!/bin/sh\nprintf %s "${VERSION:-1}"\n')
    (programs / "dpkg-query").chmod(0o755)
    return copy


def path_of(checkout: Path, **environment: str) -> str:
    programs = f"{checkout.parent / 'bin'}:{os.environ['PATH']}"
    cache = str(checkout.parent / "cache")
    environment = {"PATH": programs, "QEMUBOX_BUILD_CACHE": cache, **environment}
    result = run(checkout / "build.sh", "--path", **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_fragments_are_sound() -> None:
    result = check(KERNEL / "config")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda fragment: fragment.name)
def test_each_fragment_says_what_it_is_for(fragment: Path) -> None:
    first = fragment.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert " is not set" not in first


def test_no_option_stands_in_two_fragments() -> None:
    options = [
        line.split("=")[0] for file in FRAGMENTS for line in file.read_text().splitlines() if line[:7] == "CONFIG_"
    ]
    assert sorted(options) == sorted(set(options))


@pytest.mark.parametrize("script", ["build.sh", "compile.sh", "check-config.sh"])
def test_the_scripts_are_sh(script: str) -> None:
    subprocess.run(["sh", "-n", KERNEL / script], check=True, timeout=10)
    assert os.access(KERNEL / script, os.X_OK)


def test_a_configuration_that_has_everything_passes(fragments: Path, finished: Path) -> None:
    result = check(fragments, finished)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "option", "fragment"),
    [
        ("CONFIG_PVH=y", "# CONFIG_PVH is not set", "CONFIG_PVH=y", "boot.config"),
        ("CONFIG_NET=y\n", "", "CONFIG_NET=y", "net.config"),
        ("CONFIG_NR_CPUS=256", "CONFIG_NR_CPUS=8", "CONFIG_NR_CPUS=256", "boot.config"),
        ('CONFIG_NAME="a b"', 'CONFIG_NAME="a"', 'CONFIG_NAME="a b"', "boot.config"),
        ("# CONFIG_MODULES is not set", "CONFIG_MODULES=y", "CONFIG_MODULES=n", "boot.config"),
        ("CONFIG_PVH=y", "CONFIG_PVH=m", "CONFIG_PVH=y", "boot.config"),
    ],
)
def test_a_lost_option_is_named_with_its_fragment(
    fragments: Path, finished: Path, old: str, new: str, option: str, fragment: str
) -> None:
    replace(finished, old, new)
    result = check(fragments, finished)
    assert result.returncode == 1
    assert f"{fragment}: lost {option}," in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_option_that_should_be_off_may_be_unknown(fragments: Path, finished: Path) -> None:
    replace(finished, "# CONFIG_MODULES is not set\n", "")
    assert check(fragments, finished).returncode == 0


def test_every_lost_option_is_named(fragments: Path, finished: Path) -> None:
    finished.write_text("")
    result = check(fragments, finished)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 4


def test_a_contradiction_is_named_with_both_fragments(fragments: Path) -> None:
    (fragments / "off.config").write_text("# CONFIG_NET is not set\n")
    result = check(fragments)
    assert result.returncode == 1
    assert "net.config" in result.stderr
    assert "off.config" in result.stderr
    assert "contradicts" in result.stderr


@pytest.mark.parametrize("line", ["CONFIG_NET", "NET=y", "CONFIG_NET = y", "CONFIG_NET=", "#CONFIG_NET is not set"])
def test_a_line_that_is_neither_comment_nor_option_is_named(fragments: Path, line: str) -> None:
    (fragments / "odd.config").write_text(f"# Purpose.\n{line}\n")
    result = check(fragments)
    assert result.returncode == 1
    assert "odd.config:2: neither a comment nor an option" in result.stderr


def test_a_directory_without_fragments_is_an_error(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.returncode == 2
    assert "no fragments" in result.stderr


def test_the_path_is_one_line_below_the_cache_and_nothing_is_made(checkout: Path) -> None:
    path = path_of(checkout)
    assert path.startswith(f"{checkout.parent}/cache/kernel/")
    assert path.endswith("/vmlinux\n")
    assert not (checkout.parent / "cache").exists()
    assert path_of(checkout) == path


@pytest.mark.parametrize("file", ["compile.sh", *(f"config/{fragment.name}" for fragment in FRAGMENTS)])
def test_a_changed_input_is_another_kernel(checkout: Path, file: str) -> None:
    before = path_of(checkout)
    with (checkout / file).open("a") as changed:
        changed.write("# changed\n")
    assert path_of(checkout) != before


def test_a_new_fragment_and_a_new_source_version_are_another_kernel(checkout: Path) -> None:
    before = path_of(checkout)
    assert path_of(checkout, VERSION="2") != before
    (checkout / "config/zz.config").write_text("# Nothing.\n")
    assert path_of(checkout) != before


def test_words_about_it_do_not_matter(checkout: Path) -> None:
    before = path_of(checkout)
    (checkout / "README.md").write_text("other words\n")
    assert path_of(checkout) == before


def test_what_is_in_the_cache_needs_no_compiler(checkout: Path) -> None:
    vmlinux = Path(path_of(checkout).strip())
    vmlinux.parent.mkdir(parents=True)
    vmlinux.write_bytes(b"\x7fELF")
    programs = checkout.parent / "bin"
    for program in ("sh", "dirname", "sha256sum", "cut"):
        (programs / program).symlink_to(shutil.which(program) or "")
    result = run(
        programs / "sh", checkout / "build.sh", PATH=str(programs), QEMUBOX_BUILD_CACHE=str(checkout.parent / "cache")
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{vmlinux}\n", "")


def test_a_missing_compiler_is_named_with_the_command_that_mends_it(checkout: Path) -> None:
    programs = checkout.parent / "bin"
    for program in ("sh", "dirname", "sha256sum", "cut"):
        (programs / program).symlink_to(shutil.which(program) or "")
    result = run(
        programs / "sh", checkout / "build.sh", PATH=str(programs), QEMUBOX_BUILD_CACHE=str(checkout.parent / "cache")
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert "missing: gcc make ld flex bison bc xz" in result.stderr
    assert "apt-get install" in result.stderr


def test_missing_sources_are_named_with_the_command_that_mends_it(checkout: Path) -> None:
    (checkout.parent / "bin/dpkg-query").write_text("#!/bin/sh\nexit 1\n")
    result = run(checkout / "build.sh", PATH=f"{checkout.parent / 'bin'}:{os.environ['PATH']}")
    assert (result.returncode, result.stdout) == (1, "")
    assert "linux-source-6.12 is not installed (run: apt-get install linux-source-6.12" in result.stderr


def test_an_unknown_argument_is_refused(checkout: Path) -> None:
    result = run(checkout / "build.sh", "--bogus")
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage:" in result.stderr
