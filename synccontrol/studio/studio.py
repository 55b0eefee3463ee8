"""`Studio`: what all visitors share, which is models, detectors and the line for them."""

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
from synccontrol.batch.job import Job, Outcome, Recipe, anchored
from synccontrol.batch.model_request import Detectors
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import Layout
from synccontrol.errors import SyncControlError
from synccontrol.models import loader
from synccontrol.pipeline.denoise import window_shares
from synccontrol.pipeline.inputs import Canvas
from synccontrol.preprocess.control import Option
from synccontrol.sampling.anchors import of_canvas
from synccontrol.studio.backends import AbstractHand, Hand
from synccontrol.studio.queue import Limits, Line, Ticket

Box = tuple[float, float, float, float]  # left, top, width, height, px
FOLDERS = re.compile(r"(?<![\w/:.])(?:/[^\s/'\";,:]+)+/")  # of an absolute path, without its last part


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
        hands: what draws; this process if none are given.
    """

    def __init__(self, machine: Mapping[str, Any], limits: Limits, hands: Sequence[AbstractHand] = ()) -> None:
        self.machine, self.limits = machine, limits
        self._hands = hands or [Hand()]
        self._idle: queue.SimpleQueue[AbstractHand] = queue.SimpleQueue()
        for hand in self._hands:
            self._idle.put(hand)
        self.line = Line(limits, len(self._hands))
        self._detectors = Detectors()
        self._detecting = threading.Lock()

    def look(self, job: Job, options: Mapping[str, Mapping[str, Option]]) -> Look:
        """Returns a job's control maps and windows, without loading its model.

        Args:
            job: what is wanted.
            options: of detectors, by control type.

        Raises:
            SyncControlError: a file, size, setting or detector is wrong.
        """
        geometry = loader.geometry(job.recipe.request.model, job.recipe.request.offline)
        notes: list[str] = []
        canvas = prepare.prepare_canvas(job, geometry, notes.append)
        times = job.recipe.upscale.upscale
        self.limits.check_drawn(times * canvas.width, times * canvas.height, job.recipe.sampling.steps)
        with self._detecting:
            detected = partial(prepare.control_maps, job, canvas, geometry, partial(self._detect, options))
            found = self._detectors.make_room(detected)
        notes += [*model_request.remarks(job.recipe.request, job.detected), *prepare.remarks(found, job.recipe)]
        return Look(
            height=canvas.height,
            width=canvas.width,
            maps=found,
            notes=notes,
            boxes=_boxes(canvas.layout, geometry.cell),
            anchors=_anchors(job, canvas, geometry.cell),
            kind=canvas.layout.kind,
            windows=len(canvas.layout),
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
        hand = self._idle.get()
        try:
            return hand.make(job, ticket)
        finally:
            self._idle.put(hand)

    def warm(self, job: Job) -> None:
        """Begins to load the model of a job, so that the first picture waits less."""

        def load(hand: AbstractHand) -> None:
            with contextlib.suppress(SyncControlError):  # whoever asks for a picture is told
                hand.warm(job.recipe.request)

        for hand in self._hands:
            threading.Thread(target=load, args=[hand], daemon=True).start()

    def close(self) -> None:
        """Ends what is under way, after its step."""
        self.line.close()
        for hand in self._hands:
            hand.close()
        self._detecting.acquire()  # nothing is detected any more

    def _detect(
        self, options: Mapping[str, Mapping[str, Option]], recipe: Recipe, control: str, name: str | None
    ) -> preprocess.Detector:
        return self._detectors.load(recipe, control, name, **options.get(control, {}))


def _anchors(job: Job, canvas: Canvas, cell: int) -> list[int]:
    """Return the anchor windows: one, or one for each region. Raises `ConfigError` for wrong regions."""
    shares = window_shares(job.picture(canvas.height, canvas.width), None, canvas.layout, cell)
    return list(of_canvas(anchored(job.recipe).anchor, canvas.layout, shares).windows)


def _boxes(layout: AbstractLayout, cell: int) -> list[Box]:
    """Returns where the windows of a flat canvas or a ring lie, px."""
    if not isinstance(layout, Layout):
        return []
    h, w = layout.window
    return [(left * cell, top * cell, w * cell, h * cell) for top, left in layout.origins]


def nameless(text: str, folder: Path) -> str:
    """Returns a line without folders: visitors' files are called as they were handed over, others by name alone."""
    return FOLDERS.sub("", re.sub(rf"{re.escape(str(folder))}/(\d+/)?", "", text))
