"""One window of Z-Image is the stock pipeline's image; what it cannot do is refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Adapters, Montage, SamplingConfig, SyncConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import z_image as family
from synccontrol.families.z_image import MAX_PROMPT_TOKENS
from synccontrol.models import loader
from tests.families import tiny_additions
from tests.families.checkpoints_flow import CELL, CHANNELS, CONTROLNETS, WINDOW

PROMPT, NEGATIVE = "a red hill", "fog"
STEPS = 6
SIZE = WINDOW * CELL  # px
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # of the latents' deviation; rotations are in float32 always
OFF = SyncConfig(weight=0.0).complete()
MapMaker = Callable[..., Image.Image]


def load(folder: Path, control: str | None, dtype: torch.dtype = torch.float64) -> Any:
    """Return a pipeline of a tiny checkpoint, loaded as any other."""
    pipe = loader.load(str(folder), [control] if control else [], dtype=dtype, offline=True)
    if hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = WINDOW  # of Qwen-Image, whose configuration does not say it
    return pipe


def noise(dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(1, CHANNELS, WINDOW, WINDOW, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stock(pipe: Any, guidance: float, control_map: Image.Image | None, **options: Any) -> Tensor:
    """Return the stock pipeline's final latents, at the levels that are even in float64."""
    control = {"control_image": control_map} if control_map is not None else {}
    found: Tensor = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        height=SIZE,
        width=SIZE,
        sigmas=np.linspace(1.0, 1 / STEPS, STEPS).tolist(),
        num_inference_steps=STEPS,
        guidance_scale=guidance - 1,
        latents=noise(torch.float32),
        output_type="latent",
        **control,
        **options,
    ).images
    return found


def draw(pipe: Any, guidance: float, control_map: Image.Image | None, size: int = SIZE, **options: Any) -> Any:
    """Return an image of one window."""
    return Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        height=size,
        width=size,
        negative_prompt=NEGATIVE,
        latents=noise(),
        sampling=SamplingConfig(steps=STEPS, guidance_scale=guidance, **options).complete(),
        sync=OFF,
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("control", [None, *CONTROLNETS])
def test_one_window_is_the_stock_pipeline(
    z_image: Path, make_map: MapMaker, control: str | None, guidance: float, dtype: torch.dtype
) -> None:
    control_map = make_map(SIZE, SIZE) if control else None
    scale = {"controlnet_conditioning_scale": 0.8} if control else {}
    theirs = stock(load(z_image, control, dtype), guidance, control_map, **scale)
    ours = draw(load(z_image, control, dtype), guidance, control_map, control_scale=0.8).latents
    assert ours.dtype == dtype
    assert (ours - theirs).abs().max() < TOLERANCE[dtype] * theirs.std()


def test_the_image_is_the_stock_image(z_image: Path, make_map: MapMaker) -> None:
    control_map = make_map(SIZE, SIZE)
    options = {"guidance_scale": 3.0, "num_inference_steps": STEPS, "controlnet_conditioning_scale": 1.0}
    theirs = load(z_image, "depth", torch.float32)(
        PROMPT,
        negative_prompt=NEGATIVE,
        control_image=control_map,
        height=SIZE,
        width=SIZE,
        latents=noise(torch.float32),
        **options,
    ).images[0]
    ours = draw(load(z_image, "depth", torch.float32), 4.0, control_map).image
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def test_prompts_and_control_have_an_effect(z_image: Path, make_map: MapMaker) -> None:
    pipe, control_map = load(z_image, "depth"), make_map(SIZE, SIZE)
    base = draw(pipe, 4.0, control_map).latents
    others = [
        draw(pipe, 4.0, make_map(SIZE, SIZE, seed=1)),
        draw(pipe, 4.0, control_map, control_scale=0.5),
        draw(pipe, 1.0, control_map),
        draw(pipe, 4.0, None),
        Montage.from_pipe(pipe)(
            "the sea",
            control_map,
            height=SIZE,
            width=SIZE,
            latents=noise(),
            sampling=SamplingConfig(steps=STEPS).complete(),
        ),
    ]
    for other in others:
        assert (other.latents - base).abs().max() > 0.01 * base.std()


