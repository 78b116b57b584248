"""The recipe of the big guest, with a mmdebstrap of our own in its PATH: what it asks for, keeps and says."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"
# Logs its arguments; the new system is one file. The customize hook needs a chroot, and is the end-to-end test's.
_MMDEBSTRAP = """#!/bin/sh
printf '%s\\n' "$@" >"$LOG"
[ ! -e "$LOG.fails" ] || { echo "E: no such package"; exit 1; }
for word; do case $word in *.root.tar) out=$word ;; esac; done
cd "$(dirname "$LOG")" && echo of the system >hello && tar -cf "$out" hello
echo "systemd 252" >"$QEMUBOX_PACKAGES"
"""


class Recipe:
    """A copy of the recipe and a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.deploy = root / "deploy"
        self.log = root / "log"
        self.cache = root / "cache"
        self._bin = root / "bin"
        shutil.copytree(DEPLOY, self.deploy, ignore=shutil.ignore_patterns("__pycache__"))
        self._bin.mkdir()
        program = self._bin / "mmdebstrap"
        program.write_text(_MMDEBSTRAP)
        program.chmod(0o755)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": f"{self._bin}:{os.environ['PATH']}", "LOG": str(self.log)}
        return subprocess.run(
            [self.deploy / "big-guest/build.sh", *words],
            env={**environment, "QEMUBOX_BUILD_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def build(self, *words: str) -> Path:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


def _settings(archive: Path) -> dict[str, object]:
    """The image's configuration for its containers."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> dict[str, object]:
            file = tar.extractfile(name)
            assert file is not None
            document = json.load(file)
            assert isinstance(document, dict)
            return document

        def blob(descriptor: object) -> dict[str, object]:
            assert isinstance(descriptor, dict)
            return read("blobs/" + descriptor["digest"].replace(":", "/"))

        manifests = read("index.json")["manifests"]
        assert isinstance(manifests, list)
        settings = blob(blob(manifests[0])["config"])["config"]
    assert isinstance(settings, dict)
    return settings


def test_the_image_says_what_runs_and_how_it_ends(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    kept = recipe.build(str(out))
    assert out.read_bytes() == kept.read_bytes()
    settings = _settings(out)
    assert settings["Cmd"] == ["/sbin/init"]
    assert settings["StopSignal"] == "SIGRTMIN+3"
    environment = settings["Env"]
    assert isinstance(environment, list)
    assert {"container=oci", "LANG=C.UTF-8"} < {*environment}
    assert [*kept.parent.glob("*.packages")] == [kept.with_name(f"{kept.name}.packages")]


def test_the_packages_come_from_the_host_s_mirror(recipe: Recipe) -> None:
    recipe.build()
    words = recipe.log.read_text().splitlines()
    (include,) = (word for word in words if word.startswith("--include="))
    assert {"systemd-sysv", "docker.io", "sudo"} < {*include.removeprefix("--include=").split(",")}
    mirror = subprocess.run([DEPLOY / "mirror.sh"], check=True, capture_output=True, text=True, timeout=30)
    assert f"deb {mirror.stdout.strip()} bookworm main" in words


def test_what_was_made_is_found_again_until_the_recipe_changes(recipe: Recipe) -> None:
    first = recipe.build()
    recipe.log.unlink()
    assert recipe.build() == first
    assert not recipe.log.exists()
    (recipe.deploy / "big-guest/root/etc/motd").write_text("hello\n")
    second = recipe.build()
    assert second != first
    assert recipe.log.exists()


def test_a_failure_says_why_and_leaves_no_image(recipe: Recipe) -> None:
    recipe.log.with_name("log.fails").touch()
    done = recipe.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "E: no such package" in done.stderr
    assert "big-guest: mmdebstrap failed (whole log: " in done.stderr
    assert [*recipe.cache.rglob("*.tar")] == []


def test_too_many_words(recipe: Recipe) -> None:
    done = recipe.run("a", "b")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
