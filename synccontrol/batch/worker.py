"""`Worker`: generates the images of jobs with one loaded model. Jobs and outcomes are plain data."""

import dataclasses
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from PIL import Image

from synccontrol.batch import model_request, prepare
from synccontrol.batch.job import Job, Outcome, TimedTask, sync_with_anchor
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

Recorded = Callable[[Mapping[str, Any]], dict[str, Any]]  # settings -> settings that the image records
RECIPES = 8  # cached anchors and input images
PROMPTS = 16  # cached encoded prompts
MAPS_ADVICE = "another --detector, --device cpu, or control maps of another run (--control-map)"
ADVICE = "--sync-gradient x0, a larger --sync-shrink, --dtype float16, --device cpu"


def unchanged(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings unchanged."""
    return dict(settings)


class Listener:
    """Follows the progress of jobs. An error that a method raises ends the current image."""

    def check(self) -> None:
        """Raise an exception to end the image. Called between steps."""

    def begin(self, job: Job) -> None:
        """Handle the start of a job's first step."""

    def step(self, job: Job, step: Step) -> None:
        """Handle a denoising step of a job in this process."""
        self.check()

    def report(self, job: Job, report: Any) -> None:
        """Handle a `Report` of a job in another process."""


LISTENER = Listener()


class Task(TimedTask):
    """A job with the results of the worker's stages."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.spec: ImageSpec | None = None
        self.images = InputImages(maps=(), others={})
        self.settings: dict[str, Any] = {}
        self.image: Image.Image | None = None


class Worker:
    """Generates the images of jobs with one loaded model and its detectors.

    `run` calls the three stages: `prepare` (read files, detect control maps), `generate` and `save`. Executors that
    overlap images call the stages in threads. If memory runs out, detectors are freed and the stage is repeated.

    Args:
        request: model, detectors and machine.
        threads: number of torch threads; that of another process gives its bytes; 0: torch's default.
        montage: Rarely needed: a loaded montage.
        detectors: Rarely needed: detectors that the workers of a process share.
        recorded: Rarely needed: changes the settings that the image records.

    Raises:
        ModelError: the model is not available.
    """

    def __init__(
        self,
        request: ModelRequest,
        threads: int = 0,
        montage: Montage | None = None,
        detectors: Detectors | None = None,
        recorded: Recorded = unchanged,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.request, self._recorded = request, recorded
        self._montage = montage or model_request.load(request)
        self._prompts = 0 if montage else PROMPTS  # the caller may change its montage's LoRAs and embeddings
        self._montage.denoiser.cache_prompts(self._prompts)
        self._machine = provenance.runtime_settings(
            ",".join(map(str, self._montage.denoiser.devices)),
            str(self._montage.denoiser.dtype).removeprefix("torch."),
            "" if montage else _revision(request),
        )
        self._detectors = detectors or Detectors()
        self._sync = lru_cache(RECIPES)(sync_with_anchor)
        self._open = lru_cache(RECIPES)(images.open_image)

    def set_adapter_weights(self, request: ModelRequest) -> None:
        """Switch to a request of the same model with other adapter strengths."""
        with self._montage.denoiser.session():
            for pipe in self._montage.denoiser.pipes:
                set_adapter_weights(pipe, request.adapters)
            self._montage.denoiser.cache_prompts(self._prompts)  # a new cache: LoRAs change encoded prompts
        self.request = request

    def run(self, job: Job, listener: Listener = LISTENER) -> Outcome:
        """Generate and write the image of a job, and return the outcome, which may be an error."""
        return self.save(self.generate(self.prepare(job), listener))

    def prepare(self, job: Job) -> Task:
        """Read a job's files, and detect and write its control maps."""
        task = Task(job)
        with task.stage("maps"), _convert_memory_errors(MAPS_ADVICE):
            if job.recipe.request != self.request:
                raise ConfigError("the job needs another model than this worker has; give it to another worker")
            if not job.overwrite:
                atomic_write.check_free([job.output])
            geometry = self._montage.denoiser.geometry
            canvas = prepare.prepare_canvas(job, geometry, task.notes.append)
            task.spec = job.spec(canvas.height, canvas.width)
            task.settings = self._recorded({**task.spec.settings(), **self._machine})
            detect = partial(prepare.control_maps, job, canvas, geometry, self._detectors.load)
            maps = self._detectors.retry_without(detect)
            task.notes += prepare.remarks(maps, job.recipe)
            files = {role: path for role, path in job.recipe.images.items() if role in (IP_IMAGE, REGION_MAP)}
            role_images = {role: self._open(path) for role, path in files.items()}
            task.images = InputImages(maps=maps, others={**role_images, **canvas.start})
            if job.recipe.anchor is not None:
                task.spec = dataclasses.replace(task.spec, sync=self._sync(job.recipe))
            self._save_maps(task)
        return task

    def generate(self, task: Task, listener: Listener = LISTENER) -> Task:
        """Generate the image of a prepared job."""
        if task.error is not None:
            return task
        with task.stage("drawing"), _convert_memory_errors(ADVICE):
            spec, report = task.spec, partial(listener.step, task.job)
            assert spec is not None
            listener.check()
            listener.begin(task.job)
            result = self._detectors.retry_without(lambda: self._montage.generate(spec, task.images, report))
            task.image = result.image
            task.notes += result.notes
        return task

    def save(self, task: Task) -> Outcome:
        """Write the image of a job, and return the outcome."""
        if task.error is None:
            assert task.image is not None
            with task.stage("saving"):
                metadata.save_png(task.image, task.job.output, task.settings, task.job.overwrite)
        return Outcome(
            output=str(task.job.output),
            error=task.message,
            fatal=task.fatal,
            traceback=task.traceback,
            notes=tuple(task.notes),
            settings=task.settings,
            seconds=task.seconds,
            memory=self._peak_memory(),
            worker=f"{platform.node()}:{os.getpid()}",
        )

    def _save_maps(self, task: Task) -> None:
        """Write control maps before denoising, so that the image is the last file of a job."""
        job = task.job
        for path, control_map in zip(job.map_outputs, task.images.maps if job.map_outputs else (), strict=True):
            metadata.save_png(control_map, path, task.settings, job.overwrite, allow_identical=True)
            poses.save(control_map, path.with_suffix(poses.SUFFIX), job.overwrite)

    def _peak_memory(self) -> int:
        devices = self._montage.denoiser.devices
        if devices[0].type == "cuda":
            return max(map(torch.cuda.max_memory_allocated, devices))
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _revision(request: ModelRequest) -> str:
    return revision(request.model, request.controls, request.controlnets, request.adapters, request.offline)


@contextmanager
def _convert_memory_errors(advice: str) -> Iterator[None]:
    """Convert out-of-memory errors to `MemoryLimitError` with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryLimitError) or not is_out_of_memory(error):
            raise
        raise MemoryLimitError(f"the device is out of memory; try {advice}") from error
