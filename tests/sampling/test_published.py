"""The montage against the published algorithm, in float64: the same final latents, to 1e-8 of their deviation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.sampling import objectives
from tests.conftest import CELL, WINDOW, PipeFactory
from tests.sampling.published import Objective, Published, Settings, map_tensor, views

PROMPT, NEGATIVE = "a red hill", "fog"
TOLERANCE = 1e-8  # of the latents' deviation
VISIBLE = 0.01  # of the latents' deviation: what a setting must change at least, or agreement would prove nothing
POOL = 4  # pixels a side that the smooth objective looks at together
GLARE = 10.0  # factor on the decoder's last convolution that drives images out of [-1, 1]
BATCH = 3  # windows per network call: divides no window count below, so that the last batch is short


def smooth(images: Tensor, anchor: Tensor) -> Tensor:
    """Return the squared distance of the blurred images, one per window: smooth everywhere, unlike LPIPS."""
    return 10 * (F.avg_pool2d(images, POOL) - F.avg_pool2d(anchor, POOL)).square().mean((1, 2, 3))


SYNCED = Settings(steps=4, stride=WINDOW // 2, sync_weight=2000.0, sync_steps=2)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of both programs, and a change to it that must show."""

    settings: Settings = SYNCED
    change: dict[str, Any] = field(default_factory=lambda: {"sync_weight": 0.0})
    h: int = WINDOW  # cells
    w: int = 5 * WINDOW // 2  # cells
    controls: int = 1
    glare: float = 1.0  # factor on the decoder's last convolution; at 1 all images stay inside [-1, 1]
    scheduler: dict[str, Any] = field(default_factory=dict)  # what differs from Stable Diffusion's DDIM


CASES = {
    "sync off": Case(settings=replace(SYNCED, sync_weight=0.0), change={"control_scale": 0.0}),
    "sync on": Case(),
    "sync on, control matters": Case(change={"control_scale": 0.0}),
    "weaker control": Case(settings=replace(SYNCED, control_scale=0.5), change={"control_scale": 1.0}),
    "no guidance": Case(settings=replace(SYNCED, guidance_scale=1.0)),
    "no guidance, guess mode": Case(settings=replace(SYNCED, guidance_scale=1.0, guess_mode=True)),
    "guess mode": Case(settings=replace(SYNCED, guess_mode=True), change={"guess_mode": False}),
    "control ends halfway": Case(settings=replace(SYNCED, control_end=0.5), change={"control_end": 1.0}),
    "several windows high": Case(h=2 * WINDOW, w=3 * WINDOW // 2),
    "text only": Case(controls=0),
    "text only, sync off": Case(controls=0, settings=replace(SYNCED, sync_weight=0.0), change={"guidance_scale": 1.0}),
    "loop": Case(settings=replace(SYNCED, loop=True), change={"loop": False}),
    "loop, sync matters": Case(settings=replace(SYNCED, loop=True)),
    "loop, uneven": Case(settings=replace(SYNCED, loop=True, stride=5), w=2 * WINDOW + 3),
    "last window slid": Case(w=2 * WINDOW + 3, h=WINDOW + 1),
    "decay": Case(settings=replace(SYNCED, sync_decay=0.5), change={"sync_decay": 1.0}),
    "v-prediction": Case(scheduler={"prediction_type": "v_prediction"}),
    "trailing timesteps": Case(scheduler={"timestep_spacing": "trailing", "set_alpha_to_one": True}),
    "one window": Case(w=WINDOW, change={"control_scale": 0.0}),
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs a case by either program."""

    make_pipe: PipeFactory
    make_map: Callable[..., Image.Image]
    make_noise: Callable[..., Tensor]

    def pipe(self, case: Case) -> Any:
        """Return the checkpoint as the case wants it."""
        pipe = self.make_pipe(case.controls, torch.float64, **case.scheduler)
        pipe.vae.decoder.conv_out.weight.data.mul_(case.glare)
        return pipe

    def published(self, case: Case, objective: Objective = smooth) -> Tensor:
        """Return the literal program's final latents."""
        pipe = self.pipe(case)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False)
        control_map = map_tensor(self.make_map(case.w * CELL, case.h * CELL), torch.float64) if case.controls else None
        program = Published(pipe, PROMPT, NEGATIVE, case.settings, objective)
        return program.run(self.make_noise(case.h, case.w), control_map)

    def montage(self, case: Case, objective: Objective | str = smooth) -> Tensor:
        """Return the montage's final latents."""
        pipe = self.pipe(case)
        s = case.settings
        result = Montage.from_pipe(pipe)(
            PROMPT,
            self.make_map(case.w * CELL, case.h * CELL) if case.controls else None,
            height=case.h * CELL,
            width=case.w * CELL,
            negative_prompt=NEGATIVE,
            latents=self.make_noise(case.h, case.w),
            sampling=SamplingConfig(
                steps=s.steps,
                guidance_scale=s.guidance_scale,
                control_scale=s.control_scale,
                control_end=s.control_end,
                guess_mode=s.guess_mode,
                scheduler="ddim",
            ).complete(),
            windows=WindowConfig(stride=s.stride, loop=s.loop, batch=BATCH).complete(),
            sync=SyncConfig(
                weight=s.sync_weight,
                steps=s.sync_steps,
                decay=s.sync_decay,
                every=1,
                gradient="full",
                anchor=len(views(case.h, case.w, WINDOW, s)) // 2,  # "middle" where there is one row
                objective=objective,
            ).complete(),
        )
        return result.latents


@pytest.fixture(scope="module")
def bench(make_pipe: PipeFactory, make_map: Callable[..., Image.Image], make_noise: Callable[..., Tensor]) -> Bench:
    """Return the runner of both programs."""
    return Bench(make_pipe=make_pipe, make_map=make_map, make_noise=make_noise)


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two latents, as a fraction of their deviation."""
    return float((a - b).abs().max() / b.std())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_montage_is_the_published_algorithm(bench: Bench, case: Case) -> None:
    expected = bench.published(case)
    assert expected.isfinite().all()
    assert distance(bench.montage(case), expected) < TOLERANCE
    changed = replace(case, settings=replace(case.settings, **case.change))
    assert distance(bench.published(changed), expected) > VISIBLE


def test_the_named_objective_is_the_published_network(bench: Bench) -> None:
    """ST-LPIPS by its own package in the literal program, by name in the montage."""
    objectives.load("stlpips")  # imports the package, which needs help
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).double().requires_grad_(False)
    case = Case(settings=replace(SYNCED, steps=3, sync_steps=1), w=2 * WINDOW)
    expected = bench.published(case, lambda images, anchor: network(images, anchor).flatten())
    assert distance(bench.montage(case, "stlpips"), expected) < TOLERANCE
    unsynced = replace(case, settings=replace(case.settings, sync_weight=0.0))
    assert distance(bench.published(unsynced), expected) > VISIBLE


def test_decoded_images_are_not_clamped(bench: Bench) -> None:
    """The one departure: the published programs clamp decoded images, so that saturated pixels have no gradient."""
    case = Case(glare=GLARE, settings=replace(SYNCED, sync_weight=20.0, clamp=False))
    ours = bench.montage(case)
    assert distance(ours, bench.published(case)) < TOLERANCE
    assert distance(ours, bench.published(replace(case, settings=replace(case.settings, clamp=True)))) > VISIBLE
