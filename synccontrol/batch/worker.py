"""`Worker`: makes pictures with one loaded model; pure data in and out, so that any process can be one."""

import dataclasses
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from PIL import Image

from synccontrol.batch import model_request, prepare
from synccontrol.batch.job import Job, Outcome, Work, anchored
from synccontrol.batch.model_request import Detectors, ModelRequest
from synccontrol.errors import ConfigError, MemoryLimitError
from synccontrol.io import atomic_write, images, metadata, poses, provenance
from synccontrol.models.adapters import set_adapter_weights
from synccontrol.models.loader import revision
from synccontrol.pipeline.inputs import InputImages
from synccontrol.pipeline.montage import Montage
from synccontrol.pipeline.output import Step
from synccontrol.sampling.batching import is_out_of_memory
from synccontrol.spec.image_spec import IP_IMAGE, REGION_MAP, ImageSpec

OnStep = Callable[[Job, Step], object]
RECIPES = 8  # whose anchors are kept read
PROMPTS = 16  # of which is kept what text encoders made of them
MAPS_ADVICE = "another --detector, --device cpu, or control maps of another run (--control-map)"
ADVICE = "--sync-gradient x0, a larger --sync-shrink, --dtype float16, --device cpu"


def ignore(job: Job, step: Step) -> None:
    """Does nothing about a step."""


class Task(Work):
    """A job, and what the stages of its worker have made of it."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.spec: ImageSpec | None = None
        self.images = InputImages(maps=(), others={})
        self.settings: dict[str, Any] = {}
        self.image: Image.Image | None = None


class Worker:
    """Makes pictures with one loaded model and its detectors.

    `make` does all. Engines that overlap pictures call its three stages, in threads of their own if they like:
    `prepare` (reading, detecting), `draw` and `save`. Where memory is short, detectors go, and it is tried again.

    Args:
        request: which model, detectors and machine.
        threads: of torch, where the same bytes are wanted as from another process; 0: torch's own number.
        montage: Rarely needed: the model, loaded elsewhere.
        detectors: Rarely needed: those that it shares with other workers of this process.

    Raises:
        ModelError: the model is not to be had.
    """

    def __init__(
        self,
        request: ModelRequest,
        threads: int = 0,
        montage: Montage | None = None,
        detectors: Detectors | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.request = request
        self._montage = montage or model_request.load(request)
        self._prompts = 0 if montage else PROMPTS  # a montage is somebody's who may change it: LoRAs, words
        self._montage.denoiser.remember(self._prompts)
        self._machine = provenance.made_with(
            ",".join(map(str, self._montage.denoiser.devices)),
            str(self._montage.denoiser.dtype).removeprefix("torch."),
            "" if montage else _revision(request),
        )
        self._detectors = detectors or Detectors()
        self._sync = lru_cache(RECIPES)(anchored)
        self._open = lru_cache(RECIPES)(images.open_image)

    def weigh(self, request: ModelRequest) -> None:
        """Takes another request of the same model, of which LoRAs and the like are stronger or weaker."""
        with self._montage.denoiser.session():
            for pipe in self._montage.denoiser.pipes:
                set_adapter_weights(pipe, request.adapters)
            self._montage.denoiser.remember(self._prompts)  # anew: LoRAs change what text encoders make of a prompt
        self.request = request

    def make(self, job: Job, on_step: OnStep = ignore) -> Outcome:
        """Returns what became of a job: its picture is written, or why not; `on_step` is called after every step."""
        return self.save(self.draw(self.prepare(job), on_step))

    def prepare(self, job: Job) -> Task:
        """Returns a job with its control maps made, and written if they are wanted."""
        task = Task(job)
        with task.stage("maps"), _memory(MAPS_ADVICE):
            if job.recipe.request != self.request:
                raise ConfigError("the job asks for another model than this worker has; give it to a worker of its own")
            if not job.overwrite:
                atomic_write.check_free([job.output])
            geometry = self._montage.denoiser.geometry
            canvas = prepare.prepare_canvas(job, geometry, task.notes.append)
            task.spec = job.picture(canvas.height, canvas.width)
            task.settings = {**task.spec.settings(), **self._machine}
            detect = partial(prepare.control_maps, job, canvas, geometry, self._detectors.load)
            maps = self._detectors.make_room(detect)
            task.notes += prepare.remarks(maps, job.recipe)
            files = {role: path for role, path in job.recipe.shown.items() if role in (IP_IMAGE, REGION_MAP)}
            others = {role: self._open(path) for role, path in files.items()}
            task.images = InputImages(maps=maps, others={**others, **canvas.start})
            if job.recipe.anchor is not None:
                task.spec = dataclasses.replace(task.spec, sync=self._sync(job.recipe))
            self._save_maps(task)
        return task

    def draw(self, task: Task, on_step: OnStep = ignore) -> Task:
        """Returns a prepared job with its picture drawn."""
        if task.error is not None:
            return task
        with task.stage("drawing"), _memory(ADVICE):
            spec, report = task.spec, partial(on_step, task.job)
            assert spec is not None
            result = self._detectors.make_room(lambda: self._montage.generate(spec, task.images, report))
            task.image = result.image
            task.notes += result.notes
        return task

    def save(self, task: Task) -> Outcome:
        """Returns what became of a drawn job, its picture written."""
        if task.error is None:
            assert task.image is not None
            with task.stage("saving"):
                metadata.save_png(task.image, task.job.output, task.settings, task.job.overwrite)
        return Outcome(
            output=str(task.job.output),
            error=task.said,
            fatal=task.fatal,
            traceback=task.traceback,
            notes=tuple(task.notes),
            settings=task.settings,
            seconds=task.seconds,
            memory=self._memory_held(),
            worker=f"{platform.node()}:{os.getpid()}",
        )

    def _save_maps(self, task: Task) -> None:
        """Writes control maps before the picture is drawn, which so is the last of a job's files to be there."""
        job = task.job
        for path, control_map in zip(job.map_outputs, task.images.maps if job.map_outputs else (), strict=True):
            metadata.save_png(control_map, path, task.settings, job.overwrite, same=True)
            poses.save(control_map, path.with_suffix(poses.SUFFIX), job.overwrite)

    def _memory_held(self) -> int:
        devices = self._montage.denoiser.devices
        if devices[0].type == "cuda":
            return max(map(torch.cuda.max_memory_allocated, devices))
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _revision(request: ModelRequest) -> str:
    return revision(request.model, request.controls, request.controlnets, request.adapters, request.offline)


@contextmanager
def _memory(advice: str) -> Iterator[None]:
    """Says in one line what helps when memory is full, unless somebody has said so already."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryLimitError) or not is_out_of_memory(error):
            raise
        raise MemoryLimitError(f"the device is out of memory; try {advice}") from error
