"""`Studio`: what all visitors share, which is models, detectors and the line for them."""

import base64
import dataclasses
import io
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

import preprocess
from preprocess.control import Option
from synccontrol.app.limits import Limits
from synccontrol.app.line import Line, Ticket
from synccontrol.canvas.layout import AbstractLayout
from synccontrol.canvas.windows import Layout
from synccontrol.jobs import maps, runtime
from synccontrol.jobs.job import Job
from synccontrol.jobs.outcome import Outcome
from synccontrol.jobs.recipe import Recipe, anchored
from synccontrol.jobs.runtime import Request
from synccontrol.jobs.worker import Worker
from synccontrol.models import hub
from synccontrol.picture import SINGLE
from synccontrol.regional import window_shares
from synccontrol.result import Step
from synccontrol.sampling.anchors import anchor_index, of_regions

WORKERS = 2  # models that stay loaded, so that going back and forth between two controls loads nothing
DETECTORS = 8  # with their settings, likewise
PREVIEW_SHARE = 0.2  # of the time goes into previews, at most, after the first
SHOWN = (512, 4096)  # px, height and width of what a browser is shown on the way, at most
QUALITY = 85  # of JPEG

Box = tuple[float, float, float, float]  # left, top, width, height, px


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What can be said of a picture before it is drawn."""

    height: int  # px
    width: int  # px
    maps: list[Image.Image]  # on the canvas, one per control
    notes: list[str]
    boxes: list[Box]  # of the windows; none where they are no rectangles
    anchors: list[int]  # the windows that others follow, by their index; none where a picture is followed
    kind: str  # a ring, a sphere, or an empty text
    windows: int


class Studio:
    """Makes control maps at once, and pictures one after the other.

    Args:
        machine: flags of the machine: device, dtype, offload, offline.
        limits: of what is asked for.
    """

    def __init__(self, machine: Mapping[str, Any], limits: Limits) -> None:
        self.machine, self.limits = machine, limits
        self.line = Line(limits)
        self._workers: OrderedDict[Request, Worker] = OrderedDict()
        self._detectors: OrderedDict[str, preprocess.Detector] = OrderedDict()
        self._detecting, self._loading = threading.Lock(), threading.Lock()
        self._warming: threading.Thread | None = None

    def look(self, job: Job, options: Mapping[str, Mapping[str, Option]]) -> Look:
        """Returns a job's control maps and windows, without loading its model.

        Args:
            job: what is wanted.
            options: of detectors, by control type.

        Raises:
            SyncControlError: a file, size, setting or detector is wrong.
        """
        geometry = hub.geometry(job.recipe.request.model, job.recipe.request.offline)
        notes: list[str] = []
        laid = maps.lay(job, geometry, notes.append)
        self.limits.check_drawn(laid.width, laid.height, job.recipe.sampling.steps)
        with self._detecting:
            found = maps.control_maps(job, laid, geometry, partial(self._detect, options))
        notes += [*runtime.remarks(job.recipe.request, job.detected), *maps.remarks(found, job.recipe)]
        return Look(
            height=laid.height,
            width=laid.width,
            maps=found,
            notes=notes,
            boxes=_boxes(laid.layout, geometry.cell),
            anchors=_anchors(job, laid, geometry.cell),
            kind=laid.layout.kind,
            windows=len(laid.layout),
        )

    def enlist(self, job: Job, owner: str, done: Callable[[Job, Outcome], Any]) -> Ticket:
        """Returns the ticket of a job that is put in line; its result is what `done` makes of the outcome.

        Raises:
            BusyError: too many wait already.
        """
        ticket = Ticket(owner, lambda ticket: done(job, self._make(job, ticket)))
        ticket.steps = job.recipe.sampling.steps
        self.line.join(ticket)
        return ticket

    def _make(self, job: Job, ticket: Ticket) -> Outcome:
        worker = self._worker(job.recipe.request)
        ticket.check()
        task = worker.prepare(job)
        ticket.begin(job.recipe.sampling.steps)
        worker.draw(task, _Previews(ticket).on_step)
        ticket.check()
        task.settings = portable(task.settings)
        return worker.save(task)

    def warm(self, job: Job) -> None:
        """Begins to load the model of a job, so that the first picture waits less."""
        self._warming = threading.Thread(target=lambda: self._worker(job.recipe.request), daemon=True)
        self._warming.start()

    def close(self) -> None:
        """Ends what is under way, after its step."""
        self.line.close()
        if self._warming is not None:
            self._warming.join()
        self._detecting.acquire()  # nothing is detected any more

    def _worker(self, request: Request) -> Worker:
        with self._loading:
            if request not in self._workers:
                while len(self._workers) >= WORKERS:
                    self._workers.popitem(last=False)  # its memory is free before the next takes some
                self._workers[request] = Worker(request)
            self._workers.move_to_end(request)
            return self._workers[request]

    def _detect(
        self, options: Mapping[str, Mapping[str, Option]], recipe: Recipe, control: str, name: str | None
    ) -> preprocess.Detector:
        own, request, loop = options.get(control, {}), recipe.request, recipe.windows.closed
        key = json.dumps([control, name, loop, request.device, request.offline, own], sort_keys=True)
        if key not in self._detectors:
            self._detectors[key] = runtime.detector(request, control, name, loop, **own)
            while len(self._detectors) > DETECTORS:
                self._detectors.popitem(last=False)
        return self._detectors[key]


class _Previews:
    """Shows a picture on its way, as often as it costs little."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket, self._cost, self._last = ticket, 0.0, 0.0

    def on_step(self, job: Job, step: Step) -> None:
        """Notes a step, and shows it. Raises `Stopped` if somebody wants an end."""
        self._ticket.step = step.index + 1
        self._ticket.check()
        now = time.monotonic()
        if step.result is not None or now - self._last < self._cost / PREVIEW_SHARE:
            return
        self._ticket.shown = jpeg(step.render())
        self._last = time.monotonic()
        self._cost = self._last - now


def jpeg(image: Image.Image) -> str:
    """Returns a picture as a data URL, no larger than it is shown."""
    image = image.convert("RGB")
    image.thumbnail(SHOWN[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings in which files stand by their name alone: visitors know no folders of this machine."""
    found = {**settings, **{name: Path(settings[name]).name for name in SINGLE if isinstance(settings.get(name), str)}}
    return {**found, "control_map": [Path(path).name for path in settings["control_map"]]}


def _anchors(job: Job, laid: maps.Laid, cell: int) -> list[int]:
    """Returns the windows that others follow: one, or one for each region. Raises `ConfigError` for wrong regions."""
    anchor = anchored(job.recipe).anchor
    shares = window_shares(job.picture(laid.height, laid.width), None, laid.layout, cell)
    if shares is None:
        index = anchor_index(anchor, laid.layout)
        return [] if index is None else [index]
    return list(of_regions(anchor, laid.layout, shares).windows)


def _boxes(layout: AbstractLayout, cell: int) -> list[Box]:
    """Returns where the windows of a flat canvas or a ring lie, px."""
    if not isinstance(layout, Layout):
        return []
    h, w = layout.window
    return [(left * cell, top * cell, w * cell, h * cell) for top, left in layout.origins]


def nameless(text: str, folder: Path) -> str:
    """Returns a line without the folder in which a visitor's files lie: they are called as they were handed over."""
    return re.sub(rf"{re.escape(str(folder))}/(\d+/)?", "", text)
