"""Whatever diffusers has loaded into a pipeline is used as it is: one window is what that pipeline draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from tests.conftest import CELL, CHANNELS, FEATURES, WINDOW, PipeFactory
from tests.families import tiny_additions, tiny_sdxl
from tests.families.test_sdxl import assert_different, assert_same

SIZE = WINDOW * CELL  # px
STEPS = 4
NoiseMaker = Callable[..., Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("loaded"))


@pytest.fixture(params=["sd", "sdxl"])
def pipe(request: pytest.FixtureRequest, folder: Path, make_pipe: PipeFactory) -> Any:
    return make_pipe(0, torch.float32) if request.param == "sd" else tiny_sdxl.load(folder, 0)


@pytest.fixture
def noise(make_noise: NoiseMaker) -> Tensor:
    return make_noise(WINDOW, WINDOW, dtype=torch.float32)


def stock(pipe: Any, noise: Tensor, prompt: str = "a hill", output: str = "latent", **options: Any) -> Any:
    """Return what the stock pipeline draws."""
    told = {"guidance_scale": 7.5, "num_inference_steps": STEPS, "height": SIZE, "width": SIZE, **options}
    return pipe(prompt, latents=noise, output_type=output, **told).images


def montage(
    pipe: Any, noise: Tensor, prompt: str = "a hill", told: dict[str, Any] | None = None, **sampling: Any
) -> Any:
    """Return the result of a canvas of one window, by the pipeline's own scheduler."""
    return Montage.from_pipe(pipe)(
        prompt,
        **(told or {}),
        height=SIZE,
        width=SIZE,
        latents=noise,
        seed=5,
        sampling=SamplingConfig(**{"steps": STEPS, **sampling}).complete(),
        windows=WindowConfig(stride=WINDOW // 2).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    )


def test_textual_inversion_words(pipe: Any, noise: Tensor) -> None:
    before = montage(pipe, noise, "a <h>").latents
    second = getattr(pipe, "text_encoder_2", None)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pairs = [(pipe.tokenizer, pipe.text_encoder, FEATURES)]
        if second is not None:
            pairs.append((pipe.tokenizer_2, second, tiny_sdxl.SECOND_FEATURES))
        for tokenizer, encoder, features in pairs:
            vectors = torch.randn(7, features)
            pipe.load_textual_inversion(vectors, token="<h>", tokenizer=tokenizer, text_encoder=encoder)
    result = montage(pipe, noise, "a <h>")
    assert_same(result.latents, stock(pipe, noise, "a <h>"))
    assert_different(result.latents, before)
    assert not any("tokens" in text for text in result.notes)
    long = montage(pipe, noise, "a <h> <h>").notes  # seven tokens each, of twelve
    assert any("the model reads 12 at once: it is read in 3 parts" in text for text in long)


def test_loras_with_weights(pipe: Any, noise: Tensor, tmp_path: Path) -> None:
    before = montage(pipe, noise).latents
    tiny_additions.save_lora(pipe, tmp_path)
    pipe.load_lora_weights(tmp_path, adapter_name="style")
    drawn = []
    for weight in (1.0, 0.3):
        pipe.set_adapters(["style"], [weight])
        drawn.append(montage(pipe, noise).latents)
        assert_same(drawn[-1], stock(pipe, noise))
    pipe.fuse_lora()
    assert_same(montage(pipe, noise).latents, drawn[1])
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert_same(montage(pipe, noise).latents, before)
    assert_different(drawn[0], before)
    assert_different(drawn[1], drawn[0])


def test_another_autoencoder(pipe: Any, noise: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        four = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
        pipe.vae = AutoencoderTiny(**four, latent_channels=CHANNELS, num_encoder_blocks=(1,) * 4).eval()
    (theirs,) = stock(pipe, noise, output="pil")
    ours = montage(pipe, noise).image
    assert ours.size == theirs.size == (SIZE, SIZE)
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def test_classes_derived_from_a_pipeline(folder: Path, noise: Tensor) -> None:
    class Mine(StableDiffusionXLPipeline):
        pass

    pipe = tiny_sdxl.load(folder, 0)
    mine = Mine(**pipe.components)
    mine.set_progress_bar_config(disable=True)
    assert_same(montage(mine, noise).latents, stock(pipe, noise))


def test_turbo_models(pipe: Any, noise: Tensor) -> None:
    """No guidance, few steps, timesteps that begin at the last one, and noise in every step."""
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    theirs = stock(pipe, noise, guidance_scale=0.0, generator=torch.Generator().manual_seed(5))
    assert_same(montage(pipe, noise, guidance_scale=1.0).latents, theirs)


def test_guidance_distilled_models(folder: Path, noise: Tensor) -> None:
    pipe = tiny_sdxl.load(folder, 0)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        pipe.register_modules(unet=tiny_sdxl.unet(time_cond_proj_dim=8).eval())
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    theirs = stock(pipe, noise, guidance_scale=4.0, generator=torch.Generator().manual_seed(5))
    ours = montage(pipe, noise, guidance_scale=4.0).latents
    assert_same(ours, theirs)
    assert_different(montage(pipe, noise, guidance_scale=8.0).latents, ours)


def test_a_safety_checker_that_is_not_run_is_noted(make_pipe: PipeFactory, noise: Tensor) -> None:
    pipe = make_pipe(0, torch.float32)
    assert not montage(pipe, noise).notes
    config = CLIPConfig(
        vision_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
        projection_dim=8,
    )
    pipe.register_modules(safety_checker=StableDiffusionSafetyChecker(config), feature_extractor=CLIPImageProcessor())
    assert any("safety checker is not run" in note for note in montage(pipe, noise).notes)
