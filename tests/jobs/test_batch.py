"""Jobs, canvas sizes and failures of many guides."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from synccontrol import Montage
from synccontrol.config import Geometry, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, InputError, MemoryLimitError
from synccontrol.files.fitting import ASPECT_TOLERANCE
from synccontrol.jobs import batch
from synccontrol.jobs.plan import Job
from synccontrol.jobs.recipe import Recipe
from synccontrol.jobs.runtime import Request
from synccontrol.jobs.sizes import canvas_size

GEOMETRY = Geometry(window=(8, 8), cell=8, channels=4)
JOB = Job(guide=None, prompt="x", negative_prompt="", seed=0, output=Path("out"))
RECIPE = Recipe(
    request=Request(model="test", controls=(), controlnets=(), detectors=()),
    detectors=[],
    fit="exact",
    outside=(),
    sampling=SamplingConfig(steps=2),
    windows=WindowConfig(stride=4),
    sync=SyncConfig(weight=0.0),
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(40, 2000), st.integers(40, 2000), st.booleans())
def test_the_canvas_has_the_guides_aspect_and_room_for_a_window(width: int, height: int, loop: bool) -> None:
    windows = WindowConfig(stride=4, loop=loop)
    canvas_h, canvas_w = canvas_size(Image.new("L", (width, height)), JOB, windows, GEOMETRY)
    assert min(canvas_h, canvas_w) >= 64
    assert 64 in (canvas_h, canvas_w)
    slack = 4 / canvas_w if loop else 0  # half a cell
    assert abs(canvas_w / canvas_h * height / width - 1) < ASPECT_TOLERANCE + slack
    assert canvas_w % 8 == 0 or not loop


def test_one_given_side_sets_the_other() -> None:
    guide = Image.new("L", (600, 100))
    assert canvas_size(guide, dataclasses.replace(JOB, height=128), RECIPE.windows, GEOMETRY) == (128, 768)
    assert canvas_size(guide, dataclasses.replace(JOB, width=480), RECIPE.windows, GEOMETRY) == (80, 480)
    with pytest.raises(InputError, match="at least 13 pixels"):
        canvas_size(Image.new("L", (60, 10)), dataclasses.replace(JOB, height=100), RECIPE.windows, GEOMETRY)


def job_of(tmp_path: Path, guide: Image.Image, name: str, **changes: Any) -> Job:
    path = tmp_path / "guide.png"
    guide.save(path)
    return dataclasses.replace(JOB, guide=path, output=tmp_path / f"{name}.png", **changes)


def test_what_lies_beyond_a_padded_guide_is_each_maps_own(make_pipe: Callable[..., Any], tmp_path: Path) -> None:
    montage = Montage.from_pipe(make_pipe(controls=2))
    seen: list[tuple[int, int]] = []

    def detect(guide: Image.Image) -> Image.Image:
        seen.append(guide.size)
        return guide.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    guide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    recipe = dataclasses.replace(
        RECIPE,
        request=dataclasses.replace(RECIPE.request, controls=("canny", "depth")),
        fit="pad",
        outside=((0, 0, 0), None),
        detectors=[detect, detect],
    )
    notes: list[str] = []
    maps = (tmp_path / "a.canny.png", tmp_path / "a.depth.png")
    job = job_of(tmp_path, guide, "a", width=128, height=64, map_outputs=maps)
    batch.make(montage, job, recipe, note=notes.append)
    assert seen == [(64, 64)] * 2  # the guide alone is looked at
    assert len(notes) == 1 and "50% of the canvas's width lies outside" in notes[0]
    edges, depth = (np.asarray(Image.open(tmp_path / f"a.{name}.png")) for name in ("canny", "depth"))
    flipped = np.asarray(guide)[:, ::-1]
    assert np.array_equal(edges[:, 32:96], flipped) and np.array_equal(depth[:, 32:96], flipped)
    assert not edges[:, :32].any() and not edges[:, 96:].any()
    assert (depth[:, 96:] == flipped[:, -1:]).all() and (depth[:, :32] == flipped[:, :1]).all()
    again = dataclasses.replace(job, output=tmp_path / "b.png", control_maps=maps, map_outputs=())
    batch.make(montage, again, recipe, note=notes.append)
    assert len(notes) == 1  # the maps have the canvas's size by now
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "b.png")))


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown fit 'squash'; known: exact, crop, pad, stretch"):
        dataclasses.replace(RECIPE, fit="squash")


def test_running_out_of_memory_is_one_failed_picture(make_pipe: Callable[..., Any], tmp_path: Path) -> None:
    def greedy(images: Tensor, anchor: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    montage = Montage.from_pipe(make_pipe(controls=0))
    recipe = dataclasses.replace(RECIPE, sync=SyncConfig(objective=greedy))
    job = dataclasses.replace(JOB, width=96, height=64, output=tmp_path / "a.png")
    with pytest.raises(MemoryLimitError, match="try --sync-gradient x0, a larger --sync-shrink"):
        batch.make(montage, job, recipe)
    failures: list[Exception] = []
    made = batch.run(
        [job, dataclasses.replace(job, output=tmp_path / "b.png")],
        lambda one: batch.make(montage, one, recipe if one is job else dataclasses.replace(recipe, sync=RECIPE.sync)),
        lambda _, error: failures.append(error),
    )
    assert (made, len(failures)) == (1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_what_is_odd_about_a_map_is_said(make_pipe: Callable[..., Any], tmp_path: Path) -> None:
    montage = Montage.from_pipe(make_pipe(controls=1))
    recipe = dataclasses.replace(
        RECIPE,
        request=dataclasses.replace(RECIPE.request, controls=("canny",)),
        outside=((0, 0, 0),),
        detectors=[lambda guide: Image.new("RGB", guide.size)],
    )
    notes: list[str] = []
    batch.make(montage, job_of(tmp_path, Image.new("RGB", (96, 64)), "a"), recipe, note=notes.append)
    assert [note.split(":")[0] for note in notes] == ["canny"]
