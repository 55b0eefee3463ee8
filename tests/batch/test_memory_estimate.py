"""The rehearsed footprint is that of the real networks, and grows with what makes a run grow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import memory
from synccontrol import families
from synccontrol.batch import memory_estimate
from synccontrol.batch.memory_estimate import MemoryEstimate
from synccontrol.canvas.flat import Layout
from synccontrol.families.base import WindowCondition
from synccontrol.models import loader
from synccontrol.sampling import objectives
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig

LAYOUT = Layout(height=8, width=32, window=(8, 8), stride=4)


def rehearse(
    checkpoint: Path,
    batch: int = 2,
    gradient: str | None = "full",
    layout: Layout = LAYOUT,
    dtype: torch.dtype = torch.float64,
    objective: str | None = None,
) -> MemoryEstimate:
    sync = None if gradient is None else SyncConfig(gradient=gradient).complete()
    distance = objectives.load(objective) if objective else None
    with memory_estimate.fake_mode():
        pipe = loader.blank(str(checkpoint), ["canny"], [], dtype, offline=True)
        windows = WindowConfig(batch=batch).complete()
        return memory_estimate.estimate(
            families.wrap(pipe), layout, SamplingConfig().complete(), windows, sync, distance
        )


def test_it_agrees_with_the_real_networks(checkpoint: Path, make_pipe: Callable[..., Any]) -> None:
    found = rehearse(checkpoint)
    family = families.wrap(make_pipe(controls=1, dtype=torch.float64))
    modules = [part for part in family.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert found.weights == sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
    views = [WindowCondition(window=window, prompt="x", negative_prompt="") for window in range(2)]
    with family.session(), torch.no_grad():
        h, w = family.geometry.window_px
        predict = family.condition(
            views, [lambda some: torch.zeros(len(some), 3, h, w)], SamplingConfig().complete(), 50, str
        )
        z, level = torch.zeros(2, 4, 8, 8, dtype=torch.float64), NoiseLevel(index=0, signal=0.7, noise=0.7, t=500.0)
        predict(z, level, [0, 1])
        with memory_estimate.Live() as real:
            predict(z, level, [0, 1])
        assert found.sampling == pytest.approx(real.peak, rel=0.1)
        with memory_estimate.Live() as real:
            family.decode(torch.zeros(1, 4, *LAYOUT.decode_shape, dtype=torch.float64))
        assert found.decoding == pytest.approx(real.peak, rel=0.02)


def test_it_grows_with_what_makes_a_run_grow(checkpoint: Path) -> None:
    small, large = rehearse(checkpoint, batch=1), rehearse(checkpoint, batch=4)
    assert large.sampling > 2 * small.sampling
    assert large.sync < 2 * small.sync  # one window at a time is compared, and goes back through the networks
    wide = rehearse(checkpoint, layout=Layout(height=8, width=640, window=(8, 8), stride=4))
    assert wide.decoding < 1.2 * small.decoding  # in strips, of about equal width
    assert wide.canvas > 10 * small.canvas
    assert small.embeddings < wide.embeddings
    assert rehearse(checkpoint, gradient="x0").sync < rehearse(checkpoint).sync
    assert rehearse(checkpoint, gradient=None).sync == 0
    half = rehearse(checkpoint, dtype=torch.float16)
    assert half.weights == small.weights / 4
    single, compared = (rehearse(checkpoint, dtype=torch.float32, objective=name) for name in (None, "stlpips"))
    assert compared.weights > single.weights + 9e6  # its network
    assert compared.sync > single.sync


def test_a_process_grows_by_what_was_forecast() -> None:
    drawn = memory.measured("small, full gradient")  # by 0.6 GB, from 0.9
    assert drawn["held"] + drawn["grown"] == pytest.approx(drawn["measured"], rel=0.1)
    assert drawn["grown"] == pytest.approx(drawn["measured"] - drawn["held"], rel=0.2)


def test_on_the_cpu_what_sampling_took_is_kept() -> None:
    parts = {"weights": 1, "at_once": 1, "embeddings": 2, "canvas": 4, "sampling": 8}
    assert MemoryEstimate(**parts, sync=16, decoding=32).grown == 7 + 8 + 32
    assert MemoryEstimate(**parts, sync=16, decoding=32).peak == 7 + 32


def test_every_control_map_is_counted(checkpoint: Path) -> None:
    def canvas(*controls: str) -> int:
        with memory_estimate.fake_mode():
            family = families.wrap(loader.blank(str(checkpoint), controls, [], torch.float32, offline=True))
            found = memory_estimate.estimate(
                family, LAYOUT, SamplingConfig().complete(), WindowConfig().complete(), None, None
            )
        return found.canvas

    pixels = LAYOUT.height * LAYOUT.width * 8**2
    assert canvas("canny", "depth") - canvas("canny") == canvas("canny") - canvas() == pixels * (3 + 3)


def test_of_offloaded_networks_the_largest_is_counted_and_what_stays(checkpoint: Path) -> None:
    found = rehearse(checkpoint)
    with memory_estimate.fake_mode():
        parts = loader.blank(str(checkpoint), ["canny"], [], torch.float64, offline=True).components
        sizes = {name: memory_estimate._held([parts[name]]) for name in ("unet", "vae", "text_encoder", "controlnet")}
    assert found.at_once == max(sizes["unet"], sizes["vae"], sizes["text_encoder"]) + sizes["controlnet"]
    assert found.offloaded("none") == found
    assert found.peak - found.offloaded("model").peak == found.weights - found.at_once > 0
    assert found.peak - found.offloaded("sequential").peak == found.weights
