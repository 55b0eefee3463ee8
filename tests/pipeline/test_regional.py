"""Regions in whole pictures: prompts, strengths and sync of their own, each window predicted no oftener than needed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, Region, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.canvas.base import Merger
from synccontrol.canvas.flat import Layout
from synccontrol.errors import ConfigError
from synccontrol.sampling import objectives
from synccontrol.sampling.anchors import region_anchors
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel, prediction_for
from synccontrol.sampling.region_mix import RegionMix
from synccontrol.sampling.sync import Sync, SyncNetworks
from tests.conftest import CELL, WINDOW

LEVEL = NoiseLevel(index=0, signal=0.3, noise=0.95, t=900.0)
STEPS = SamplingConfig(steps=3, guidance_scale=3.0).complete()
WINDOWS = WindowConfig(stride=WINDOW // 2).complete()
OFF = SyncConfig(weight=0.0).complete()
HALVES = [Region.parse("0-50%: a red hill | soft: 0"), Region.parse("50-100%: a blue sea | soft: 0")]


def colour(images: Tensor, anchor: Tensor) -> Tensor:
    return ((images.mean(dim=(2, 3)) - anchor.mean(dim=(2, 3))) ** 2).sum(dim=1)


@pytest.fixture(scope="module")
def montage(make_pipe: Callable[..., Any]) -> Montage:
    return Montage.from_pipe(make_pipe(controls=1))


@pytest.mark.parametrize("rows", [1, 2])
def test_a_region_that_covers_everything_is_the_plain_picture(
    montage: Montage, make_map: Callable[..., Image.Image], make_noise: Callable[..., Tensor], rows: int
) -> None:
    guide, noise = make_map(24 * CELL, rows * WINDOW * CELL), make_noise(rows * WINDOW, 24)
    sync = SyncConfig(weight=200.0, steps=2, adain=1.0, adain_steps=2, shared_style=0.7, objective=colour).complete()
    given: dict[str, Any] = {"latents": noise, "sampling": STEPS, "windows": WINDOWS, "sync": sync}
    plain = montage("a red hill", guide, negative_prompt="fog", **given).latents
    regions = [Region(area="0-100%", prompt="a red hill")]
    assert torch.allclose(montage("", guide, negative_prompt="fog", regions=regions, **given).latents, plain, atol=1e-8)
    assert not torch.allclose(montage("", guide, regions=HALVES, **given).latents, plain, atol=1e-2)


def test_far_from_its_border_a_region_is_the_picture_of_its_prompt(
    montage: Montage, make_noise: Callable[..., Tensor]
) -> None:
    given: dict[str, Any] = {"height": 64, "width": 512, "latents": make_noise(8, 64), "windows": WINDOWS, "sync": OFF}
    given["sampling"] = SamplingConfig(steps=1, guidance_scale=3.0).complete()  # in one step nothing is passed on
    mixed = montage("dawn", regions=HALVES, negative_prompt="fog", **given).latents
    left, right = (montage(f"{region.prompt}, dawn", negative_prompt="fog", **given).latents for region in HALVES)
    assert torch.allclose(mixed[..., :24], left[..., :24], atol=1e-8)
    assert torch.allclose(mixed[..., -24:], right[..., -24:], atol=1e-8)
    assert not torch.allclose(left, right, atol=1e-3)
    own = [replace(HALVES[0], negative_prompt="trees"), HALVES[1]]
    changed = montage("dawn", regions=own, negative_prompt="fog", **given).latents
    wanted = montage("a red hill, dawn", negative_prompt="trees, fog", **given).latents
    assert torch.allclose(changed[..., :24], wanted[..., :24], atol=1e-8)
    assert torch.allclose(changed[..., -24:], right[..., -24:], atol=1e-8)


def test_a_region_has_a_strength_of_control_of_its_own(
    montage: Montage, make_map: Callable[..., Image.Image], make_noise: Callable[..., Tensor]
) -> None:
    guide = make_map(512, 64)
    given: dict[str, Any] = {"latents": make_noise(8, 64), "windows": WINDOWS, "sync": OFF}
    one = SamplingConfig(steps=1, guidance_scale=3.0, control_scale=0.8).complete()
    free = [replace(HALVES[0], control_scale=0.0), HALVES[1]]
    mixed = montage("", guide, regions=free, sampling=one, **given).latents
    uncontrolled = montage("a red hill", guide, sampling=one.replace(control_scale=0.0), **given).latents
    controlled = montage("a blue sea", guide, sampling=one, **given).latents
    assert torch.allclose(mixed[..., :24], uncontrolled[..., :24], atol=1e-8)
    assert torch.allclose(mixed[..., -24:], controlled[..., -24:], atol=1e-8)
    assert not torch.allclose(uncontrolled[..., -24:], controlled[..., -24:], atol=1e-2)


@pytest.mark.parametrize("changes", [{"loop": True}, {"projection": "equirectangular"}])
def test_rings_and_spheres_have_regions(montage: Montage, changes: dict[str, Any]) -> None:
    windows = WindowConfig(stride=4, **changes).complete()
    found = montage(
        "dawn",
        regions=[Region.parse("75-25%: a red hill")],
        height=128,
        width=256,
        sampling=STEPS,
        windows=windows,
        sync=OFF,
    )
    assert found.image.size == (256, 128)
    assert found.config["region"] == ["75-25%: a red hill"]


def test_a_window_is_predicted_once_for_every_region_it_touches() -> None:
    layout = Layout(height=4, width=16, window=(4, 4), stride=2)
    shares = torch.zeros(1, 2, 4, 16, dtype=torch.float64)
    shares[:, 0, :, :6], shares[:, 1, :, 6:] = 1, 1
    seen = layout.crop_image(shares, 1, range(7))
    asked: list[tuple[int, tuple[int, ...]]] = []

    def condition(region: int, windows: Sequence[int]) -> Predict:
        def predict(z: Tensor, level: NoiseLevel, views: Sequence[int]) -> Tensor:
            asked.append((region, tuple(windows[view] for view in views)))
            return torch.full_like(z, region + 1.0)

        return predict

    predict = RegionMix(seen, condition)
    z = torch.zeros(7, 3, 4, 4, dtype=torch.float64)
    merged = Merger(layout, "uniform", z)(predict(z, LEVEL, range(7)))
    assert asked == [(0, (0, 1, 2)), (1, (2, 3, 4, 5, 6))]
    assert torch.equal(merged[0, 0, 0], torch.tensor([1.0] * 6 + [2.0] * 10, dtype=torch.float64))
    asked.clear()
    predict(z[3:4], LEVEL, [3])
    assert asked == [(1, (3,))]


def seen_halves(width: int, border: int) -> tuple[Layout, Tensor]:
    layout = Layout(height=8, width=width, window=(8, 8), stride=4)
    shares = torch.zeros(1, 2, 8, width, dtype=torch.float64)
    shares[:, 0, :, :border], shares[:, 1, :, border:] = 1, 1
    return layout, layout.crop_image(shares, 1, range(len(layout)))


def test_every_region_has_an_anchor_that_lies_in_it_and_that_of_the_middle_leads() -> None:
    layout, shares = seen_halves(32, 14)
    found = region_anchors("middle", layout, shares)
    assert layout.middle == 3 and found.windows == (1, 5) and found.leading == 5  # 3 lies over the border
    assert region_anchors(0, layout, shares).windows == (0, 5) and region_anchors(0, layout, shares).leading == 0
    assert region_anchors(Image.new("RGB", (8, 8)), layout, shares).leading is None


@pytest.mark.parametrize("across", [0.0, 0.5, 1.0])
def test_style_is_kept_within_a_region_and_crosses_as_far_as_is_asked(across: float) -> None:
    layout, shares = seen_halves(32, 14)
    n = len(layout)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64)
    x0[:2] += 5.0  # night, say
    anchors = region_anchors("middle", layout, shares)
    networks = SyncNetworks(decode=lambda z: z, encode=lambda z: z, kind="sample")
    config = SyncConfig(weight=0.0, adain=1.0, predict="once", shared_style=across).complete()
    sync = Sync(config, None, anchors.leading or 0, networks, BatchedPredictor(8, print), anchors)
    z = LEVEL.signal * x0

    def predict(some: Tensor, indices: Sequence[int]) -> Tensor:
        return torch.stack([prediction_for(z[j], x0[j], LEVEL, "sample") for j in indices])

    moved, _ = sync.nudge(z, LEVEL, predict)
    restyled = moved / LEVEL.signal
    own, leading = x0[anchors.windows[0]], x0[anchors.windows[1]]
    wanted = own.mean(dim=(1, 2)).lerp(leading.mean(dim=(1, 2)), across)
    torch.testing.assert_close(restyled[0].mean(dim=(1, 2)), wanted)
    torch.testing.assert_close(restyled[6].mean(dim=(1, 2)), leading.mean(dim=(1, 2)))  # of the leading region
    assert torch.equal(moved[anchors.windows[1]], z[anchors.windows[1]])
    # Over the border lies window 2: either side takes its own region's statistics.
    torch.testing.assert_close(restyled[2][:, :, :6].mean(dim=(1, 2)), wanted)


def test_the_objective_compares_within_a_region_only() -> None:
    layout, shares = seen_halves(32, 14)
    anchors = region_anchors("middle", layout, shares)
    x0 = torch.arange(7.0, dtype=torch.float64).reshape(7, 1, 1, 1).expand(7, 3, 8, 8)
    compared: list[tuple[float, float]] = []

    def objective(images: Tensor, anchor: Tensor) -> Tensor:
        compared.append((float(images.detach().mean()), float(anchor.mean())))
        return (images - anchor).square().mean(dim=(1, 2, 3))

    networks = SyncNetworks(decode=lambda z: z, encode=lambda z: z, kind="sample")
    config = SyncConfig(weight=1.0, gradient="x0", predict="once").complete()
    sync = Sync(config, objectives.load(objective), 3, networks, BatchedPredictor(8, print), anchors)
    sync.nudge(torch.zeros_like(x0).contiguous(), LEVEL, lambda some, indices: x0[list(indices)])
    assert sorted(compared) == [(0.0, 1.0), (2.0, 1.0), (3.0, 5.0), (4.0, 5.0), (6.0, 5.0)]


def test_encoded_prompts_and_other_things_are_no_regions(montage: Montage) -> None:
    size = {"height": 64, "width": 128}
    embeds = torch.zeros(1, 12, 16, dtype=torch.float64)
    with pytest.raises(ConfigError, match="regional prompts are texts and cannot be joined with embeddings"):
        montage(prompt_embeds=embeds, regions=HALVES, **size)
    with pytest.raises(ConfigError, match="a list of Region"):
        montage("x", regions="0-50%: x", **size)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the region map does nothing"):
        montage("x", region_map=Image.new("RGB", (128, 64)), **size)
