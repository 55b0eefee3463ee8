"""The command line on the tiny checkpoint, in an empty folder."""

from pathlib import Path

import pytest

from synccontrol.cli import main
from tests.cli.pictures import ALWAYS, Run


@pytest.fixture
def model(checkpoint: Path) -> list[str]:
    """Returns the flags of the tiny checkpoint, in few steps."""
    return ["--model", str(checkpoint), "--steps", "2", "--objective", "stlpips", "--sync-steps", "1"]


@pytest.fixture
def run(model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns a function that runs the command line in an empty folder: flags -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*flags: str, model: list[str] = model) -> tuple[int, str, str]:
        status = main.main([*model, *ALWAYS, *flags])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def canny(checkpoint: Path) -> list[str]:
    return ["--control", "canny", "--controlnet", str(checkpoint / "controlnet-canny")]
