"""One model, many users: threads, cancelling, pictures inside pictures, offloading, memory that runs out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from accelerate.hooks import ModelHook, add_hook_to_module
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import MemoryLimitError
from synccontrol.sampling.batching import BatchedPredictor
from tests.conftest import CELL, WINDOW, PipeFactory

HEIGHT, WIDTH = WINDOW * CELL, 3 * WINDOW * CELL  # px
SAMPLING = SamplingConfig(steps=3).complete()
WINDOWS = WindowConfig(stride=WINDOW // 2, batch=2).complete()
PICTURES = 20  # a thread
MapMaker = Callable[..., Image.Image]


def distance(images: Tensor, anchor: Tensor) -> Tensor:
    """Returns a squared distance, one per picture."""
    return (images - anchor).square().mean((1, 2, 3))


def synced(gradient: str = "x0", **options: Any) -> SyncConfig:
    return SyncConfig(objective=distance, weight=500.0, steps=2, gradient=gradient, **options).complete()


def draw(montage: Montage, control_map: Image.Image | None, seed: int, **options: Any) -> Any:
    settings = {"sampling": SAMPLING, "windows": WINDOWS, "sync": synced(), **options}
    return montage("a red hill", control_map, height=HEIGHT, width=WIDTH, seed=seed, **settings)


@pytest.fixture
def montage(make_pipe: PipeFactory) -> Montage:
    return Montage.from_pipe(make_pipe(1, torch.float32))


@pytest.fixture(scope="module")
def control_map(make_map: MapMaker) -> Image.Image:
    return make_map(WIDTH, HEIGHT)


def state(pipe: Any) -> list[Any]:
    """Returns what a picture must leave as it was: modules by identity, and what wants gradients."""
    return [
        pipe.controlnet.controlnet_cond_embedding,
        pipe.scheduler,
        [parameter.requires_grad for parameter in pipe.unet.parameters()],
    ]


def test_two_threads_give_the_same_images_as_one_thread(montage: Montage, control_map: Image.Image) -> None:
    montage.denoiser.pipe.unet.requires_grad_(True)
    before = state(montage.denoiser.pipe)
    seeds = range(2 * PICTURES)
    expected = [draw(montage, control_map, seed, sync=synced(("x0", "full")[seed % 2])).latents for seed in seeds]
    together = threading.Barrier(2)

    def thread(own: Sequence[int]) -> list[Tensor]:
        together.wait()
        return [draw(montage, control_map, seed, sync=synced(("x0", "full")[seed % 2])).latents for seed in own]

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(thread, [seeds[:PICTURES], seeds[PICTURES:]]))
    for ours, theirs in zip([*halves[0], *halves[1]], expected, strict=True):
        assert torch.equal(ours, theirs)
    assert state(montage.denoiser.pipe) == before


def test_montages_that_share_a_network_take_turns(make_pipe: PipeFactory, control_map: Image.Image) -> None:
    pipe, alone = make_pipe(1, torch.float32), make_pipe(0, torch.float32)
    alone.unet = pipe.unet
    montages, maps = [Montage.from_pipe(pipe), Montage.from_pipe(alone)], [control_map, None]
    expected = [draw(montage, map_, 1).latents for montage, map_ in zip(montages, maps, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(lambda pair: [draw(*pair, 1).latents for _ in range(5)], zip(montages, maps, strict=True))
        )
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(one, theirs) for one in ours)


def test_nested_generation(montage: Montage, control_map: Image.Image) -> None:
    """From the loop over the steps, from `on_step`, and from the user's objective, which runs inside a session."""
    expected, other = draw(montage, control_map, 0).latents, draw(montage, control_map, 1).latents
    found: list[Tensor] = []

    def nested(*_: object) -> None:
        found.append(draw(montage, control_map, 1).latents)

    def curious(images: Tensor, anchor: Tensor) -> Tensor:
        if len(found) < 2:
            nested()
        return distance(images, anchor)

    outer = [draw(montage, control_map, 0, on_step=nested).latents]
    found.clear()
    outer.append(
        draw(montage, control_map, 0, sync=SyncConfig(**{**vars(synced()), "objective": curious}).complete()).latents
    )
    again = Montage.from_pipe(montage.denoiser.pipe)  # another montage around the same pipeline
    for step in montage.steps("a red hill", control_map, seed=0, sampling=SAMPLING, windows=WINDOWS, sync=synced()):
        found.append(draw(again, control_map, 1).latents)
        if step.result is not None:
            outer.append(step.result.latents)
    assert all(torch.equal(one, expected) for one in outer)
    assert len(found) == 2 + SAMPLING.steps
    assert all(torch.equal(one, other) for one in found)


