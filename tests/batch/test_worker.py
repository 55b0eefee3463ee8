"""A worker: pure data in and out, and whatever goes wrong is an outcome."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import preprocess
from synccontrol import Montage
from synccontrol.batch.job import Job
from synccontrol.batch.model_request import ModelRequest
from synccontrol.batch.worker import Worker
from synccontrol.spec.settings import SyncConfig
from tests.batch.wanted import JOB, RECIPE, following


def job_of(tmp_path: Path, guide: Image.Image, name: str, **changes: Any) -> Job:
    path = tmp_path / "guide.png"
    guide.save(path)
    return dataclasses.replace(JOB, guide=path, output=tmp_path / f"{name}.png", **changes)


def worker_of(pipe: Any, request: ModelRequest) -> Worker:
    return Worker(request, montage=Montage.from_pipe(pipe))


def detecting(monkeypatch: pytest.MonkeyPatch, detect: Callable[[Image.Image], Image.Image]) -> None:
    monkeypatch.setattr(preprocess, "load", lambda *_, **__: detect)


def test_what_lies_beyond_a_padded_guide_is_each_maps_own(
    make_pipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def detect(guide: Image.Image) -> Image.Image:
        seen.append(guide.size)
        return guide.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    detecting(monkeypatch, detect)
    guide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    recipe = following("canny", "depth", fit="pad")
    worker = worker_of(make_pipe(controls=2), recipe.request)
    maps = (tmp_path / "a.canny.png", tmp_path / "a.depth.png")
    job = job_of(tmp_path, guide, "a", width=128, height=64, map_outputs=maps, recipe=recipe)
    outcome = worker.run(job)
    assert outcome.error == ""
    assert seen == [(64, 64)] * 2  # the guide alone is looked at
    assert len(outcome.notes) == 1 and "50% of the canvas's width lies outside" in outcome.notes[0]
    edges, depth = (np.asarray(Image.open(tmp_path / f"a.{name}.png")) for name in ("canny", "depth"))
    flipped = np.asarray(guide)[:, ::-1]
    assert np.array_equal(edges[:, 32:96], flipped) and np.array_equal(depth[:, 32:96], flipped)
    assert not edges[:, :32].any() and not edges[:, 96:].any()
    assert (depth[:, 96:] == flipped[:, -1:]).all() and (depth[:, :32] == flipped[:, :1]).all()
    ready = dataclasses.replace(job, output=tmp_path / "b.png", guide=None, control_maps=maps, map_outputs=())
    assert worker.run(ready).notes == ()  # the maps have the canvas's size by now
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "b.png")))
    mixed = dataclasses.replace(job, output=tmp_path / "c.png", control_maps=(None, maps[1]), map_outputs=())
    assert worker.run(mixed).error == ""
    assert len(seen) == 3
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "c.png")))


def test_running_out_of_memory_is_one_failed_picture(make_pipe: Callable[..., Any], tmp_path: Path) -> None:
    def greedy(images: Tensor, anchor: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    worker = worker_of(make_pipe(controls=0), RECIPE.request)
    job = dataclasses.replace(JOB, width=96, height=64, output=tmp_path / "a.png")
    outcome = worker.run(
        dataclasses.replace(job, recipe=dataclasses.replace(RECIPE, sync=SyncConfig(objective=greedy).complete()))
    )
    assert "try --sync-gradient x0, a larger --sync-shrink" in outcome.error
    assert not outcome.fatal
    assert worker.run(dataclasses.replace(job, output=tmp_path / "b.png")).error == ""
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_what_is_odd_about_a_map_is_said(
    make_pipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detecting(monkeypatch, lambda guide: Image.new("RGB", guide.size))
    recipe = following("canny")
    worker = worker_of(make_pipe(controls=1), recipe.request)
    outcome = worker.run(job_of(tmp_path, Image.new("RGB", (96, 64)), "a", recipe=recipe))
    assert [note.split(":")[0] for note in outcome.notes] == ["canny"]


def test_jobs_and_outcomes_are_pure_data(make_pipe: Callable[..., Any], tmp_path: Path) -> None:
    worker = worker_of(make_pipe(controls=0), RECIPE.request)
    job = pickle.loads(pickle.dumps(dataclasses.replace(JOB, width=96, height=64, output=tmp_path / "a.png")))
    outcome = pickle.loads(pickle.dumps(worker.run(job)))
    assert outcome.error == "" and outcome.output == str(tmp_path / "a.png")
    assert list(outcome.seconds) == ["maps", "drawing", "saving"]
    assert outcome.memory > 10**7
    assert outcome.settings["width"] == 96
    again = worker.run(job)
    assert "a.png exists" in again.error and again.traceback == ""
    other = worker.run(dataclasses.replace(job, output=tmp_path / "b.png", recipe=following("depth")))
    assert "needs another model" in other.error


def test_maps_of_a_killed_run_are_no_hindrance_and_others_are_kept(
    make_pipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detecting(monkeypatch, lambda guide: guide)
    recipe = following("canny")
    worker = worker_of(make_pipe(controls=1), recipe.request)
    guide, maps = Image.effect_noise((96, 64), 50).convert("RGB"), (tmp_path / "a.canny.png",)
    job = job_of(tmp_path, guide, "a", recipe=recipe, map_outputs=maps)
    assert worker.run(job).error == ""
    picture = job.output.read_bytes()
    job.output.unlink()  # as if the run had been killed after its maps
    assert worker.run(job).error == ""
    assert job.output.read_bytes() == picture
    job.output.unlink()
    maps[0].write_bytes(b"edited")
    assert "a.canny.png exists" in worker.run(job).error
    assert maps[0].read_bytes() == b"edited" and not job.output.exists()


def test_prompts_are_read_once_and_the_bytes_are_the_same(checkpoint: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(RECIPE.request, model=str(checkpoint), offline=True)
    recipe = dataclasses.replace(RECIPE, request=request)
    long = "a very long prompt that is read in parts"
    asked = [("hills", "fog", 0), ("hills", "fog", 1), (long, "fog", 0), (long, "fog", 1), ("hills", "fog", 2)]
    jobs = [
        dataclasses.replace(JOB, prompt=prompt, negative_prompt=negative, seed=seed, recipe=recipe, width=96, height=64)
        for prompt, negative, seed in asked
    ]

    def made(worker: Worker, job: Job, name: str) -> tuple[bytes, tuple[str, ...]]:
        outcome = worker.run(dataclasses.replace(job, output=tmp_path / name))
        assert outcome.error == ""
        return (tmp_path / name).read_bytes(), outcome.notes

    worker, read = Worker(request), list[int]()
    encoder = worker._montage.denoiser.pipe.text_encoder
    encoder.register_forward_hook(lambda *_: read.append(1))
    found, counts = [], []
    for number, job in enumerate(jobs):
        read.clear()
        found.append(made(worker, job, f"{number}.png"))
        counts.append(len(read))
    assert counts[0] == 2 and counts[2] > 2 and counts[1] == counts[3] == counts[4] == 0
    assert "it is read in" in found[2][1][0] and found[3][1] == found[2][1]
    assert found[3] == made(Worker(request), jobs[3], "again.png")
    read.clear()
    worker.set_adapter_weights(request)  # LoRAs may act on the text encoder, so that nothing that was read before holds
    assert made(worker, jobs[4], "weighed.png") == found[4] and len(read) == counts[0]


def test_a_pipeline_that_somebody_else_has_is_asked_every_time(make_pipe: Callable[..., Any], tmp_path: Path) -> None:
    pipe = make_pipe(controls=0)
    worker = worker_of(pipe, RECIPE.request)
    paths = [tmp_path / "before.png", tmp_path / "after.png"]
    for path in paths:
        assert worker.run(dataclasses.replace(JOB, output=path, width=96, height=64)).error == ""
        for weight in pipe.text_encoder.parameters():
            weight.data.mul_(1.5)
    assert paths[0].read_bytes() != paths[1].read_bytes()
