"""What the bar of a picture says: the part of its work that is done, by windows and not by steps."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from synccontrol.cli.progress import Progress
from synccontrol.pipeline.output import Step


def test_the_bar_of_a_picture_goes_by_the_work_that_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    job = SimpleNamespace(output=Path("out/a.png"))
    with Progress(1, None, quiet=False) as progress:
        for index, done in enumerate((0.05, 0.1, 0.55)):  # two steps of a rough picture, one of the canvas
            time.sleep(0.15)  # tqdm draws ten times a second at most
            x_t, render = torch.zeros(1, 4, 8, 8), lambda: Image.new("RGB", (8, 8))
            progress.step(job, Step(index=index, steps=4, done=done, x_t=x_t, result=None, render=render))
    shown = capsys.readouterr().err
    for part, steps in (("10%", "2/4 steps"), ("55%", "3/4 steps")):
        assert any(part in line and steps in line and "a.png" in line for line in shown.split("\r")), shown
    assert "50%" not in shown and "75%" not in shown