@pytest.mark.parametrize("at", range(SAMPLING.steps))
def test_a_picture_cancelled_at_any_step_leaves_the_model_usable(
    montage: Montage, control_map: Image.Image, at: int
) -> None:
    before, expected = state(montage.denoiser.pipe), draw(montage, control_map, 3).latents
    steps = montage.steps("x", control_map, seed=9, sampling=SAMPLING, windows=WINDOWS, sync=synced())
    for step in steps:
        if step.index == at:
            break
    steps.close()
    assert state(montage.denoiser.pipe) == before
    assert torch.equal(draw(montage, control_map, 3).latents, expected)


def test_an_error_on_the_way_leaves_the_model_usable(montage: Montage, control_map: Image.Image) -> None:
    before, expected = state(montage.denoiser.pipe), draw(montage, control_map, 3).latents

    def broken(images: Tensor, anchor: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw(montage, control_map, 3, sync=SyncConfig(objective=broken).complete())
    assert state(montage.denoiser.pipe) == before
    assert torch.equal(draw(montage, control_map, 3).latents, expected)


def test_steps_preview_the_picture_that_is_coming(montage: Montage, control_map: Image.Image) -> None:
    steps = list(montage.steps("x", control_map, sampling=SAMPLING, windows=WINDOWS, sync=synced()))
    assert [(step.index, step.steps) for step in steps] == [(0, 3), (1, 3), (2, 3)]
    assert [step.preview(height=32).size for step in steps] == [(96, 32)] * 3
    assert [step.result is None for step in steps] == [True, True, False]
    final = steps[-1].result
    assert final is not None
    assert steps[-1].preview(HEIGHT).tobytes() == final.image.tobytes()
    first, last = (torch.tensor(list(step.preview(HEIGHT).tobytes())).float() for step in (steps[0], steps[-1]))
    assert not torch.equal(first, last)


def test_gradients_of_the_callers_thread_stay_on(montage: Montage, control_map: Image.Image) -> None:
    for _ in montage.steps("x", control_map, sampling=SAMPLING, windows=WINDOWS, sync=synced()):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("gradient", ["x0", "full"])
def test_sequential_offloading_gives_the_same_image(
    make_pipe: PipeFactory, control_map: Image.Image, gradient: str
) -> None:
    expected = draw(Montage.from_pipe(make_pipe(1, torch.float32)), control_map, 0, sync=synced(gradient))
    pipe = make_pipe(1, torch.float32)
    for module in (pipe.unet, pipe.controlnet, pipe.vae, pipe.text_encoder):
        cpu_offload(module, execution_device="cpu", offload_buffers=len(module._parameters) > 0)
    assert next(pipe.unet.parameters()).device.type == "meta"
    montage = Montage.from_pipe(pipe)
    assert montage.denoiser.offloaded
    found = draw(montage, control_map, 0, sync=synced(gradient))
    assert torch.allclose(found.latents, expected.latents, atol=1e-4)
    assert next(pipe.unet.parameters()).device.type == "meta"


@pytest.mark.parametrize("gradient", ["x0", "full"])
def test_model_offloading_moves_each_network_at_most_twice_a_step(
    make_pipe: PipeFactory, control_map: Image.Image, gradient: str
) -> None:
    expected = draw(Montage.from_pipe(make_pipe(1, torch.float32)), control_map, 0, sync=synced(gradient))
    pipe = make_pipe(1, torch.float32)
    order: list[str] = []
    previous = None
    for name in ("text_encoder", "unet", "vae"):  # diffusers' order, which leaves the ControlNet on the device
        _, previous = cpu_offload_with_hook(getattr(pipe, name), "cpu", previous)
        getattr(pipe, name).register_forward_pre_hook(lambda *_, name=name: order.append(name))
    cpu_offload_with_hook(pipe.controlnet, "cpu")
    pipe.vae.decode = _announced(pipe.vae.decode, order)
    montage = Montage.from_pipe(pipe)
    marks: list[int] = []
    found = draw(montage, control_map, 0, sync=synced(gradient), on_step=lambda _: marks.append(len(order)))
    assert torch.allclose(found.latents, expected.latents, atol=1e-4)
    for start, end in zip([0, *marks], marks, strict=False):
        comings = [
            name for name, before in zip(order[start:end], [None, *order[start:end]], strict=False) if name != before
        ]
        assert max(Counter(comings).values(), default=0) <= 2


class _Elsewhere(ModelHook):  # type: ignore[misc]
    """Brings a network from where it cannot compute, as a card is to what waits in memory: another dtype here."""

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        module.to(torch.float32)
        return args, kwargs


def test_an_offloaded_controlnet_comes_before_its_map_is_embedded(
    make_pipe: PipeFactory, control_map: Image.Image
) -> None:
    expected = draw(Montage.from_pipe(make_pipe(1, torch.float32)), control_map, 0)
    pipe = make_pipe(1, torch.float32)
    pipe.controlnet.controlnet_cond_embedding.to(torch.float64)
    add_hook_to_module(pipe.controlnet, _Elsewhere())
    found = draw(Montage.from_pipe(pipe), control_map, 0)
    assert torch.allclose(found.latents, expected.latents, atol=1e-4)


def _announced(decode: Callable[..., Any], order: list[str]) -> Callable[..., Any]:
    def announced(*args: Any, **kwargs: Any) -> Any:
        order.append("vae")
        return decode(*args, **kwargs)

    return announced


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    sizes, notes = [], []

    def predict(z: Tensor, windows: Sequence[int]) -> Tensor:
        sizes.append(len(z))
        if len(z) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return z + torch.tensor(windows).reshape(-1, 1, 1, 1)

    batches = BatchedPredictor(8, notes.append)
    found = batches.predict(predict, torch.zeros(10, 1, 2, 2), range(10))
    assert {window: float(one.mean()) for window, one in found.items()} == {window: window for window in range(10)}
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert batches.size == 2
    assert len(notes) == 2 and "2 at a time" in notes[1]


def test_out_of_memory_with_one_window_says_what_helps() -> None:
    def predict(z: Tensor, windows: Sequence[int]) -> Tensor:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with pytest.raises(MemoryLimitError, match="one window at a time; try"):
        BatchedPredictor(3, str).predict(predict, torch.zeros(3, 1, 2, 2), range(3))


def test_other_errors_of_the_networks_are_not_taken_for_memory() -> None:
    def predict(z: Tensor, windows: Sequence[int]) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        BatchedPredictor(3, str).predict(predict, torch.zeros(3, 1, 2, 2), range(3))


def _scarce(montage: Montage, cells: int) -> list[tuple[int, ...]]:
    """Lets the decoder of a montage run out of memory beyond so many cells; returns the sizes that it is asked for."""
    decode, asked = montage.denoiser.pipe.vae.decode, []

    def scarce(latents: Tensor, **options: Any) -> Any:
        asked.append(tuple(latents.shape[-2:]))
        if latents.shape[-1] > cells:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, **options)

    montage.denoiser.pipe.vae.decode = scarce
    return asked


