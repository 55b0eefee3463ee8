"""Rings, tall and many-rowed canvases and fitted guides, from the guide to the picture."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.batch.job import Job, Recipe
from synccontrol.batch.model_request import ModelRequest
from synccontrol.batch.worker import Worker
from synccontrol.canvas.flat import Layout
from synccontrol.cli import main
from synccontrol.io import images
from synccontrol.io.metadata import read_settings
from tests.conftest import CELL, WINDOW

OFF = SyncConfig(weight=0.0).complete()
STEP = SamplingConfig(steps=1).complete()
RING = WindowConfig(stride=WINDOW // 2, loop=True).complete()


def blocks(width: int, height: int) -> np.ndarray:
    """Returns a picture (height, width, 3) of random blocks, 16 px wide and high."""
    colours = np.random.default_rng(0).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return colours.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


@pytest.fixture(scope="module")
def montage(make_pipe: Callable[..., Any]) -> Montage:
    return Montage.from_pipe(make_pipe(controls=1))


@pytest.fixture
def make(montage: Montage, tmp_path: Path) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Returns a function from a guide (H, W, 3) and changes of the recipe to its picture and its map of edges."""

    request = ModelRequest(model="test", controls=("canny",), controlnets=(), detectors=(), device="cpu")
    worker = Worker(request, montage=montage)

    def draw(guide: np.ndarray, loop: bool = False, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
        recipe = Recipe(request=request, sampling=STEP, windows=RING.replace(loop=loop), sync=OFF)
        path = tmp_path / "guide.png"
        Image.fromarray(guide).save(path)
        size = {name: changes.pop(name) for name in ("width", "height") if name in changes}
        outcome = worker.run(
            Job(
                guide=path,
                prompt="x",
                negative_prompt="",
                seed=0,
                output=tmp_path / "a.png",
                map_outputs=(tmp_path / "a.canny.png",),
                overwrite=True,
                recipe=replace(recipe, **changes),
                **size,
            )
        )
        assert not outcome.error
        return np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "a.canny.png"))

    return draw


def smooth_ring(cells: int, seed: int) -> Tensor:
    """Returns latents (1, 4, h, cells) that change slowly around a ring."""
    generator = np.random.default_rng(seed)
    x = np.arange(cells) * 2 * np.pi / cells
    waves = [np.cos(k * x + generator.uniform(0, 2 * np.pi, (4, 1, 1))) for k in range(3)]
    return torch.from_numpy(sum(generator.normal(size=(4, WINDOW, 1)) * wave for wave in waves))[None]


@pytest.mark.parametrize("cells", [32, 29])
def test_a_decoder_that_works_in_tiles_closes_the_ring(make_pipe: Callable[..., Any], cells: int) -> None:
    vae = make_pipe(controls=0).vae
    vae.enable_tiling()
    layout = Layout(height=WINDOW, width=cells, window=(WINDOW, WINDOW), stride=WINDOW // 2, loop=True)

    def decode(x0: Tensor) -> Tensor:
        with torch.no_grad():
            return vae.decode(x0, return_dict=False)[0]

    def step(picture: np.ndarray) -> float:
        values = picture.astype(float)
        return float(np.abs(values[:, 0] - values[:, -1]).mean() / np.abs(np.diff(values, axis=1)).mean())

    rings = [smooth_ring(cells, seed) for seed in range(6)]
    size = CELL, WINDOW * CELL, cells * CELL
    assert np.mean([step(layout.decode(x0, decode, *size)) for x0 in rings]) < 1.3
    margin = WINDOW // 2
    wrapped = [decode(torch.cat([x0[..., -margin:], x0, x0[..., :margin]], dim=-1)) for x0 in rings]
    cut = [np.asarray(images.to_pil(picture[..., margin * CELL : -margin * CELL])) for picture in wrapped]
    assert np.mean([step(picture) for picture in cut]) > 1.6


SHAPES = {
    "tall_canvas": (64, 256, False),
    "tall, no whole windows": (64, 200, False),
    "several rows": (160, 136, False),
    "a ring of several rows": (128, 192, True),
    "a tall ring of one window": (64, 192, True),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_canvases_of_every_shape_follow_their_guide(make: Callable[..., Any], shape: str) -> None:
    width, height, loop = SHAPES[shape]
    size = {"width": width, "height": height, "loop": loop}
    guide = blocks(width, height)
    free, _ = make(guide, sampling=STEP.replace(control_scale=0.0), **size)
    led, edges = make(guide, **size)
    assert free.shape == led.shape == edges.shape == (height, width, 3)
    changed = (free != led).any(axis=2)
    corners = [changed[top : top + 64, left:][:, :64] for top in range(0, height, 64) for left in (0, width - 64)]
    assert min(corner.mean() for corner in corners) > 0.03  # the control acts in every window
    by_guide, _ = make(guide, loop=loop)
    assert min(by_guide.shape[:2]) == 64  # the shorter side is one window


def test_control_maps_of_a_loop_are_rings(make: Callable[..., Any]) -> None:
    ring = blocks(256, 64)
    rolled = np.roll(ring, 48, axis=1)  # a step of colour now lies in the join
    assert np.array_equal(np.roll(make(ring, loop=True)[1], 48, axis=1), make(rolled, loop=True)[1])
    assert not np.array_equal(make(rolled)[1], make(rolled, loop=True)[1])


def test_a_map_of_another_size_is_resized_as_a_ring(montage: Montage) -> None:
    ring = blocks(512, 128)
    noise = torch.randn(1, 4, 8, 32, generator=torch.Generator().manual_seed(0))
    settings = {"height": 64, "width": 256, "sampling": STEP, "windows": RING, "sync": OFF}
    latents = [
        montage("x", Image.fromarray(np.roll(ring, shift, axis=1)), latents=rolled, **settings).latents
        for shift, rolled in ((0, noise), (64, noise.roll(4, dims=-1)))
    ]
    assert torch.allclose(latents[0].roll(4, dims=-1), latents[1], atol=1e-8)


def test_a_changed_aspect_is_said_and_repeated(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(blocks(256, 64)).save("wide.png")

    def run(*flags: str) -> tuple[int, str, str]:
        return main.main(list(flags)), *capsys.readouterr()

    flags = ["--model", str(checkpoint), "--control", "canny", "--controlnet", str(checkpoint / "controlnet-canny")]
    flags += ["--guide", "wide.png", "--width", "128", "--height", "64", "--steps", "1", "--sync-weight", "0"]
    status, _, err = run(*flags, "--stride", "4")
    assert status == 2
    assert "or --fit crop, pad or stretch" in err and err.count("\n") == 1
    status, _, err = run(*flags, "--stride", "4", "--fit", "crop", "--loop")
    assert status == 2 and "would not close" in err
    status, _, err = run(*flags, "--fit", "squash")
    assert status == 2 and "known: exact, crop, pad, stretch" in err
    status, out, _ = run(*flags, "--stride", "4", "--fit", "stretch", "--dry-run")
    assert status == 0 and "stretched to 0.50 times its width" in out
    status, out, err = run(*flags, "--stride", "4", "--fit", "crop", "--output", "a.png")
    assert (status, out) == (0, "a.png\n")
    assert (
        "a.png: the guide is 256x64, another aspect than the canvas of 128x64: 50% of its width is cut off (--fit crop)"
        in err.replace("\r", "\n").splitlines()
    )
    assert read_settings(Path("a.png"))["fit"] == "crop"
    assert run("--settings", "a.png", "--output", "b.png", "--quiet") == (0, "b.png\n", "")
    assert np.array_equal(np.asarray(Image.open("b.png")), np.asarray(Image.open("a.png")))
