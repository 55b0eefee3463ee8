"""What `Montage` promises beyond the published algorithm: rings, anchors, dtypes, sizes, settings, errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, InputError, ModelError, OutputError, SyncControlError
from synccontrol.io.metadata import read_settings
from synccontrol.sampling import objectives
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.sampling.sync import Sync, SyncNetworks
from tests.conftest import CELL, WINDOW

STEPS = SamplingConfig(steps=3, guidance_scale=3.0).complete()
WINDOWS = WindowConfig(stride=WINDOW // 2).complete()
OFF = SyncConfig(weight=0.0).complete()


def colour(images: Tensor, anchor: Tensor) -> Tensor:
    return ((images.mean(dim=(2, 3)) - anchor.mean(dim=(2, 3))) ** 2).sum(dim=1)


@pytest.fixture(scope="module")
def montage(make_pipe: Callable[..., Any]) -> Montage:
    return Montage.from_pipe(make_pipe(controls=1))


def test_a_rolled_ring_gives_the_rolled_ring(
    montage: Montage, make_map: Callable[..., Image.Image], make_noise: Callable[..., Tensor]
) -> None:
    w, shift = 4 * WINDOW, WINDOW // 2
    noise, guide = make_noise(WINDOW, w), make_map(w * CELL, WINDOW * CELL)
    rolled_guide = Image.fromarray(np.roll(np.asarray(guide), shift * CELL, axis=1))

    def draw(control_map: Image.Image, latents: Tensor, anchor: int) -> Tensor:
        sync = SyncConfig(objective=colour, weight=50.0, anchor=anchor).complete()
        windows = WindowConfig(stride=WINDOW // 2, loop=True).complete()
        return montage("x", control_map, latents=latents, sampling=STEPS, windows=windows, sync=sync).latents

    expected = draw(guide, noise, 3).roll(shift, dims=-1)
    assert torch.allclose(draw(rolled_guide, noise.roll(shift, dims=-1), 4), expected, atol=1e-8)
    open_ended = montage("x", guide, latents=noise, sampling=STEPS, windows=WINDOWS, sync=OFF).latents
    assert not torch.allclose(open_ended, draw(guide, noise, 3), atol=1e-2)


def test_a_ring_is_decoded_across_its_seam() -> None:
    montage = Montage.from_pretrained("tiny")  # its autoencoder sees neighbours only, so the test can be exact
    pixels = []
    for shift in (0, 24):
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(1, 8, 32, 48, generator=generator).roll(shift, dims=-1)
        settings = {
            "sampling": SamplingConfig(steps=1).complete(),
            "sync": OFF,
            "windows": WindowConfig(stride=8, loop=True).complete(),
        }
        result = montage("the sea", height=256, width=384, latents=latents, **settings)
        pixels.append(np.roll(np.asarray(result.image, dtype=int), -shift * 8, axis=1))
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(WINDOW * CELL, WINDOW * CELL), (65, 64), (71, 133), (128, 96)])
def test_any_image_size_is_exact(montage: Montage, height: int, width: int) -> None:
    result = montage("x", height=height, width=width, sampling=STEPS, windows=WINDOWS, sync=OFF)
    assert result.image.size == (width, height)
    assert result.latents.shape[-2:] == (-(-height // CELL), -(-width // CELL))


@pytest.mark.parametrize("gradient", ["full", "x0"])
@pytest.mark.parametrize(("step_size", "weight"), [("gradient", 20.0), ("rms", 60.0)])
def test_a_nudge_brings_every_window_closer_to_an_anchor_picture(gradient: str, step_size: str, weight: float) -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    z = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = colour(z, red)
    config = SyncConfig(objective=colour, weight=weight, gradient=gradient, step_size=step_size).complete()
    level = NoiseLevel(index=0, signal=1.0, noise=1.0, t=0.0)
    networks = SyncNetworks(decode=lambda x0: x0, encode=lambda picture: picture, kind="epsilon")
    pull = Sync(config, objectives.load(colour), red, networks, BatchedPredictor(2, print))
    nudged, known = pull.nudge(z, level, lambda z, _: 0.5 * z)
    assert known == {}
    assert torch.all(colour(nudged, red) < before)
    move = (nudged - z).pow(2).mean(dim=(1, 2, 3)).sqrt()
    if step_size == "rms":
        assert torch.allclose(move, torch.full((5,), 0.003 * weight), rtol=1e-4)
    else:  # d colour / d x0 = 2 (mean - anchor) / pixels; the networks in between halve it
        slope = 2 * (z.mean(dim=(2, 3)) * 0.5 - red.mean(dim=(2, 3))) / 64
        expected = weight * slope.pow(2).mean(dim=1).sqrt() * (0.5 if gradient == "full" else 1.0)
        assert torch.allclose(move, expected, rtol=1e-4)


def test_an_anchor_picture_moves_the_middle_window_too(montage: Montage) -> None:
    settings = {
        "height": 64,
        "width": 120,
        "sampling": SamplingConfig(steps=1).complete(),
        "windows": WindowConfig(stride=7).complete(),
    }
    red = SyncConfig(objective=colour, weight=1e5, steps=1, anchor=Image.new("RGB", (100, 80), (255, 0, 0))).complete()
    middle = SyncConfig(objective=colour, weight=1e5, steps=1).complete()
    off, to_red, to_middle = (montage("x", sync=config, **settings).latents for config in (OFF, red, middle))
    middle_only = slice(8, 15)  # cells that only the second of two windows covers, which is the middle one
    assert torch.allclose(off[..., middle_only], to_middle[..., middle_only], atol=1e-8)
    assert not torch.allclose(off[..., :7], to_middle[..., :7], atol=1e-2)
    assert not torch.allclose(off[..., middle_only], to_red[..., middle_only], atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_follows_float32(make_pipe: Callable[..., Any], dtype: torch.dtype) -> None:
    settings = {
        "height": 64,
        "width": 96,
        "sampling": STEPS,
        "windows": WINDOWS,
        "sync": SyncConfig(objective=colour, weight=20000.0).complete(),
    }
    full, half, off = (
        Montage.from_pipe(make_pipe(controls=0, dtype=kind))("x", **{**settings, **change}).latents.float()
        for kind, change in ((torch.float32, {}), (dtype, {}), (torch.float32, {"sync": OFF}))
    )
    error, effect = (full - half).abs().mean(), (full - off).abs().mean()
    assert error < 0.05 * full.std()
    assert effect > 2 * error  # the nudge is seen through the rounding, so its gradient has not underflowed


def test_shrinking_the_pictures_changes_what_the_objective_sees(montage: Montage) -> None:
    sizes = []

    def objective(images: Tensor, anchor: Tensor) -> Tensor:
        sizes.append((tuple(images.shape[-2:]), tuple(anchor.shape[-2:])))
        return colour(images, anchor)

    montage(
        "x",
        height=64,
        width=96,
        sampling=STEPS,
        windows=WINDOWS,
        sync=SyncConfig(objective=objective, shrink=4).complete(),
    )
    assert set(sizes) == {((16, 16), (16, 16))}


def test_the_callers_pipeline_is_left_as_it_was(make_pipe: Callable[..., Any]) -> None:
    pipe = make_pipe(controls=1)
    scheduler, embedding = pipe.scheduler, pipe.controlnet.controlnet_cond_embedding
    config = dict(scheduler.config)
    pipe.unet.requires_grad_(True)
    sampling = SamplingConfig(steps=2, scheduler="euler").complete()
    Montage.from_pipe(pipe)("x", Image.new("RGB", (64, 64)), sampling=sampling, windows=WINDOWS, sync=OFF)
    assert pipe.scheduler is scheduler
    assert dict(scheduler.config) == config
    assert scheduler.num_inference_steps is None
    assert pipe.controlnet.controlnet_cond_embedding is embedding
    assert all(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_steps_are_reported(montage: Montage) -> None:
    seen = []
    montage("x", height=64, width=96, sampling=STEPS, windows=WINDOWS, sync=OFF, on_step=lambda s: seen.append(s))
    assert [(step.index, step.steps) for step in seen] == [(0, 3), (1, 3), (2, 3)]
    assert seen[0].x_t.shape == (1, 4, 8, 12)


def test_a_strength_for_each_control(make_pipe: Callable[..., Any], make_map: Callable[..., Image.Image]) -> None:
    montage = Montage.from_pipe(make_pipe(controls=2))
    maps = [make_map(96, 64, seed) for seed in (0, 1)]

    def draw(*scale: float) -> Tensor:
        sampling = SamplingConfig(steps=2, control_scale=scale).complete()
        return montage("x", maps, sampling=sampling, windows=WINDOWS, sync=OFF).latents

    alone = Montage.from_pipe(make_pipe(controls=1))
    first = alone("x", maps[0], sampling=SamplingConfig(steps=2).complete(), windows=WINDOWS, sync=OFF).latents
    assert torch.allclose(draw(1.0, 0.0), first, atol=1e-8)
    assert not torch.allclose(draw(1.0, 1.0), first, atol=1e-3)


BAD = {
    "no size": ({}, ConfigError, "needs a height and a width"),
    "two maps for one ControlNet": ({"control_map": [Image.new("RGB", (64, 64))] * 2}, InputError, "2 control maps"),
    "map of another aspect": (
        {"control_map": Image.new("RGB", (64, 64)), "height": 64, "width": 96},
        InputError,
        "another aspect",
    ),
    "latents of another shape": ({"height": 64, "width": 96, "latents": torch.zeros(1, 4, 8, 8)}, ConfigError, "shape"),
    "two strengths for one ControlNet": (
        {"height": 64, "width": 96, "sampling": SamplingConfig(control_scale=(1.0, 1.0)).complete()},
        ConfigError,
        "2 values for 1 controls",
    ),
    "too many steps": (
        {"height": 64, "width": 96, "sampling": SamplingConfig(steps=2000).complete()},
        ConfigError,
        "cannot run 2000 steps; use 1000 at most",
    ),
    "a step too many": (
        {"height": 64, "width": 64, "sampling": SamplingConfig(steps=1000).complete()},
        ConfigError,
        "cannot run 1000 steps",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_line(montage: Montage, case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        montage("x", **{"windows": WINDOWS, **arguments})
    assert "\n" not in str(caught.value)


def test_a_pipeline_that_draws_no_pictures_from_text_is_refused(make_pipe: Callable[..., Any]) -> None:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    pipe = make_pipe(controls=0)
    edits = UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 8})  # as instruct-pix2pix
    broken = StableDiffusionPipeline(**{**pipe.components, "unet": edits}, requires_safety_checker=False)
    with pytest.raises(ModelError, match="takes 8 channels, so it is no text-to-image or inpainting model"):
        Montage.from_pipe(broken)
    with pytest.raises(ModelError, match="no model family serves dict"):
        Montage.from_pipe({})


def test_a_result_is_saved_with_its_settings_and_replaces_nothing(montage: Montage, tmp_path: Path) -> None:
    result = montage("x", height=64, width=96, sampling=STEPS, windows=WINDOWS, sync=OFF, seed=5)
    result.save(tmp_path / "a.png")
    stored = read_settings(tmp_path / "a.png")
    assert stored == json.loads(json.dumps(result.config))
    assert (stored["seed"], stored["prompt"], stored["device"], stored["dtype"]) == (5, "x", "cpu", "float64")
    with pytest.raises(OutputError, match="exists"):
        result.save(tmp_path / "a.png")
    result.save(tmp_path / "a.png", overwrite=True)
    with pytest.raises(ConfigError, match=r"saved as PNG.*name the file .*b\.png"):
        result.save(tmp_path / "b.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_map_may_be_an_array_a_tensor_or_a_picture_of_any_mode(montage: Montage) -> None:
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    maps = [Image.fromarray(grey), deep, grey, torch.from_numpy(grey), [torch.from_numpy(grey) / 255.0]]
    first, *others = [
        montage("x", map_, sampling=SamplingConfig(steps=1).complete(), windows=WINDOWS, sync=OFF).latents
        for map_ in maps
    ]
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generator": torch.Generator()}, r"no argument generator; use seed=0"),
        ({"num_inference_steps": 5}, r"no argument num_inference_steps; use sampling=SamplingConfig\(steps"),
        ({"num_images_per_prompt": 2}, "one call for each seed"),
        ({"colour": 2}, "has no argument colour"),
        ({"width": 512.0, "height": 64}, "width is 512.0; it must be a whole number"),
        ({"prompt": None, "width": 64, "height": 64}, "prompt"),
        ({"prompt": ["a", "b"], "width": 64, "height": 64}, "prompt"),
        ({"seed": -1, "width": 64, "height": 64}, "seed"),
        ({"control_map": "guide.png"}, r"PIL\.Image\.open"),
        ({"control_map": [1, 2]}, "image"),
        ({"sampling": {"steps": 5}, "width": 64, "height": 64}, "SamplingConfig"),
        ({"latents": np.zeros((1, 4, 8, 8)), "width": 64, "height": 64}, "latents are ndarray"),
        (
            {"sync": SyncConfig(objective="stlpips", shrink=64).complete(), "width": 96, "height": 64},
            "sync shrink 64 leaves 1 px .* use at most 2",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(montage: Montage, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SyncControlError, match=message) as caught:
        montage(**{"prompt": "x", "windows": WINDOWS, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"anchor": "photo.png"}, {"anchor": 1.5}, {"anchor": None}])
def test_an_anchor_is_middle_an_index_or_a_picture(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="anchor"):
        SyncConfig(**bad).complete()


def test_strengths_may_be_a_list() -> None:
    assert SamplingConfig(control_scale=[1.0, 0.5]).control_scale == (1.0, 0.5)


def test_one_window_needs_no_objective(montage: Montage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "load", lambda *_, **__: pytest.fail("the objective is loaded for nothing"))
    montage("x", height=64, width=64, sampling=STEPS, windows=WINDOWS, sync=SyncConfig(objective="lpips").complete())
    montage(
        "x",
        height=64,
        width=96,
        sampling=STEPS,
        windows=WINDOWS,
        sync=SyncConfig(objective="lpips", weight=0.0).complete(),
    )


def test_an_objective_sees_float32_at_least(make_pipe: Callable[..., Any]) -> None:
    seen = set()

    def objective(images: Tensor, anchor: Tensor) -> Tensor:
        seen.update({images.dtype, anchor.dtype})
        return colour(images, anchor)

    montage = Montage.from_pipe(make_pipe(controls=0, dtype=torch.float16))
    montage("x", height=64, width=96, sampling=STEPS, windows=WINDOWS, sync=SyncConfig(objective=objective).complete())
    assert seen == {torch.float32}


def test_an_anchor_picture_of_another_aspect_is_not_squashed(montage: Montage) -> None:
    wide = Image.new("RGB", (256, 64), (255, 0, 0))
    wide.paste((0, 0, 255), (96, 0, 160, 64))  # its middle
    settings = {"height": 64, "width": 96, "sampling": SamplingConfig(steps=1).complete(), "windows": WINDOWS}

    def draw(anchor: Image.Image) -> Any:
        return montage("x", sync=SyncConfig(objective=colour, weight=1e4, anchor=anchor).complete(), **settings)

    found = draw(wide)
    assert torch.allclose(found.latents, draw(Image.new("RGB", (64, 64), (0, 0, 255))).latents, atol=1e-6)
    assert any("anchor" in note for note in found.notes)


def test_a_subclass_of_a_pipeline_is_served(make_pipe: Callable[..., Any]) -> None:
    from diffusers import StableDiffusionPipeline

    class Own(StableDiffusionPipeline):  # type: ignore[misc]
        """A pipeline of somebody's own."""

    pipe = make_pipe(controls=0)
    own = Own(**pipe.components, requires_safety_checker=False)
    settings = {"height": 64, "width": 96, "sampling": STEPS, "windows": WINDOWS, "sync": OFF}
    expected = Montage.from_pipe(pipe)("x", **settings).latents
    assert torch.equal(Montage.from_pipe(own)("x", **settings).latents, expected)


def test_notes_say_what_the_model_does_not_hear(montage: Montage, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"height": 64, "width": 64, "windows": WINDOWS, "sync": OFF}
    long = montage("hill " * 20, sampling=STEPS, **settings)
    assert sum("tokens" in note for note in long.notes) == 1
    assert "truncated" not in caplog.text and "longer than" not in caplog.text
    unguided = montage(
        "x", negative_prompt="fog", sampling=SamplingConfig(steps=1, guidance_scale=1.0).complete(), **settings
    )
    assert any("negative prompt does nothing" in note for note in unguided.notes)
    assert montage("x", negative_prompt="fog", sampling=STEPS, **settings).notes == ()


def test_strengths_for_controls_that_have_no_map_do_nothing(make_pipe: Callable[..., Any]) -> None:
    settings = {"height": 64, "width": 96, "windows": WINDOWS, "sync": OFF}
    both, none = (
        Montage.from_pipe(make_pipe(controls=2))(
            "x", sampling=SamplingConfig(steps=1, **strengths).complete(), **settings
        ).latents
        for strengths in ({"control_scale": (1.0, 0.5), "control_end": (0.5, 1.0)}, {})
    )
    assert torch.equal(both, none)