def test_out_of_memory_while_decoding_tries_smaller_tiles() -> None:
    montage = Montage.from_pretrained("tiny")
    settings = {
        "height": 256,
        "width": 1024,
        "sampling": SamplingConfig(steps=1).complete(),
        "sync": SyncConfig(weight=0.0).complete(),
    }
    expected = montage("the sea", **settings)
    asked = _scarce(montage, cells=30)
    found = montage("the sea", **settings)
    assert asked[0][1] > 30 and max(width for _, width in asked[2:]) <= 30
    difference = torch.tensor(list(found.image.tobytes())) - torch.tensor(list(expected.image.tobytes()))
    assert difference.abs().max() <= 1
    assert any("tiles of" in note for note in found.notes)


def test_what_was_denoised_outlives_a_decoder_that_never_fits() -> None:
    montage = Montage.from_pretrained("tiny")
    settings = {
        "height": 256,
        "width": 512,
        "sampling": SamplingConfig(steps=1).complete(),
        "sync": SyncConfig(weight=0.0).complete(),
    }
    expected = montage("the sea", **settings)
    _scarce(montage, cells=0)
    with pytest.raises(MemoryLimitError, match="latents") as caught:
        montage("the sea", **settings)
    assert torch.equal(caught.value.latents, expected.latents)
