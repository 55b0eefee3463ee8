"""`Studio`: the executors, detectors and queue that all sessions share."""

import contextlib
import dataclasses
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from synccontrol import preprocess
from synccontrol.batch import model_request, prepare
from synccontrol.batch.executor import AbstractExecutor, Report, Reporter
from synccontrol.batch.job import Job, Outcome, Recipe, sync_with_anchor
from synccontrol.batch.model_request import Detectors
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import Layout
from synccontrol.errors import SyncControlError
from synccontrol.models import loader
from synccontrol.pipeline.denoise import window_shares
from synccontrol.pipeline.inputs import Canvas
from synccontrol.preprocess.control import Option
from synccontrol.sampling.anchors import canvas_anchors
from synccontrol.studio.backends import jpeg, local
from synccontrol.studio.queue import JobQueue, Limits, Ticket

Box = tuple[float, float, float, float]  # left, top, width, height, px
FOLDERS = re.compile(r"(?<![\w/:.])(?:/[^\s/'\";,:]+)+/")  # of an absolute path, without its last part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """What is known of an image before it is generated."""

    height: int  # px
    width: int  # px
    maps: list[Image.Image]  # on the canvas, one per control
    notes: list[str]
    boxes: list[Box]  # of the windows; none on a sphere, where they are no rectangles
    anchors: list[int]  # indices of the anchor windows; none if the anchor is an image
    kind: str  # a ring, a sphere, or an empty text
    windows: int


class Studio:
    """Previews control maps at once, and generates images by a queue.

    Args:
        machine: flags of the machine: device, dtype, offload, offline.
        limits: of requests.
        executors: each generates one image at a time; this process if none are given.
    """

    def __init__(self, machine: Mapping[str, Any], limits: Limits, executors: Sequence[AbstractExecutor] = ()) -> None:
        self.machine, self.limits = machine, limits
        self._executors = executors or [local()]
        self._idle: queue.SimpleQueue[AbstractExecutor] = queue.SimpleQueue()
        for executor in self._executors:
            self._idle.put(executor)
        self.queue = JobQueue(limits, len(self._executors))
        self._detectors = Detectors()
        self._detecting = threading.Lock()

    def preview(self, job: Job, options: Mapping[str, Mapping[str, Option]]) -> Preview:
        """Return a job's control maps and windows, without loading its model.

        Args:
            job: the job.
            options: of detectors, by control type.

        Raises:
            SyncControlError: a file, size, setting or detector is wrong.
        """
        geometry = loader.geometry(job.recipe.request.model, job.recipe.request.offline)
        notes: list[str] = []
        canvas = prepare.prepare_canvas(job, geometry, notes.append)
        times = job.recipe.upscale.upscale
        self.limits.check_canvas(times * canvas.width, times * canvas.height, job.recipe.sampling.steps)
        with self._detecting:
            detected = partial(prepare.control_maps, job, canvas, geometry, partial(self._detect, options))
            maps = self._detectors.retry_without(detected)
        notes += [*model_request.remarks(job.recipe.request, job.detected), *prepare.remarks(maps, job.recipe)]
        return Preview(
            height=canvas.height,
            width=canvas.width,
            maps=maps,
            notes=notes,
            boxes=_boxes(canvas.layout, geometry.cell),
            anchors=_anchors(job, canvas, geometry.cell),
            kind=canvas.layout.kind,
            windows=len(canvas.layout),
        )

    def submit(self, job: Job, owner: str, done: Callable[[Job, Outcome], Any]) -> Ticket:
        """Put a job into the queue and return its ticket; the ticket's result is that of `done`.

        Raises:
            BusyError: the queue is full.
        """
        ticket = Ticket(owner, lambda ticket: done(job, self._generate(job, ticket)))
        ticket.steps = job.recipe.sampling.steps
        self.queue.put(ticket)
        return ticket

    def _generate(self, job: Job, ticket: Ticket) -> Outcome:
        def on_report(report: Report) -> None:
            if report.step:
                ticket.report(*report)
            else:
                ticket.begin(report.steps)

        executor = self._idle.get()
        try:
            (outcome,) = executor.work(iter([job]), Reporter(jpeg, on_report, ticket.check))
        finally:
            self._idle.put(executor)
        ticket.check()  # raises `Stopped` for a stopped image, which did not fail
        return outcome

    def warm(self, job: Job) -> None:
        """Begin to load the model of a job, so that the first image waits less."""

        def load() -> None:
            executor = self._idle.get()
            try:
                with contextlib.suppress(SyncControlError):  # the first request reports it
                    executor.ready(job.recipe.request)
            finally:
                self._idle.put(executor)

        for _ in self._executors:
            threading.Thread(target=load, daemon=True).start()

    def close(self) -> None:
        """Stop all images after their current step."""
        self.queue.close()
        for executor in self._executors:
            executor.close()
        self._detecting.acquire()  # wait for the last detection, and allow no other

    def _detect(
        self, options: Mapping[str, Mapping[str, Option]], recipe: Recipe, control: str, name: str | None
    ) -> preprocess.Detector:
        return self._detectors.load(recipe, control, name, **options.get(control, {}))


def _anchors(job: Job, canvas: Canvas, cell: int) -> list[int]:
    """Return the anchor windows: one, or one for each region. Raises `ConfigError` for wrong regions."""
    shares = window_shares(job.spec(canvas.height, canvas.width), None, canvas.layout, cell)
    return list(canvas_anchors(sync_with_anchor(job.recipe).anchor, canvas.layout, shares).windows)


def _boxes(layout: AbstractLayout, cell: int) -> list[Box]:
    """Return the windows of a flat canvas or a ring, px."""
    if not isinstance(layout, Layout):
        return []
    h, w = layout.window
    return [(left * cell, top * cell, w * cell, h * cell) for top, left in layout.origins]


def without_folders(text: str, folder: Path) -> str:
    """Return a line without folders: uploads by their own names, other files by name alone."""
    return FOLDERS.sub("", re.sub(rf"{re.escape(str(folder))}/(\d+/)?", "", text))
