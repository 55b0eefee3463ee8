"""Maps and people that were changed by a known amount, and folders whose montages follow their guides or do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage.metrics import structural_similarity

from preprocess.people.skeleton import JOINTS
from synccontrol.errors import ConfigError, InputError
from synccontrol.evaluate import control
from synccontrol.evaluate import control as keypoints
from synccontrol.evaluate.dataset import open_gallery
from synccontrol.evaluate.measurement import Settings

SIDE = 64
SETTINGS = Settings(window=SIDE, offline=True, groups=("control",), draws=50)


@pytest.mark.parametrize(
    ("shift", "tolerance", "f1"), [(0, 0, 1), (1, 2, 1), (2, 2, 1), (3, 2, 0), (3, 3, 1), (1, 0, 0)]
)
def test_edges_within_the_tolerance_are_correct(shift: int, tolerance: int, f1: float) -> None:
    wanted = np.zeros((20, 40), bool)
    wanted[:, 20] = True
    assert control.edge_f1(np.roll(wanted, shift, axis=1), wanted, tolerance) == f1


def test_edge_f1_counts_missing_and_extra_edges() -> None:
    wanted = np.zeros((20, 60), bool)
    wanted[:, [10, 30]] = True
    found = np.zeros_like(wanted)
    found[:, [10, 40, 50]] = True  # one of two is there, one of three is wanted
    assert control.edge_f1(found, wanted, 2) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert control.edge_f1(~wanted & False, wanted, 2) == 0
    assert control.edge_f1(~wanted & False, ~wanted & False, 2) == 1


def test_depth_of_another_scale_and_shift() -> None:
    wanted = np.random.default_rng(0).uniform(0, 255, (20, 30)).astype(np.float32)
    assert control.depth_rmse(wanted + 7, wanted) == pytest.approx(7)
    assert control.depth_rmse(control.fit_scale_and_shift(0.5 * wanted + 20, wanted), wanted) == pytest.approx(
        0, abs=1e-3
    )
    flat = np.zeros_like(wanted)
    assert control.depth_rmse(control.fit_scale_and_shift(flat, wanted), wanted) == pytest.approx(
        wanted.std(), rel=1e-5
    )


def test_ssim_agrees_with_another_library() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.uniform(0, 255, (64, 64)).astype(np.float32) for _ in range(2))
    other = 0.7 * one + 0.3 * other
    expected = structural_similarity(
        one.astype(float), other.astype(float), data_range=255, gaussian_weights=True, use_sample_covariance=False
    )
    assert control.ssim(one, other) == pytest.approx(expected, abs=0.01)
    assert control.ssim(one, one) == pytest.approx(1)


def crowd() -> np.ndarray:  # type: ignore[type-arg]
    """Return two people, 100 and 200 px high."""
    rng = np.random.default_rng(0)
    people = np.concatenate([rng.uniform(0, 1, (2, len(JOINTS), 2)), np.ones((2, len(JOINTS), 1))], axis=2)
    people[:, 0, :2], people[:, 1, :2] = (0, 0), (1, 1)
    people[..., :2] *= np.array([100, 200])[:, None, None]
    people[1, :, 0] += 400
    return people.astype(np.float32)


def test_joints_are_correct_up_to_a_tenth_of_the_height() -> None:
    wanted = crowd()
    for distance, share in ((9.9, 1.0), (15.0, 0.5), (20.1, 0.0)):
        found = wanted[::-1].copy()
        found[..., 0] += distance
        assert keypoints.pck(found, wanted) == share
    assert keypoints.pck(wanted[:1], wanted) == 0.5
    assert keypoints.pck(np.zeros((0, 18, 3), np.float32), wanted) == 0 == keypoints.oks(wanted[:0], wanted)
    assert np.isnan(keypoints.pck(wanted, wanted[:0])) and np.isnan(keypoints.oks(wanted, wanted[:0]))


def test_oks_of_a_known_shift() -> None:
    wanted = crowd()[:1]
    assert keypoints.oks(wanted, wanted) == 1
    moved = wanted.copy()
    knee = JOINTS.index("left knee")
    moved[0, knee, 0] += 30
    expected = (17 + np.exp(-(30**2) / (2 * 0.53 * 100**2 * (2 * 0.087) ** 2))) / 18  # COCO's sigma of a knee
    assert keypoints.oks(moved, wanted) == pytest.approx(expected, rel=1e-4)
    moved[0, knee, 2] = 0
    assert keypoints.oks(moved, wanted) == pytest.approx(17 / 18, rel=1e-5)


def test_a_detected_person_matches_one_target_only() -> None:
    table = np.array([[0.9, 0.8], [0.95, 0.1]], np.float32)
    assert keypoints.matches(table) == {1: 0, 0: 1}


def scene(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 12, 3), np.uint8)
    return Image.fromarray(blocks).resize((3 * SIDE, SIDE), Image.Resampling.NEAREST)


def save(path: Path, picture: Image.Image, **own: Any) -> None:
    info = PngInfo()
    if own:
        info.add_itxt("synccontrol", json.dumps(own))
    path.parent.mkdir(exist_ok=True)
    picture.save(path, pnginfo=info)


@pytest.fixture
def folders(tmp_path: Path) -> Settings:
    """Return settings for montages/, which are their guides in guides/; `b-7` names its guide in its settings."""
    save(tmp_path / "guides" / "a.png", scene(0))
    save(tmp_path / "guides" / "b.png", scene(1).resize((6 * SIDE, 2 * SIDE), Image.Resampling.NEAREST))
    save(tmp_path / "montages" / "a.png", scene(0))
    save(tmp_path / "montages" / "b-7.png", scene(1), guide="somewhere/b.png", control=["canny"])
    return SETTINGS.replace(guides=tmp_path / "guides", controls=("canny", "depth"))


def measured(settings: Settings) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    assert settings.guides is not None
    gallery = open_gallery(settings.guides.parent / "montages", settings)
    control.check(gallery, settings)
    figures, skipped = control.measure(gallery, settings, lambda line: None)
    return {figure.metric: figure for figure in figures}, skipped


def test_montages_equal_to_their_guides_score_best(folders: Settings) -> None:
    figures, skipped = measured(folders)
    assert not skipped and set(figures) == {"canny F1 (2 px)", "depth RMSE", "depth RMSE, fitted"}
    canny, depth = figures["canny F1 (2 px)"], figures["depth RMSE"]
    assert canny.values["a.png"] == 1 and canny.values["b-7.png"] > 0.8
    assert canny.bounds["the guide of another montage"] < canny.value
    assert depth.values["a.png"] == 0 < depth.bounds["the guide of another montage"]


def test_ready_maps_are_compared_as_they_are(folders: Settings) -> None:
    assert folders.guides is not None
    for name in "ab":
        save(folders.guides / f"{name}.canny.png", Image.new("RGB", (3 * SIDE, SIDE)))
    figures, skipped = measured(folders.replace(ready_maps=True, controls=("canny", "pose")))
    assert figures["canny F1 (2 px)"].value == 0  # the maps show no edges, the montages do
    assert skipped[0][0] == "pose" and "people cannot be detected" in skipped[0][1]


def test_controls_come_from_recorded_settings(folders: Settings) -> None:
    figures, _ = measured(folders.replace(controls=()))
    assert list(figures) == ["canny F1 (2 px)"] and list(figures["canny F1 (2 px)"].values) == ["b-7.png"]


def test_an_unreadable_guide_excludes_its_montage(folders: Settings) -> None:
    assert folders.guides is not None
    (folders.guides / "a.png").write_text("no picture")
    figures, skipped = measured(folders.replace(controls=("canny",)))
    assert list(figures["canny F1 (2 px)"].values) == ["b-7.png"]
    assert skipped[0][0] == "control of a.png" and "not an image" in skipped[0][1]
    save(folders.guides / "b.png", scene(1).crop((0, 0, SIDE, SIDE)))
    figures, skipped = measured(folders.replace(controls=("canny",)))
    assert not figures and "another aspect" in dict(skipped)["control of b-7.png"]


def test_rings_and_their_guides_are_read_as_rings(folders: Settings) -> None:
    """A turned ring is the same ring: it is only where it closes that a map read as a strip differs."""
    assert folders.guides is not None
    figures = []
    for turn in (0, SIDE // 2):
        for name, own in (("a", {"loop": True}), ("b-7", {"loop": True, "guide": "b.png"})):
            picture = Image.fromarray(np.roll(np.asarray(scene(0 if name == "a" else 1)), turn, axis=1))
            save(folders.guides / f"{name[0]}.png", picture)
            save(folders.guides.parent / "montages" / f"{name}.png", picture.point(lambda v: v // 2), **own)
        found, _ = measured(folders.replace(controls=("canny",)))
        figures.append(found["canny F1 (2 px)"].values)
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)


def test_guides_without_people_give_no_pose_figure(folders: Settings) -> None:
    figures, skipped = measured(folders.replace(controls=("pose",)))
    assert not figures and {why for _, why in skipped} == {"no guide shows a person"}


def test_missing_guides_are_named(folders: Settings) -> None:
    assert folders.guides is not None
    with pytest.raises(ConfigError, match="no control nonsense"):
        measured(folders.replace(controls=("nonsense",)))
    with pytest.raises(ConfigError, match="no detector 'nothing'"):
        measured(folders.replace(controls=("canny",), detectors=("nothing",)))
    (folders.guides / "b.png").unlink()
    figures, skipped = measured(folders)
    assert figures["depth RMSE"].n == 1 and skipped[0][0] == "control of b-7.png"
    (folders.guides / "a.png").rename(folders.guides / "c.png")
    with pytest.raises(InputError, match=r"there is no guide for a\.png"):
        measured(folders)
    gallery = open_gallery(folders.guides.parent / "montages", SETTINGS)
    assert control.measure(gallery, SETTINGS, lambda line: None) == (
        [],
        [("control", "needs the guides: name their folder with --guides")],
    )
