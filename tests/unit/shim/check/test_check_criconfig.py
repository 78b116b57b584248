"""containerd's configuration, of every version, with imports, and broken."""

from pathlib import Path

import pytest

from shim.check import containerd, criconfig
from shim.check.line import Line, Report
from shim.errors import ConfigError

_TYPE = 'runtime_type = "io.containerd.qemubox.v1"\n'
_SECTIONS = {
    1: "[plugins.cri.containerd.runtimes.qemubox]\n",
    2: '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.qemubox]\n',
    3: "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.qemubox]\n",
    4: "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.qemubox]\n",
}


def _say(path: Path, *, before_2: bool = False) -> Line:
    report = Report("containerd")
    containerd.configuration(report, path, Path("/"), before_2=before_2)
    (line,) = report.lines
    return line


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_the_entry_is_found(version: int, tmp_path: Path) -> None:
    line = _say(_write(tmp_path / "config.toml", f"version = {version}\n{_SECTIONS[version]}{_TYPE}"))
    assert line.level == "ok"
    assert line.found == f"version {version}, with the runtime 'qemubox' for the CRI"


def test_a_file_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    assert _say(_write(tmp_path / "config.toml", _SECTIONS[1] + _TYPE)).found.startswith("version 1, with")


@pytest.mark.parametrize(("version", "section"), [(2, 3), (3, 2), (3, 1), (2, 1)])
def test_an_entry_where_it_is_not_read(version: int, section: int, tmp_path: Path) -> None:
    line = _say(_write(tmp_path / "config.toml", f"version = {version}\n{_SECTIONS[section]}{_TYPE}"))
    assert line.level == "failure"
    assert f"which version {version} has not" in line.found
    assert criconfig.snippet(version) in line.mend


def test_none(tmp_path: Path) -> None:
    line = _say(_write(tmp_path / "config.toml", "version = 3\n"))
    assert line.level == "warning"
    assert "--shim-only" in line.mend
    assert "io.containerd.cri.v1.runtime" in line.mend


@pytest.mark.parametrize("name", ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"])
def test_none_is_needed_without_the_cri(name: str, tmp_path: Path) -> None:
    line = _say(_write(tmp_path / "config.toml", f'version = 2\ndisabled_plugins = ["{name}"]\n'))
    assert line.level == "ok"
    assert "without the CRI" in line.found


def test_no_file(tmp_path: Path) -> None:
    assert _say(tmp_path / "config.toml").level == "ok"


def test_a_runtime_by_its_path_is_ours(tmp_path: Path) -> None:
    text = f'version = 2\n{_SECTIONS[2]}runtime_path = "/x/containerd-shim-qemubox-v1"\n'
    assert _say(_write(tmp_path / "config.toml", text)).level == "ok"


def test_somebody_elses_runtime_is_not(tmp_path: Path) -> None:
    text = f'version = 2\n{_SECTIONS[2]}runtime_type = "io.containerd.runc.v2"\n'
    assert _say(_write(tmp_path / "config.toml", text)).level == "warning"


@pytest.mark.parametrize("imports", ["parts/*.toml", "{}/parts/*.toml", "parts/a.toml", "./parts/../parts/a.toml"])
def test_imports(imports: str, tmp_path: Path) -> None:
    _write(tmp_path / "parts" / "a.toml", f"version = 2\n{_SECTIONS[2]}{_TYPE}")
    main = _write(tmp_path / "config.toml", f'version = 2\nimports = ["{imports.format(tmp_path)}"]\n')
    line = _say(main)
    assert (line.level, line.what) == ("ok", str(tmp_path / "parts" / "a.toml"))


def test_imports_of_imports_and_circles(tmp_path: Path) -> None:
    main = _write(tmp_path / "config.toml", 'version = 2\nimports = ["a.toml"]\n')
    _write(tmp_path / "a.toml", f'version = 2\nimports = ["b.toml", "config.toml"]\n{_SECTIONS[2]}{_TYPE}')
    _write(tmp_path / "b.toml", 'version = 2\nimports = ["a.toml"]\n')
    assert [Path(file.path).name for file in criconfig.read(main)] == ["config.toml", "a.toml", "b.toml"]


def test_containerd_1_loses_a_section(tmp_path: Path) -> None:
    main = _write(tmp_path / "config.toml", f'version = 2\nimports = ["a.toml"]\n{_SECTIONS[2]}{_TYPE}')
    _write(tmp_path / "a.toml", 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "x"\n')
    assert _say(main).level == "ok"
    line = _say(main, before_2=True)
    assert (line.level, line.what) == ("failure", str(main))
    assert "is lost" in line.found


@pytest.mark.parametrize(
    ("main", "imported", "words", "where"),
    [
        ("version = 2\noops\n", "", "line 2", "config.toml"),
        ("version = 2\nimports = ['a.toml']\n", "version = 2\n[plugins\n", "line 2", "a.toml"),
        ("version = 2\nimports = ['none.toml']\n", "", "is imported, and not there", "none.toml"),
        ("version = 2\nimports = ['a.toml']\n", "version = 3\n", "its version is 3", "a.toml"),
        ("version = 9\n", "", "there are 1 to 4", "config.toml"),
        ("version = 'two'\n", "", "there are 1 to 4", "config.toml"),
    ],
)
def test_what_containerd_does_not_start_with(main: str, imported: str, words: str, where: str, tmp_path: Path) -> None:
    _write(tmp_path / "a.toml", imported or "version = 2\n")
    line = _say(_write(tmp_path / "config.toml", main))
    assert line.level == "failure"
    assert line.what == str(tmp_path / where)
    assert words in line.found


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"version = 2\n# \xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        criconfig.read(path)


def test_files_without_end(tmp_path: Path) -> None:
    for number in range(300):
        _write(tmp_path / f"{number}.toml", f"version = 2\nimports = ['{number + 1}.toml']\n")
    with pytest.raises(ConfigError, match="imports more than"):
        criconfig.read(tmp_path / "0.toml")