def test_the_control_starts_and_ends(z_image: Path, make_map: MapMaker) -> None:
    """Outside its steps the ControlNet is not asked; inside, it is as if it were there all the time."""
    pipe, asked = load(z_image, "depth"), []
    pipe.controlnet.register_forward_pre_hook(lambda *_: asked.append(1))
    draw(pipe, 4.0, make_map(SIZE, SIZE), control_start=1 / STEPS, control_end=4 / STEPS)
    assert len(asked) == 3
    whole = draw(pipe, 4.0, make_map(SIZE, SIZE), control_start=0.0, control_end=1.0).latents
    assert torch.equal(draw(pipe, 4.0, make_map(SIZE, SIZE)).latents, whole)
    nothing = draw(pipe, 4.0, make_map(SIZE, SIZE), control_scale=0.0).latents
    assert torch.equal(nothing, draw(pipe, 4.0, None).latents)


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "unipc"])
def test_every_flow_scheduler_ends_at_the_same_image(z_image: Path, scheduler: str) -> None:
    pipe = load(z_image, None)

    def at(steps: int, name: str) -> Tensor:
        sampling = SamplingConfig(steps=steps, guidance_scale=2.0, scheduler=name).complete()
        found: Tensor = Montage.from_pipe(pipe)(
            PROMPT, height=SIZE, width=SIZE, latents=noise(), sampling=sampling, sync=OFF
        ).latents
        return found

    truth = at(200, "model")
    few, many = ((at(steps, scheduler) - truth).square().mean().sqrt() for steps in (10, 60))
    assert many < 0.05 * truth.std()
    assert many < 0.5 * few


@pytest.mark.parametrize("size", [(SIZE, SIZE + 1), (SIZE + 37, SIZE + 100), (2 * SIZE + CELL, SIZE)])
def test_any_image_size_is_exact(z_image: Path, make_map: MapMaker, size: tuple[int, int]) -> None:
    """Also where the canvas has an odd number of cells: windows are what is cut into patches, wherever they lie."""
    height, width = size
    result = Montage.from_pipe(load(z_image, "canny", torch.float32))(
        PROMPT, make_map(width, height), sampling=SamplingConfig(steps=1, guidance_scale=1.0).complete(), sync=OFF
    )
    assert result.image.size == (width, height)


def test_several_controls_are_rejected(z_image: Path) -> None:
    with pytest.raises(ModelError, match="Z-Image takes one ControlNet, and 2 are named"):
        loader.load(str(z_image), ["canny", "depth"], offline=True)


def test_guess_mode_is_rejected(z_image: Path, make_map: MapMaker) -> None:
    with pytest.raises(ConfigError, match="no guess mode"):
        draw(load(z_image, "depth"), 4.0, make_map(SIZE, SIZE), guess_mode=True)


@pytest.mark.parametrize("option", [{"clip_skip": 1}, {"guidance_rescale": 0.7}], ids=str)
@pytest.mark.parametrize("checkpoint", ["z_image", "qwen_image"])
def test_clip_only_settings_are_rejected(
    request: pytest.FixtureRequest, checkpoint: str, option: dict[str, Any]
) -> None:
    pipe = load(request.getfixturevalue(checkpoint), None)
    with pytest.raises(ConfigError, match=r"this model has no (clip skip|guidance rescale); leave it out"):
        draw(pipe, 4.0, None, **option)


@pytest.mark.parametrize("checkpoint", ["z_image", "qwen_image"])
def test_encoded_prompts(request: pytest.FixtureRequest, checkpoint: str) -> None:
    montage = Montage.from_pipe(load(request.getfixturevalue(checkpoint), None))
    options = {"height": SIZE, "width": SIZE, "latents": noise(), "sync": OFF}
    options["sampling"] = SamplingConfig(steps=2, guidance_scale=4.0).complete()
    words = montage(PROMPT, negative_prompt=NEGATIVE, **options).latents
    states = [montage.denoiser._encode(text, str)[None] for text in (PROMPT, NEGATIVE)]
    given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), states, strict=True))
    assert torch.equal(montage(**given, **options).latents, words)
    with pytest.raises(ConfigError, match="with any number of tokens"):
        montage(prompt_embeds=states[0][..., 1:], **options)


