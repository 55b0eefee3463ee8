"""Planted seams of known height, and where borders lie."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synccontrol.canvas.flat import Layout
from synccontrol.errors import ConfigError
from synccontrol.evaluate import seams
from synccontrol.evaluate.dataset import open_gallery
from synccontrol.evaluate.measurement import Settings
from synccontrol.io.metadata import save_png
from synccontrol.spec import settings as config

FLAT = np.full((8, 40, 3), 100.0)
SETTINGS = Settings(window=16, stride=8, groups=("seams",))


def stepped(place: int, height: float) -> np.ndarray:  # type: ignore[type-arg]
    picture = FLAT.copy()
    picture[:, place:] += height
    return picture


@pytest.mark.parametrize("height", [-30.0, 0.0, 51.0])
def test_a_planted_step_is_measured_by_its_height(height: float) -> None:
    found = seams.colour_step(stepped(20, height), loop=False)
    assert found[20] == pytest.approx(abs(height))
    assert found[12] == 0 and np.isnan(found[[0, 3, 37, 39]]).all()


def test_discontinuity_of_a_step_in_a_flat_image() -> None:
    found = seams.discontinuity(stepped(20, 51.0), loop=False)
    assert found[20] == pytest.approx(51 / 255 / seams.STABILIZER, rel=1e-5)
    assert found[10] == 0 and np.isnan(found[[0, 2, 38]]).all()


def test_the_score_agrees_with_its_formula() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 20, 3)).astype(float)
    grey = (picture / 255) @ [0.299, 0.587, 0.114]
    padded = np.pad(grey, ((1, 1), (0, 0)), mode="edge")
    kernel = np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]) / 16

    def response(row: int, column: int) -> float:
        return abs(float((padded[row : row + 3, column - 1 : column + 2] * kernel).sum()))

    place = 9
    terms = [
        response(row, place - 1) / (response(row, place - 2) + seams.STABILIZER)
        + response(row, place) / (response(row, place + 1) + seams.STABILIZER)
        for row in range(6)
    ]
    assert seams.discontinuity(picture, loop=False)[place] == pytest.approx(np.mean(terms) / 2, rel=1e-4)


def test_a_ring_is_measured_where_it_closes() -> None:
    ramp = np.broadcast_to(np.linspace(0, 195, 40)[None, :, None], FLAT.shape)
    assert seams.colour_step(ramp, loop=True)[0] > 8 * seams.colour_step(ramp, loop=True)[20]
    assert np.argmax(seams.discontinuity(ramp, loop=True)) == 0
    turned = np.roll(stepped(20, 60.0), 7, axis=1)
    assert seams.colour_step(turned, loop=True)[27] == pytest.approx(60)


def test_border_places_are_window_starts_and_ends() -> None:
    assert seams.border_places(88, 32, 24, loop=False) == [24, 32, 48, 56, 80]  # windows at 0, 24, 48, 56
    assert seams.border_places(96, 32, 32, loop=False) == [32, 64]
    assert seams.border_places(96, 32, 24, loop=True) == [8, 24, 32, 48, 56, 72, 80]  # the last one passes the edge


@pytest.mark.parametrize("loop", [False, True])
def test_border_places_match_the_canvas_layout(loop: bool) -> None:
    layout = Layout(height=4, width=11, window=(4, 4), stride=3, loop=loop)
    ends = {(left + side) % 11 for _, left in layout.origins for side in (0, 4)} - {0}
    assert seams.border_places(88, 32, 24, loop) == [8 * end for end in sorted(ends)]


def test_reference_places_avoid_borders_and_edges() -> None:
    assert list(seams.reference_places(30, [10], loop=True)) == [5, *range(15, 26)]
    assert list(seams.reference_places(16, [6, 10], loop=False)) == [4, 5, 7, 8, 9, 11, 12]


def test_reference_places_lie_between_cells() -> None:
    assert list(seams.reference_places(48, [16, 32], loop=False, cell=8)) == [8, 24, 40]
    every = list(range(8, 48, 8))
    assert list(seams.reference_places(48, every, loop=False, cell=8)) == [
        *seams.reference_places(48, every, loop=False)
    ]
    assert not set(seams.reference_places(48, every, loop=False)) & set(every)


def test_visible_decoder_cells_are_not_seams(tmp_path: Path) -> None:
    """Every cell has a step at its border, and windows end at some of them: that is no seam."""
    steps = (np.arange(128) // 8 % 2 * 40 + 60).astype(np.uint8)
    picture = Image.fromarray(np.repeat(np.broadcast_to(steps, (32, 128))[..., None], 3, axis=2).copy())
    settings = config.record(config.SamplingConfig(), config.WindowConfig(stride=2))
    size = {"prompt": "", "negative_prompt": "", "seed": 0, "width": 128, "height": 32}
    save_png(picture, tmp_path / "a.png", {**settings, **size, "model": "tiny"})
    wanted = Settings(window=32, groups=("seams",))
    measured, _ = seams.measure(open_gallery(tmp_path, wanted), wanted, print)
    ratio = next(one for one in measured if one.metric == "colour step, window borders / other columns")
    assert ratio.value == pytest.approx(1.0)


def save(folder: Path, name: str, picture: np.ndarray) -> None:  # type: ignore[type-arg]
    Image.fromarray(picture.astype(np.uint8)).save(folder / name)


def test_a_folder_is_measured_against_its_own_other_columns(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (16, 64, 3))
    save(tmp_path, "calm.png", noise)
    seamed = noise.copy()
    seamed[:, 16:24] += 90  # one window of another brightness
    save(tmp_path, "seamed.png", seamed)
    measured, skipped = seams.measure(open_gallery(tmp_path, SETTINGS), SETTINGS, lambda line: None)
    figures = {figure.metric: figure for figure in measured}
    ratio = figures["colour step, window borders / other columns"]
    assert ratio.values["seamed.png"] > ratio.values["calm.png"] + 0.5
    assert ratio.values["calm.png"] == pytest.approx(1, abs=0.25)
    assert {name for name, _ in skipped} == {"Discontinuity Score, loop seam", "colour step, loop seam"}
    rings, missing = seams.measure(open_gallery(tmp_path, SETTINGS), SETTINGS.replace(loop=True), lambda line: None)
    assert len(rings) == 8 and not missing


def test_bands_of_rows_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8))
    whole = seams.score_places(picture, loop=False)
    assert np.allclose(whole[seams.DS], seams.discontinuity(np.asarray(picture, float), False), equal_nan=True)
    monkeypatch.setattr(seams, "BAND", 7 * 40)
    for score, found in seams.score_places(picture, loop=False).items():
        assert np.allclose(found, whole[score], equal_nan=True)


def test_unknown_windows_are_reported(tmp_path: Path) -> None:
    save(tmp_path, "a.png", np.zeros((16, 64, 3)))
    settings = Settings(window=16)
    measured, skipped = seams.measure(open_gallery(tmp_path, settings), settings, lambda line: None)
    assert not measured and any("--stride" in why for _, why in skipped)
    with pytest.raises(ConfigError, match="leaves gaps"):
        seams.measure(open_gallery(tmp_path, settings), settings.replace(stride=17), lambda line: None)
