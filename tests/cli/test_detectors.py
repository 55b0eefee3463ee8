"""Which detectors read a guide for which model, and that a picture says so."""

import dataclasses
from pathlib import Path

import pytest

from synccontrol.cli import main
from synccontrol.models import loader, registry
from tests.cli.pictures import Run, draw


@pytest.fixture
def preset(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns nothing; the tiny checkpoint is a preset for photographs."""
    tiny = {"base": str(checkpoint), "controlnets": {}, "geometry": loader.geometry(str(checkpoint), offline=True)}
    own = dataclasses.replace(registry.PRESETS["sd15"], **tiny, defaults=loader.defaults(str(checkpoint), offline=True))
    monkeypatch.setattr(registry, "PRESETS", {**registry.PRESETS, "sd15": own})


@pytest.mark.usefixtures("preset")
def test_a_preset_for_photographs_does_not_read_them_with_bundled_detectors(run: Run) -> None:
    draw(Path("wide.png"))
    flags = ["--model", "sd15", "--guide", "wide.png", "--prompt", "x", "--control", "depth", "--offline"]
    status, _, err = run(*flags, model=[])
    assert status == 2
    assert "depth-anything/Depth-Anything-V2-Small-hf" in err  # which is not on this machine
    assert run(*flags, "--detector", "tiny", "--dry-run", model=[])[0] == 0


def test_bundled_detectors_for_another_model_are_noted(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("wide.png"))
    flags = ["--guide", "wide.png", "--prompt", "x", "--control", "depth", "--device", "cpu", "--dry-run"]
    for model, detector, noted in (
        (str(checkpoint), [], True),
        (str(checkpoint), ["tiny"], False),
        ("tiny", [], False),
    ):
        named = ["--detector", *detector] if detector else []
        assert main.main([*flags, "--model", model, *named]) == 0
        said = "depth is read by the bundled detector, which knows images of the bundled model"
        assert (said in capsys.readouterr().out) == noted
