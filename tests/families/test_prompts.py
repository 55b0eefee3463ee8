"""Prompts as people write them: weights, long texts, layers left out, encoded prompts, words that mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compel import CompelForSD, CompelForSDXL
from torch import Tensor

from preprocess.hub import quiet_libraries
from synccontrol import Montage, SamplingConfig, SyncConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import prompt_weights
from synccontrol.families.prompt_weights import Phrase
from tests.conftest import FEATURES, TOKENS, WINDOW, PipeFactory
from tests.families import tiny_sdxl
from tests.families.test_loaded_pipelines import montage, stock
from tests.families.test_sdxl import assert_different, assert_same

LONG = "a hill. a lake. no fog at all, and snow"
NEGATIVE = "fog"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(params=["sd", "sdxl"])
def pipe(request: pytest.FixtureRequest, folder: Path, make_pipe: PipeFactory) -> Any:
    return make_pipe(0, torch.float32) if request.param == "sd" else tiny_sdxl.load(folder, 0)


@pytest.fixture
def noise(make_noise: Callable[..., Tensor]) -> Tensor:
    return make_noise(WINDOW, WINDOW, dtype=torch.float32)


def by_compel(pipe: Any, prompt: str, negative: str) -> dict[str, Tensor]:
    """Return what compel, with its own syntax, gives a stock pipeline; pooled states are the pipeline's own."""
    with quiet_libraries():
        if not hasattr(pipe, "text_encoder_2"):
            found = CompelForSD(pipe)(prompt, negative)
            return {"prompt_embeds": found.embeds, "negative_prompt_embeds": found.negative_embeds}
        found = CompelForSDXL(pipe)(prompt, negative_prompt=negative)
        words = prompt.replace("(", "").replace(")1.3", "").replace(")0.5", "")
        _, _, pooled, negative_pooled = pipe.encode_prompt(words, negative_prompt=negative)
    return {
        "prompt_embeds": found.embeds,
        "negative_prompt_embeds": found.negative_embeds,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a hill", [("a hill", 1.0)]),
        ("", [("", 1.0)]),
        ("a (red:1.3) hill", [("a ", 1.0), ("red", 1.3), (" hill", 1.0)]),
        ("(a (red: .5) hill:2)", [("a ", 2.0), ("red", 1.0), (" hill", 2.0)]),
        ("((red:1.5):2)", [("red", 3.0)]),
        (r"a (hill) \(red:1.3\), (", [("a (hill) (red:1.3), (", 1.0)]),
        (r"(a \(hill\):1.2)", [("a (hill)", 1.2)]),
        ("at 12:30) (:1.2)", [("at 12:30) ", 1.0)]),
        ("a hill (red:1)", [("a hill red", 1.0)]),
        ("half \\ (red:-1)", [("half \\ (red:-1)", 1.0)]),
    ],
)
def test_weights_are_read(prompt: str, said: list[tuple[str, float]]) -> None:
    assert prompt_weights.parse_prompt(prompt) == [Phrase(*part) for part in said]


def test_plain_prompts_are_what_the_pipeline_makes_of_them(pipe: Any) -> None:
    denoiser = Montage.from_pipe(pipe).denoiser
    for prompt in ("", "a hill", "a (hill)"):
        theirs = pipe.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        assert torch.equal(denoiser._encode_text(prompt, note=str).states, theirs[0])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (LONG, LONG),
        ("a (hi:1.3)", "a (hi)1.3"),
        ("a (hi:0.5)", "a (hi)0.5"),
        (f"(hi:1.3) {LONG}", f"(hi)1.3 {LONG}"),
    ],
)
def test_long_and_weighted_prompts(pipe: Any, noise: Tensor, ours: str, theirs: str) -> None:
    result = montage(pipe, noise, ours, told={"negative_prompt": NEGATIVE})
    assert_same(result.latents, stock(pipe, noise, None, **by_compel(pipe, theirs, NEGATIVE)))
    assert any("in 4 parts" in note or "in 5 parts" in note for note in result.notes) == (LONG in ours)
    unweighted = montage(pipe, noise, "a hi", told={"negative_prompt": NEGATIVE})
    assert_different(result.latents, unweighted.latents)
    assert not unweighted.notes


