"""The rehearsed footprint is that of the real networks, and grows with what makes a run grow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from synccontrol.canvas.windows import Layout
from synccontrol.config import SamplingConfig
from synccontrol.families.sd import Denoiser
from synccontrol.jobs import footprint
from synccontrol.models import hub

LAYOUT = Layout(height=8, width=32, window=(8, 8), stride=4)


def rehearse(checkpoint: Path, batch: int = 2, gradient: str | None = "full", layout: Layout = LAYOUT) -> Any:
    with footprint.fake():
        skeleton = hub.skeleton(str(checkpoint), ["canny"], [], torch.float64, offline=True)
        return footprint.rehearse(skeleton, layout, batch, 2, gradient)


def test_it_agrees_with_the_real_networks(checkpoint: Path, make_pipe: Callable[..., Any]) -> None:
    found = rehearse(checkpoint)
    denoiser = Denoiser(make_pipe(controls=1, dtype=torch.float64))
    modules = [part for part in denoiser.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert found.weights == sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
    with denoiser.running(), torch.no_grad():
        maps = torch.zeros(2, 3, *denoiser.geometry.window_px, dtype=torch.float64)
        predict = denoiser.encode("x", "", [maps], SamplingConfig(), torch.tensor([500]))
        with footprint._Live() as real:
            predict(torch.zeros(2, 4, 8, 8, dtype=torch.float64), 0, [0, 1])
        assert found.sampling == pytest.approx(real.peak, rel=0.3)  # the control map's embedding is rehearsed too
        with footprint._Live() as real:
            denoiser.decode(torch.zeros(1, 4, 8, 32, dtype=torch.float64))
        assert found.decoding == pytest.approx(real.peak, rel=0.02)


def test_it_grows_with_batch_width_and_gradient(checkpoint: Path) -> None:
    small = rehearse(checkpoint, batch=1)
    large = rehearse(checkpoint, batch=4)
    assert large.sampling > 2 * small.sampling
    assert large.sync > 2 * small.sync
    wide = rehearse(checkpoint, layout=Layout(height=8, width=64, window=(8, 8), stride=4))
    assert wide.decoding == pytest.approx(2 * small.decoding, rel=0.1)
    assert rehearse(checkpoint, gradient="x0").sync < rehearse(checkpoint).sync
    assert rehearse(checkpoint, gradient=None).sync == 0
