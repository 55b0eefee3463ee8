"""Z-Image in use: offloading, threads, what a session leaves as it was, the memory that a run is rehearsed to take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.flat import Layout
from synccontrol.families.base import WindowCondition
from synccontrol.models import loader
from synccontrol.sampling.noise_level import NoiseLevel
from tests.families.checkpoints_flow import CELL, CHANNELS, CONTROLNETS, WINDOW

HEIGHT, WIDTH = WINDOW * CELL, 3 * WINDOW * CELL  # px
LAYOUT = Layout(height=WINDOW, width=4 * WINDOW, window=(WINDOW, WINDOW), stride=WINDOW // 2)
MapMaker = Callable[..., Image.Image]


def distance(images: Tensor, anchor: Tensor) -> Tensor:
    """Return a squared distance, one per image."""
    return (images - anchor).square().mean((1, 2, 3))


def load(folder: Path, control: str | None = "depth", dtype: torch.dtype = torch.float32) -> Any:
    return loader.load(str(folder), [control] if control else [], dtype=dtype, offline=True)


def draw(montage: Montage, control_map: Image.Image | None, gradient: str = "x0", seed: int = 0, **options: Any) -> Any:
    settings = {
        "sampling": SamplingConfig(steps=3).complete(),
        "windows": WindowConfig(stride=WINDOW // 2, batch=2).complete(),
        "sync": SyncConfig(objective=distance, weight=300.0, steps=2, gradient=gradient).complete(),
    }
    return montage("a red hill", control_map, height=HEIGHT, width=WIDTH, seed=seed, **{**settings, **options})


@pytest.fixture(scope="module")
def control_map(make_map: MapMaker) -> Image.Image:
    return make_map(WIDTH, HEIGHT)


def test_two_threads_give_the_same_images_as_one_thread(z_image: Path, control_map: Image.Image) -> None:
    montage, kinds = Montage.from_pipe(load(z_image)), ("x0", "full")
    expected = [draw(montage, control_map, kinds[seed % 2], seed).latents for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda seed: draw(montage, control_map, kinds[seed % 2], seed).latents, range(4)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("control", CONTROLNETS)
def test_a_session_restores_the_model(z_image: Path, control_map: Image.Image, control: str) -> None:
    pipe = load(z_image, control)
    wanting = [
        parameter.requires_grad for module in (pipe.transformer, pipe.controlnet) for parameter in module.parameters()
    ]
    assert "gradient_checkpointing" not in vars(pipe.controlnet)
    montage = Montage.from_pipe(pipe)
    expected = draw(montage, control_map, "full").latents
    steps = montage.steps("x", control_map, height=HEIGHT, width=WIDTH, sync=SyncConfig(objective=distance).complete())
    next(steps)
    steps.close()
    assert "gradient_checkpointing" not in vars(pipe.controlnet)
    now = [
        parameter.requires_grad for module in (pipe.transformer, pipe.controlnet) for parameter in module.parameters()
    ]
    assert now == wanting
    assert torch.equal(draw(montage, control_map, "full").latents, expected)


@pytest.mark.parametrize("control", [None, *CONTROLNETS])
def test_gradients_may_be_checkpointed(z_image: Path, make_map: MapMaker, control: str | None) -> None:
    """What the transformer is told, which holds for its ControlNet too, changes the memory of sync and nothing else."""
    pipe, control_map = load(z_image, control), make_map(WIDTH, HEIGHT) if control else None
    before = set(vars(pipe.controlnet)) if control else set()
    montage = Montage.from_pipe(pipe)
    expected = draw(montage, control_map, "full").latents
    pipe.transformer.enable_gradient_checkpointing()
    assert torch.allclose(draw(montage, control_map, "full").latents, expected, atol=1e-5)
    assert set(vars(pipe.controlnet) if control else ()) == before
    assert rehearse(z_image, control, checkpointed=True).sync < 0.8 * rehearse(z_image, control).sync


def rehearse(folder: Path, control: str | None, checkpointed: bool = False) -> memory_estimate.MemoryEstimate:
    """Return the memory of an image, two windows in a call."""
    with memory_estimate.fake_mode():
        pipe = loader.blank(str(folder), [control] if control else [], [], torch.float64, offline=True)
        if checkpointed:
            pipe.transformer.enable_gradient_checkpointing()
        sync = SyncConfig(gradient="full").complete()
        return memory_estimate.estimate(
            families.wrap(pipe), LAYOUT, SamplingConfig().complete(), WindowConfig(batch=2).complete(), sync, None
        )


def test_nested_generation(z_image: Path, control_map: Image.Image) -> None:
    montage = Montage.from_pipe(load(z_image))
    expected = [draw(montage, control_map, "full", seed).latents for seed in (0, 1)]
    found: list[Tensor] = []

    def nested(*_: object) -> None:
        found.append(draw(montage, control_map, "full", 1).latents)

    assert torch.equal(draw(montage, control_map, "full", 0, on_step=nested).latents, expected[0])
    assert all(torch.equal(one, expected[1]) for one in found)


@pytest.mark.parametrize("gradient", ["full", "x0"])
def test_sequential_offloading_gives_the_same_image(z_image: Path, gradient: str) -> None:
    expected = draw(Montage.from_pipe(load(z_image, None)), None, gradient)
    pipe = load(z_image, None)
    for module in (pipe.transformer, pipe.vae, pipe.text_encoder):
        cpu_offload(module, execution_device="cpu", offload_buffers=len(module._parameters) > 0)
    assert next(pipe.transformer.parameters()).device.type == "meta"
    montage = Montage.from_pipe(pipe)
    assert montage.denoiser.offloaded
    assert torch.allclose(draw(montage, None, gradient).latents, expected.latents, atol=1e-4)
    assert next(pipe.transformer.parameters()).device.type == "meta"


@pytest.mark.parametrize("gradient", ["full", "x0"])
def test_model_offloading_moves_each_network_at_most_twice_a_step(
    z_image: Path, control_map: Image.Image, gradient: str
) -> None:
    """The control latents are all made before the first step, though the autoencoder is not called by its name."""
    expected = draw(Montage.from_pipe(load(z_image)), control_map, gradient)
    pipe, order, previous = load(z_image), [], None
    for name in pipe.model_cpu_offload_seq.split("->"):
        _, previous = cpu_offload_with_hook(getattr(pipe, name), "cpu", previous)
    cpu_offload_with_hook(pipe.controlnet, "cpu")
    pipe.transformer.register_forward_pre_hook(lambda *_: order.append("transformer"))
    for part in ("encoder", "decoder"):
        getattr(pipe.vae, part).register_forward_pre_hook(lambda *_, part=part: order.append(part))
    marks: list[int] = []
    found = draw(Montage.from_pipe(pipe), control_map, gradient, on_step=lambda _: marks.append(len(order)))
    assert torch.allclose(found.latents, expected.latents, atol=1e-4)
    assert "encoder" not in order[order.index("transformer") :]
    for start, end in zip([0, *marks], marks, strict=False):
        said = order[start:end]
        comings = Counter(name for name, before in zip(said, [None, *said], strict=False) if name != before)
        assert max(comings.values()) <= 2


@pytest.mark.parametrize("control", [None, *CONTROLNETS])
def test_the_memory_estimate_matches_the_real_networks(z_image: Path, control: str | None) -> None:
    found = rehearse(z_image, control)
    family = families.wrap(load(z_image, control, torch.float64))
    held = {id(part): part.nbytes for part in _tensors(family.pipe)}
    assert found.weights == sum(held.values())  # what the ControlNet shares with the transformer is there once
    blank = family.blank_prompt()
    views = [WindowCondition(window=window, prompt=blank, negative_prompt=blank) for window in range(2)]
    crops = [lambda some: torch.zeros(len(some), 3, HEIGHT, HEIGHT)] * (control is not None)
    with family.session(), torch.no_grad():
        predict = family.condition(views, crops, SamplingConfig().complete(), 50, str)
        z = torch.zeros(2, CHANNELS, WINDOW, WINDOW, dtype=torch.float64)
        level = NoiseLevel(index=0, signal=0.7, noise=0.7, t=500.0)
        predict(z, level, [0, 1])
        with memory_estimate.Live() as real:
            predict(z, level, [0, 1])
    assert found.sampling == pytest.approx(real.peak, rel=0.15)
    assert found.sync > 0
    assert found.decoding > 0


def _tensors(pipe: Any) -> list[Tensor]:
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return [tensor for module in modules for tensor in module.state_dict(keep_vars=True).values()]
