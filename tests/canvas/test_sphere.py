"""Equirectangular panoramas: views cover the sphere, match an independent projection, and merge without seams."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import py360convert
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.canvas import sphere
from synccontrol.canvas.base import Merger
from synccontrol.canvas.sphere import Sphere
from synccontrol.errors import ConfigError
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.loop import montage_steps
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.sampling.schedulers import SchedulerRun
from synccontrol.spec.settings import Geometry
from tests.conftest import WINDOW

TINY = Geometry(window=(32, 32), cell=8, channels=4)
SPHERE = WindowConfig(projection="equirectangular", stride=WINDOW // 2, weights="ramp").complete()
OFF = SyncConfig(weight=0.0).complete()


@pytest.fixture(scope="module")
def views() -> Sphere:
    return sphere.lay_out(512, 1024, TINY, 16)


def field(directions: Tensor) -> Tensor:
    """Return a smooth asymmetric function on the sphere, (c, ...), for directions (..., 3)."""
    x, y, z = (directions / directions.norm(dim=-1, keepdim=True)).unbind(-1)
    waves = [x + 0.5 * (3 * z * y).sin(), y - 0.7 * (4 * x + 2 * z).cos(), z * x + 0.3 * (5 * y - x).sin()]
    return torch.stack(waves)


def all_rays(views: Sphere) -> Tensor:
    """Return the directions (n, h, w, 3) of the cells of all views."""
    return torch.stack([views.rays(1, view) for view in range(len(views))])


def equirectangular(height: int) -> Tensor:
    """Return the field as an equirectangular image (1, 3, height, 2 height)."""
    latitude = math.pi * (0.5 - (np.arange(height) + 0.5) / height)
    longitude = math.pi * ((np.arange(2 * height) + 0.5) / height - 1)
    phi, lam = np.meshgrid(latitude, longitude, indexing="ij")
    directions = np.stack([np.cos(phi) * np.sin(lam), np.sin(phi), np.cos(phi) * np.cos(lam)], -1)
    return field(torch.from_numpy(directions))[None].float()


@pytest.mark.parametrize("height", [403, 450, 512, 800])
def test_views_cover_every_direction(height: int) -> None:
    layout = sphere.lay_out(height, 2 * height, TINY, 16)
    directions = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = torch.cat([directions, torch.tensor([[0.0, 1, 0], [0, -1, 0]], dtype=torch.float64)])
    right, up, ahead = layout.axes.unbind(1)
    half = math.atan(16 / (layout.width / (2 * math.pi)))
    horizontal, vertical, depth = (directions @ axis.T for axis in (right, up, ahead))
    is_covered = (
        (depth > 0) & (torch.atan2(horizontal, depth).abs() < half) & (torch.atan2(vertical, depth).abs() < half)
    )
    assert is_covered.any(dim=1).all()


def test_views_match_an_independent_projection(views: Sphere) -> None:
    image = equirectangular(256)
    crops = views.crop_image(image, 4, range(len(views)))
    half = math.atan(16 / views.focal)
    corner_to_corner = 2 * math.degrees(
        math.atan(math.tan(half) * 127 / 128)
    )  # the border pixels of py360convert lie on the edge
    array = image[0].permute(1, 2, 0).numpy()
    for (latitude, longitude), view in zip(views.centers, crops, strict=True):
        expected = py360convert.e2p(
            array, corner_to_corner, math.degrees(longitude), math.degrees(latitude), (128, 128)
        )
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).max() < 0.01


def test_the_middle_view_looks_straight_ahead(views: Sphere) -> None:
    assert views.centers[views.middle] == (0.0, 0.0)


def test_rotating_the_image_rotates_the_views(views: Sphere) -> None:
    image = torch.randn(1, 2, 64, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ring = [view for view, (latitude, _) in enumerate(views.centers) if latitude == 0]
    before, after = (views.crop_image(rolled, 1, ring) for rolled in (image, image.roll(128 // len(ring), -1)))
    assert torch.allclose(after, before.roll(1, 0), atol=1e-9)
    assert not torch.allclose(after, before, atol=0.1)


def test_crops_of_8_bit_images_equal_those_of_floats(views: Sphere) -> None:
    image = torch.randint(0, 256, (1, 3, 64, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(
        views.crop_image(image, 1, range(len(views))), views.crop_image(image / 255, 1, range(len(views)))
    )


def test_thin_lines_of_a_map_stay_visible(views: Sphere) -> None:
    canny = torch.zeros(1, 1, 512, 1024)
    canny[..., 96:, ::64] = 1
    canny[..., ::64, :] = 1
    level = [view for view, (latitude, _) in enumerate(views.centers) if abs(latitude) < 1]
    for view in views.crop_image(canny, 8, level):
        assert view.mean() > 0.7 * canny[..., 128:384, :].mean()  # as much white
        assert view.amax(dim=2).mean() > 0.7  # and bright, because every row crosses a line


def test_noise_in_a_view_is_white(views: Sphere) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = views.crop(torch.randn(1, 16, *views.shape, generator=generator))
    assert torch.allclose(noise.var(dim=(1, 2, 3)), torch.ones(len(views)), atol=0.06)
    inner = noise[:, :, 8:24, 8:24]
    for dim in (2, 3):
        first, second = inner.narrow(dim, 0, 15), inner.narrow(dim, 1, 15)
        assert (first * second).mean().abs() < 0.02


def test_two_cells_of_a_view_rarely_share_a_point(views: Sphere) -> None:
    def share_of_duplicates(cells: Tensor) -> float:
        return 1 - sum(len(view.unique()) for view in cells) / cells.numel()

    assert share_of_duplicates(views.nearest[:, 8:24, 8:24]) < 0.01
    assert (
        share_of_duplicates(views.nearest) < 0.18
    )  # a cell at the corner covers a third of the area of a central cell


def test_cells_take_the_nearest_points(views: Sphere) -> None:
    rays = all_rays(views)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    cosine = (views.points[views.nearest] * rays).sum(-1)
    farthest = math.pi / (1.2 * views.height)  # the spacing of points
    assert torch.arccos(cosine.clamp(-1, 1)).max() < farthest


@pytest.mark.parametrize("weights", ["uniform", "ramp", "gaussian"])
def test_merged_windows_and_the_residual_sum_to_the_canvas(views: Sphere, weights: str) -> None:
    canvas = field(views.points)[None, :, None]
    merge, windows = Merger(views, weights, canvas), views.crop(canvas)
    assert torch.allclose(merge(windows), canvas, atol=0.3)  # a point without a cell takes a neighbouring value
    assert (merge(windows) - canvas).abs().mean() < 2e-3  # 97 % of the points are exact
    assert torch.allclose(merge(windows) + merge.residual(canvas, windows), canvas, atol=1e-12)


def test_cell_weights_are_largest_in_the_middle_of_a_view(views: Sphere) -> None:
    assert (
        views.cell_weights.min()
        == views.cell_weights[0, 0]
        == pytest.approx((1 + 2 * (15.5 / views.focal) ** 2) ** -1.5)
    )
    assert views.cell_weights[16, 16] == views.cell_weights.max() <= 1


@pytest.mark.parametrize(
    ("solver", "prediction_type"),
    [
        (DDIMScheduler, "epsilon"),
        (DDIMScheduler, "v_prediction"),
        (DDIMScheduler, "sample"),
        (DPMSolverMultistepScheduler, "epsilon"),
    ],
)
def test_a_perfect_denoiser_reproduces_its_sphere(views: Sphere, solver: Any, prediction_type: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scheduler = solver(prediction_type=prediction_type, **({"clip_sample": False} if solver is DDIMScheduler else {}))
    run = SchedulerRun(scheduler, "model", 6, device=torch.device("cpu"), generator=generator)
    truth = field(all_rays(views)).transpose(0, 1).contiguous()

    def predict(z: Tensor, level: NoiseLevel, windows: Sequence[int]) -> Tensor:
        x0 = truth[list(windows)]
        eps = (z - level.signal * x0) / level.noise
        return {"epsilon": eps, "v_prediction": level.signal * eps - level.noise * x0, "sample": x0}[prediction_type]

    x_t = run.start(torch.randn(1, 3, *views.shape, generator=generator, dtype=torch.float64))
    merge, batches = Merger(views, "uniform", x_t), BatchedPredictor(4, print)
    for step in montage_steps(x_t, views, run, predict, merge, batches, None):
        x_t = step.x_t
    error = x_t[0, :, 0] - field(views.points)
    assert error.abs().max() < 0.25  # the field differs by this over half a cell
    assert error.pow(2).mean().sqrt() < 0.05


def test_stitching_views_restores_the_image(views: Sphere) -> None:
    image = equirectangular(128).clamp(-1, 1)
    crops: Iterator[Tensor] = iter(views.crop_image(image, 2, range(len(views))))
    stitched = views.decode(torch.zeros(1, 4, *views.shape), lambda _: next(crops)[None], 2, 128, 256)
    assert stitched.shape == (128, 256, 3) and stitched.dtype == np.uint8
    difference = torch.from_numpy(stitched).permute(2, 0, 1) / 127.5 - 1 - image[0]
    assert difference.abs().max() < 0.05
    assert difference.abs().mean() < 0.005  # 8 bit alone: 0.002


def test_views_are_decoded_in_smaller_tiles_on_request(views: Sphere) -> None:
    sizes = set()

    def decode(x0: Tensor) -> Tensor:
        sizes.add(tuple(x0.shape[-2:]))
        return x0[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)

    canvas = field(views.points)[None, :, None].float() / 2
    whole = views.decode(canvas, decode, 2, 128, 256)
    assert sizes == {views.window}
    parts = views.decode(canvas, decode, 2, 128, 256, tile=16)
    assert all(max(size) <= 16 for size in sizes - {views.window})
    assert np.array_equal(whole, parts)


@pytest.fixture(scope="module")
def panorama(make_pipe: Callable[..., Any]) -> np.ndarray:
    montage = Montage.from_pipe(make_pipe(controls=1, dtype=torch.float32))
    guide = Image.fromarray(((equirectangular(104)[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127).byte().numpy())
    result = montage(
        "x", guide, sampling=SamplingConfig(steps=3, guidance_scale=3.0).complete(), windows=SPHERE, sync=OFF
    )
    assert result.image.size == (208, 104)
    assert result.latents.shape[:3] == (1, 4, 1)
    assert result.config["projection"] == "equirectangular"
    return np.asarray(result.image, dtype=float)


def test_the_panorama_has_no_seam_at_its_ends_and_poles(panorama: np.ndarray) -> None:
    level = panorama[26:78]
    steps = np.abs(level - np.roll(level, 1, axis=1)).mean(axis=(0, 2))  # steps[0] is across the seam
    assert steps[0] <= np.percentile(steps[1:], 97)
    rows = np.abs(np.diff(panorama, axis=0)).mean(axis=(1, 2))
    for pole in (panorama[0], panorama[-1]):
        assert np.abs(pole - np.roll(pole, 104, axis=0)).mean() <= 1.5 * rows.max()


def test_the_whole_sphere_follows_the_map_and_the_seed(make_pipe: Callable[..., Any]) -> None:
    montage = Montage.from_pipe(make_pipe(controls=1, dtype=torch.float32))
    sync = SyncConfig(
        objective=lambda images, anchor: ((images - anchor) ** 2).mean(dim=(1, 2, 3)), steps=1, gradient="x0"
    ).complete()

    def generate(shade: int, seed: int = 0, batch: int = 1) -> Tensor:
        windows = WindowConfig(projection="equirectangular", stride=5, batch=batch).complete()
        guide = Image.new("RGB", (208, 104), (shade,) * 3)
        return montage(
            "x",
            guide,
            seed=seed,
            sampling=SamplingConfig(steps=1, guidance_scale=1.0).complete(),
            windows=windows,
            sync=sync,
        ).latents

    first = generate(0)
    assert torch.allclose(first, generate(0, batch=4), atol=1e-3)
    for other in (generate(255), generate(0, seed=1)):
        assert ((first - other).abs().amax(dim=1) > 1e-6).all()  # at every point


@pytest.mark.parametrize(
    ("height", "width", "stride", "message"),
    [
        (512, 1000, 16, "not 2:1.*use 1024x512"),
        (256, 512, 16, "use at least 806x403"),
        (512, 1024, 31, "leaves gaps.*use 16 or less"),
    ],
)
def test_invalid_sizes_raise_an_error_with_an_alternative(height: int, width: int, stride: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sphere.lay_out(height, width, TINY, stride)


def test_a_sphere_needs_no_loop() -> None:
    with pytest.raises(ConfigError, match="leave out the loop"):
        WindowConfig(loop=True, projection="equirectangular").complete()
    with pytest.raises(ConfigError, match="unknown projection 'cube'"):
        WindowConfig(projection="cube").complete()


def test_a_missing_side_follows_from_the_other() -> None:
    assert sphere.size(None, None, TINY) == (512, 1024)
    assert sphere.size(None, 1400, TINY) == (700, 1400)
    assert sphere.size(600, None, TINY) == (600, 1200)
