"""A model on several devices draws what it draws on one: replicas on the CPU, in float64."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, Region, SamplingConfig, SyncConfig, WindowConfig, families
from synccontrol.spec.settings import Img2ImgConfig, UpscaleConfig
from tests.conftest import CELL, WINDOW

HEIGHT, WIDTH = WINDOW * CELL, 3 * WINDOW * CELL  # px
WINDOWS = WindowConfig(stride=WINDOW // 2, batch=2).complete()  # five in all
OFF = SyncConfig(weight=0.0).complete()
PATIENCE = 30.0  # seconds until one who waits for another gives up
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "adain": {"sync": SyncConfig(weight=0.0, adain=1.0).complete()},
    "ring": {"windows": WindowConfig(stride=WINDOW // 2, batch=3, loop=True).complete()},
    "regions": {"regions": [Region.parse("0-40%: a red hill"), Region.parse("30-100%: a blue sea")]},
    "repainted": {"init_image": "map", "mask": "mask", "img2img": Img2ImgConfig(strength=0.7)},
    "upscaled": {"width": WIDTH // 2, "upscale": UpscaleConfig(upscale=2)},
}


def distance(images: Tensor, anchor: Tensor) -> Tensor:
    return (images - anchor).square().mean((1, 2, 3))


for gradient in ("x0", "full"):
    CASES[f"gradient {gradient}"] = {
        "sync": SyncConfig(objective=distance, weight=500.0, steps=1, gradient=gradient, predict="again").complete()
    }


def load(checkpoint: Path, device: str) -> Montage:
    return Montage.from_pretrained(str(checkpoint), ["depth"], device=device, dtype=torch.float64, offline=True)


@pytest.fixture(scope="module")
def one(checkpoint: Path) -> Montage:
    return load(checkpoint, "cpu")


@pytest.fixture(scope="module")
def two(checkpoint: Path) -> Montage:
    return load(checkpoint, "cpu,cpu")


@pytest.fixture(scope="module")
def draw(make_map: Callable[..., Image.Image]) -> Callable[..., Any]:
    """Return a function that draws a wide image with a montage."""
    mask = Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, (WIDTH // 3, 0, WIDTH, HEIGHT))
    pictures = {"map": make_map(WIDTH, HEIGHT, 1), "mask": mask}

    def drawn(montage: Montage, **options: Any) -> Any:
        given = {
            name: pictures.get(value, value) if isinstance(value, str) else value for name, value in options.items()
        }
        settings = {
            "sampling": SamplingConfig(steps=2).complete(),
            "windows": WINDOWS,
            "sync": OFF,
            "width": WIDTH,
            **given,
        }
        return montage("a red hill", make_map(settings["width"], HEIGHT), height=HEIGHT, **settings)

    return drawn


def unets(montage: Montage) -> list[Any]:
    return [replica.pipe.unet for replica in montage.denoiser.replicas]  # type: ignore[attr-defined]


@contextmanager
def before(montage: Montage, seen: Callable[[int, int], object]) -> Iterator[None]:
    """Calls a function before every call of the UNets: with the replica's number, and how many windows it predicts."""

    def hook(number: int, _: object, given: Any) -> None:
        seen(number, len(given[0]) // 2)

    with ExitStack() as stack:
        for number, unet in enumerate(unets(montage)):
            stack.callback(unet.register_forward_pre_hook(partial(hook, number)).remove)
        yield


@pytest.mark.parametrize("case", CASES)
def test_the_latents_are_those_of_one_device(one: Montage, two: Montage, draw: Callable[..., Any], case: str) -> None:
    calls: list[int] = []
    with before(two, lambda replica, _: calls.append(replica)):
        found = draw(two, **CASES[case])
    expected = draw(one, **CASES[case])
    assert (found.latents - expected.latents).abs().max() < 1e-12
    assert set(calls) == {0, 1}
    assert found.config["device"] == "cpu,cpu" and expected.config["device"] == "cpu"
    assert found.notes == expected.notes


def test_every_window_is_predicted_once_in_calls_of_at_most_the_batch_size(
    two: Montage, draw: Callable[..., Any]
) -> None:
    calls: list[tuple[int, int]] = []
    with before(two, lambda *call: calls.append(call)):
        draw(two, sampling=SamplingConfig(steps=1).complete())
    assert sorted(calls) == [(0, 1), (0, 2), (1, 2)]


def test_replicas_predict_at_the_same_time(two: Montage, draw: Callable[..., Any]) -> None:
    both = threading.Barrier(2)
    windows = WindowConfig(
        stride=WINDOW // 2, loop=True
    ).complete()  # of which there are as many as one call has on both
    with before(two, lambda *_: both.wait(PATIENCE)):
        draw(two, windows=windows, width=2 * WINDOW * CELL, sampling=SamplingConfig(steps=1).complete())
    assert not both.broken


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_of_a_replica_propagates_and_restores_the_model(
    two: Montage, draw: Callable[..., Any], broken: int
) -> None:
    embedders = [replica.pipe.controlnet.controlnet_cond_embedding for replica in two.denoiser.replicas]  # type: ignore[attr-defined]
    expected, error = draw(two), ValueError("a hook of the user's")
    done: list[int] = []

    def fail(replica: int, _: int) -> None:
        if replica == broken:
            raise error
        done.append(replica)

    with before(two, fail), pytest.raises(ValueError, match="a hook") as caught:
        draw(two)
    assert caught.value is error
    assert done == [1 - broken]
    assert [replica.pipe.controlnet.controlnet_cond_embedding for replica in two.denoiser.replicas] == embedders  # type: ignore[attr-defined]
    assert torch.equal(draw(two).latents, expected.latents)


def test_a_replica_out_of_memory_halves_the_batch(two: Montage, draw: Callable[..., Any]) -> None:
    sizes: list[int] = []

    def scarce(replica: int, windows: int) -> None:
        if replica == 1 and windows > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(windows)

    with before(two, scarce):
        found = draw(two)
    assert (found.latents - draw(two).latents).abs().max() < 1e-12
    assert set(sizes[1:]) == {1}
    assert "the device was out of memory: windows go 2 at a time from here on" in found.notes


def test_defaults_are_those_of_the_family(one: Montage, two: Montage) -> None:
    assert families.family_name(two.denoiser) == families.family_name(one.denoiser) == "sd"
    assert two.defaults == one.defaults


def test_every_replica_caches_prompts(checkpoint: Path, draw: Callable[..., Any]) -> None:
    montage, read = load(checkpoint, "cpu,cpu"), list[int]()
    expected = draw(montage).latents
    montage.denoiser.cache_prompts(4)
    for replica in montage.denoiser.replicas:  # type: ignore[attr-defined]
        replica.pipe.text_encoder.register_forward_hook(lambda *_: read.append(1))
    assert torch.equal(draw(montage).latents, expected) and len(read) == 4  # what is asked for, and what is not
    assert torch.equal(draw(montage).latents, expected) and len(read) == 4