def test_a_long_negative_prompt_beside_a_short_prompt(pipe: Any, noise: Tensor) -> None:
    ours = montage(pipe, noise, "a hi", told={"negative_prompt": LONG}).latents
    theirs = by_compel(pipe, "a hi", LONG)
    assert theirs["prompt_embeds"].shape == theirs["negative_prompt_embeds"].shape
    assert_same(ours, stock(pipe, noise, None, **theirs))


def test_no_negative_prompt_beside_a_long_prompt_is_zeros(folder: Path, noise: Tensor) -> None:
    pipe = tiny_sdxl.load(folder, 0)
    theirs = by_compel(pipe, LONG, NEGATIVE)
    theirs = {name: states for name, states in theirs.items() if not name.startswith("negative")}
    assert_same(montage(pipe, noise, LONG).latents, stock(pipe, noise, None, **theirs))


def test_layers_are_left_out(pipe: Any, noise: Tensor) -> None:
    ours = montage(pipe, noise, clip_skip=1).latents
    vars(pipe.text_encoder)["text_model"] = pipe.text_encoder  # where diffusers 0.42.1 looks for it
    assert_same(ours, stock(pipe, noise, clip_skip=1))
    assert_different(ours, montage(pipe, noise).latents)
    # what is weighted goes the other way through the encoder, and comes to the same
    hardly = montage(pipe, noise, "a (hill:1.0000001)", clip_skip=1).latents
    assert_same(hardly, ours)
    with pytest.raises(ConfigError, match=r"clip skip is 9; .* have [12] layers to leave out"):
        montage(pipe, noise, clip_skip=9)


def test_guidance_is_rescaled(pipe: Any, noise: Tensor) -> None:
    ours = montage(pipe, noise, guidance_rescale=0.7).latents
    assert_same(ours, stock(pipe, noise, guidance_rescale=0.7))
    assert_different(ours, montage(pipe, noise).latents)
    unguided = montage(pipe, noise, guidance_scale=1.0, guidance_rescale=0.7)
    assert any("guidance rescale does nothing" in note for note in unguided.notes)


def test_encoded_prompts(pipe: Any, noise: Tensor) -> None:
    given = by_compel(pipe, "a hill", NEGATIVE)
    result = montage(pipe, noise, "", told=given)
    assert_same(result.latents, stock(pipe, noise, "a hill", negative_prompt=NEGATIVE))
    assert result.config["prompt"] == result.config["negative_prompt"] == "<embeddings>"
    encoders = [name for name in ("text_encoder", "text_encoder_2") if hasattr(pipe, name)]
    pipe.register_modules(**dict.fromkeys(encoders))  # they are no longer needed
    assert_same(montage(pipe, noise, "", told=given).latents, result.latents)
    with pytest.raises(ModelError, match="no text encoder; give prompt_embeds and negative_prompt_embeds"):
        montage(pipe, noise, "a hill")


def test_prompt_embeddings_of_other_shapes_are_rejected(pipe: Any, noise: Tensor) -> None:
    given = by_compel(pipe, "a hill", NEGATIVE)
    for wrong in (
        {"prompt_embeds": given["prompt_embeds"][0]},
        {**given, "prompt_embeds": torch.zeros(1, TOKENS, FEATURES - 1)},
        {"negative_pooled_prompt_embeds": torch.zeros(1, tiny_sdxl.POOLED)},
        {**given, "prompt_embeds": torch.cat([given["prompt_embeds"]] * 2, 1)[:, :-1]},
    ):
        with pytest.raises(ConfigError, match=r"embeddings|_embeds"):
            montage(pipe, noise, "", told=wrong)
    with pytest.raises(ConfigError, match="give either a prompt, or prompt_embeds"):
        montage(pipe, noise, "a hill", told=given)


def test_unknown_words_of_the_bundled_model_are_noted() -> None:
    tiny = Montage.from_pretrained("tiny", offline=True)
    options = {
        "height": 256,
        "width": 256,
        "sampling": SamplingConfig(steps=1).complete(),
        "sync": SyncConfig(weight=0.0).complete(),
    }
    result = tiny("a castle in the (snow-capped mountains:1.2), 4k", negative_prompt="Dragons!", **options)
    assert result.notes == (
        "the model was never taught 'castle', and may show anything for it",
        "the model was never taught 'dragons', and may show anything for it",
    )
    assert not tiny("snow-capped mountains, (alpine) lake at dusk.", **options).notes
