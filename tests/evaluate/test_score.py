"""The whole evaluation of a small folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synccontrol.errors import InputError, ModelError
from synccontrol.evaluate import Settings, score
from synccontrol.evaluate.measurement import GROUPS

SETTINGS = Settings(window=32, stride=16, offline=True, draws=50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (32, 96, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_every_group_is_measured_or_skipped_with_a_reason(folder: Path) -> None:
    told: list[str] = []
    scores = score(folder, SETTINGS, told.append)
    groups = [measurement.group for measurement in scores.measurements]
    assert groups == sorted(groups, key=GROUPS.index) and set(groups) == {"coherence", "seams"}
    assert {"control", "FID (stlpips-vgg)", "Intra-LPIPS"} <= {metric for metric, _ in scores.skipped}
    assert all(why and "\n" not in why for _, why in scores.skipped)
    assert all(set(measurement.values) == {"a.png", "b.png"} for measurement in scores.measurements)
    assert any("a.png (1 of 2)" in line for line in told)


def test_only_the_selected_groups_are_measured(folder: Path) -> None:
    settings = SETTINGS.replace(groups=("seams",))
    scores = score(folder, settings)
    assert {measurement.group for measurement in scores.measurements} == {"seams"}
    assert scores == score(folder, settings)


def test_errors_are_raised_before_anything_is_measured(folder: Path) -> None:
    told: list[str] = []
    with pytest.raises(InputError, match="FID and KID need"):
        score(folder, SETTINGS.replace(reference=folder), told.append)
    with pytest.raises(InputError, match="no guide for a"):
        (folder / "guides").mkdir()
        Image.new("RGB", (96, 32)).save(folder / "guides" / "c.png")
        score(folder, SETTINGS.replace(guides=folder / "guides", controls=("canny",)), told.append)
    with pytest.raises(ModelError, match="unknown device"):
        score(folder, SETTINGS.replace(device="abacus"), told.append)
    assert not told