@pytest.mark.parametrize("checkpoint", ["z_image", "qwen_image"])
def test_loras_are_loaded_and_ip_adapters_rejected(
    request: pytest.FixtureRequest, tmp_path: Path, checkpoint: str
) -> None:
    folder = request.getfixturevalue(checkpoint)

    def latents(pipe: Any) -> Tensor:
        if hasattr(pipe, "default_sample_size"):
            pipe.default_sample_size = WINDOW  # of Qwen-Image, whose configuration does not say it
        options = {"sampling": SamplingConfig(steps=2, guidance_scale=4.0).complete(), "sync": OFF, "latents": noise()}
        drawn: Tensor = Montage.from_pipe(pipe)(PROMPT, height=SIZE, width=SIZE, **options).latents
        return drawn

    pipe = load(folder, None, torch.float32)
    before = latents(pipe)
    file = tiny_additions.save_lora(pipe, tmp_path, "transformer")
    styled = loader.load(str(folder), [], adapters=Adapters(lora=(f"{file}:0.5",)), offline=True)
    pipe.load_lora_weights(str(file), adapter_name="style")
    pipe.set_adapters(["style"], [0.5])
    assert torch.equal(latents(styled), latents(pipe))
    assert (latents(styled) - before).abs().max() > 1e-3 * before.std()
    with pytest.raises(ModelError, match="takes no IP-Adapter"):
        Montage.from_pretrained(str(folder), adapters=Adapters(ip_adapter=str(file)), offline=True)


@pytest.mark.parametrize("checkpoint", ["z_image", "qwen_image"])
def test_another_autoencoder_by_name(request: pytest.FixtureRequest, tmp_path: Path, checkpoint: str) -> None:
    folder = str(request.getfixturevalue(checkpoint))
    plain = Montage.from_pretrained(folder, offline=True).denoiser
    x0 = noise(torch.float32)
    with plain.session(), torch.no_grad():
        before = plain.decode(x0)
        decoder = plain.pipe.vae.decoder
        (getattr(decoder, "conv_out", None) or decoder.norm_out).weight.data.zero_()
        plain.pipe.vae.save_pretrained(tmp_path)
        after = plain.decode(x0)
    other = Montage.from_pretrained(folder, adapters=Adapters(vae=str(tmp_path)), offline=True).denoiser
    with other.session(), torch.no_grad():
        assert torch.equal(other.decode(x0), after)
    assert not torch.allclose(before, after)
    assert (
        len(list(loader.blank(folder, [], [], torch.float32, True, Adapters(vae=str(tmp_path))).vae.parameters())) > 0
    )


def test_windows_of_partial_patches_are_rejected(z_image: Path) -> None:
    pipe = load(z_image, None)
    pipe.vae.register_to_config(sample_size=7 * CELL)
    with pytest.raises(ModelError, match="windows of 7x7 cells cannot be cut into patches of 2x2"):
        Montage.from_pipe(pipe)


def test_an_autoencoder_of_another_model_is_rejected(z_image: Path) -> None:
    pipe = load(z_image, None)
    pipe.vae = diffusers.AutoencoderKL(latent_channels=4, sample_size=WINDOW)
    with pytest.raises(ModelError, match="takes 16 channels and the autoencoder has 4"):
        Montage.from_pipe(pipe)


def test_unused_negative_prompts_are_noted(z_image: Path) -> None:
    pipe = load(z_image, None, torch.float32)
    once = SamplingConfig(steps=1).complete()
    result = Montage.from_pipe(pipe)("x" * MAX_PROMPT_TOKENS, height=SIZE, width=SIZE, sampling=once, sync=OFF)
    assert any(f"of which the model reads {MAX_PROMPT_TOKENS}: it ends after 'xxxx'" in note for note in result.notes)
    assert any("negative prompt does nothing" in note for note in draw(pipe, 1.0, None).notes)
    assert draw(pipe, 4.0, None).notes == ()


def test_sizes_come_from_the_configuration(z_image: Path) -> None:
    assert loader.geometry(str(z_image), offline=True) == Montage.from_pipe(load(z_image, None)).denoiser.geometry
    assert family.geometry(str(z_image)).window_px == (SIZE, SIZE)
    assert loader.defaults(str(z_image), offline=True).windows.stride == WINDOW * 5 // 8
