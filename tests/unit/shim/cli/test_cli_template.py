"""`qemubox template` where it needs no machine."""

from pathlib import Path

import pytest

from shim.cli import main


@pytest.mark.parametrize("mode", ["off", "per-namespace"])
def test_a_template_that_nobody_would_use_is_no_error_after_boot(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """qemubox-template.service must not fail for it; people are told."""
    config = tmp_path / "config.toml"
    config.write_text(f'[template]\nmode = "{mode}"\n[runtime]\nstate_dir = "{tmp_path}"\n')
    monkeypatch.setenv("QEMUBOX_CONFIG", str(config))
    assert main(["template", "build", "--if-used"]) == 0
    assert mode in capsys.readouterr().out
    assert main(["template", "build"]) == 1
    assert f'template.mode = "{mode}"' in capsys.readouterr().err


def test_an_empty_word_is_no_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `qemubox template rm "$NAME"`: it is not the one that there is."""
    config = tmp_path / "config.toml"
    config.write_text(f'[runtime]\nstate_dir = "{tmp_path}"\ncache_dir = "{tmp_path}"\n')
    monkeypatch.setenv("QEMUBOX_CONFIG", str(config))
    there = tmp_path / "templates" / ("a" * 64)
    there.mkdir(parents=True)
    assert main(["template", "rm", ""]) == 1
    assert "template : 0 have such a name" in capsys.readouterr().err
    assert there.exists()
    assert main(["template", "rm", "aaaa"]) == 0
    assert not there.exists()
