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
