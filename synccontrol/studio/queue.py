"""The queue of the page: limits, tickets, and the threads that generate images."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from synccontrol.errors import ConfigError, InputError, SyncControlError
from synccontrol.spec.schema import Settings, setting

MEGA = 1_000_000


class BusyError(SyncControlError):
    """The queue is full."""


class Limits(Settings):
    """Limits of requests. Raises `ConfigError` for a value that is no whole number above 0."""

    prefix: ClassVar[str] = "max-"  # of flags

    upload: int = setting(32, "megabytes of an uploaded file", minimum=1)
    pixels: int = setting(60, "megapixels of an uploaded image", minimum=1)
    canvas: int = setting(8, "megapixels of a generated image", minimum=1)
    steps: int = setting(100, "denoising steps", minimum=1)
    variations: int = setting(4, "images of one request", minimum=1)
    queue: int = setting(20, "images in the queue, of all sessions", minimum=1)
    each: int = setting(4, "images in the queue, of one session", minimum=1)
    visitors: int = setting(100, "sessions, which are open pages", minimum=1)
    history: int = setting(40, "images in the history of a session; the oldest is removed first", minimum=1)

    def check_bytes(self, count: int) -> None:
        """Raise `InputError` for a file of too many bytes."""
        if count > self.upload * MEGA:
            raise InputError(f"the file has {count / MEGA:.0f} MB, and {self.upload} MB are the most; make it smaller")

    def check_pixels(self, width: int, height: int) -> None:
        """Raise `InputError` for an image of too many pixels; call it before decoding."""
        if width * height > self.pixels * MEGA:
            raise InputError(
                f"the image has {width}x{height} pixels, and {self.pixels} megapixels are the most; scale it down"
            )

    def check_canvas(self, width: int, height: int, steps: int) -> None:
        """Raise `ConfigError` for an image that would take too long."""
        if width * height > self.canvas * MEGA:
            raise ConfigError(f"{width}x{height} is more than the {self.canvas} megapixels that this page generates")
        if steps > self.steps:
            raise ConfigError(f"{steps} steps are more than the {self.steps} that this page takes")


WAITING, GENERATING, ENDED = "waiting", "generating", "ended"


class Stopped(Exception):
    """The image was stopped."""


class Ticket:
    """An image in the queue, and its state. Any thread may read it.

    Args:
        owner: whose image it is.
        work: generates it; it receives the ticket, calls `check` between two steps, and returns the result.

    Attributes:
        state: WAITING, GENERATING or ENDED.
        result: the result of the work.
        error: the error of the work; `Stopped` for a stopped image.
        step: number of finished steps.
        steps: number of all steps.
        done: share of the work that is done, 0..1.
        preview: the newest preview as a data URL; empty before the first one.
    """

    def __init__(self, owner: str, work: Callable[["Ticket"], Any]) -> None:
        self.owner, self._work = owner, work
        self.state = WAITING
        self.result: Any = None
        self.error: Exception | None = None
        self.step = self.steps = 0
        self.done = 0.0
        self.preview = ""
        self._stop = threading.Event()
        self._began = 0.0

    @property
    def stopped(self) -> bool:
        """Return whether the image was stopped."""
        return self._stop.is_set()

    @property
    def seconds_left(self) -> float | None:
        """Return an estimate of the remaining time; None before the first step is done."""
        if self.state != GENERATING or not self.done:
            return None
        return (time.monotonic() - self._began) * (1 - self.done) / self.done

    def stop(self) -> None:
        """Stop the image: at once while it waits, else after the current step."""
        self._stop.set()

    def check(self) -> None:
        """Raise `Stopped` if the image was stopped."""
        if self.stopped:
            raise Stopped

    def begin(self, steps: int) -> None:
        """Record that the first of `steps` steps begins."""
        self.steps, self._began = steps, time.monotonic()

    def report(self, step: int, steps: int, done: float, preview: str = "") -> None:
        """Record the progress, and a new preview as a data URL."""
        self.step, self.steps, self.done, self.preview = step, steps, done, preview or self.preview

    def forget(self) -> None:
        """Free preview and result."""
        self.preview, self.result = "", None

    def run(self) -> None:
        """Do the work, and record its result or error."""
        self.state = GENERATING
        try:
            self.check()
            self.result = self._work(self)
        except Exception as error:
            self.error = error
        finally:
            self.state = ENDED


class JobQueue:
    """Images that wait for their turn, first come, first served.

    Args:
        limits: of waiting images.
        slots: number of images that are generated at a time.
    """

    def __init__(self, limits: Limits, slots: int = 1) -> None:
        self._limits = limits
        self._waiting: deque[Ticket] = deque()
        self._active: list[Ticket] = []
        self._change = threading.Condition()
        for _ in range(slots):
            threading.Thread(target=self._serve, daemon=True).start()

    def put(self, ticket: Ticket) -> None:
        """Append an image. Raises `BusyError` if too many wait, of all sessions or of this one."""
        with self._change:
            tickets = [*self._waiting, *self._active]
            own = [other for other in tickets if other.owner == ticket.owner]
            if len(own) >= self._limits.each:
                raise BusyError(f"{len(own)} images of yours are in the queue; wait for one, or stop one")
            if len(tickets) >= self._limits.queue:
                raise BusyError(f"{len(tickets)} images are in the queue; try again in a while")
            self._waiting.append(ticket)
            self._change.notify_all()

    def ahead(self, ticket: Ticket) -> int:
        """Return the number of images before one that waits; 0 for any other."""
        with self._change:
            if ticket not in self._waiting:
                return 0
            return len(self._active) + self._waiting.index(ticket)

    def stop(self, owner: str) -> int:
        """Stop all images of an owner, and return their number; waiting ones leave the queue."""
        with self._change:
            leaving = [ticket for ticket in self._waiting if ticket.owner == owner]
            own = [*leaving, *(ticket for ticket in self._active if ticket.owner == owner)]
            for ticket in own:
                ticket.stop()
            for ticket in leaving:
                self._waiting.remove(ticket)
        for ticket in leaving:
            ticket.run()  # ends at once, with `Stopped`
        return len(own)

    def close(self) -> None:
        """Stop all images, and wait for their current steps."""
        with self._change:
            owners = {ticket.owner for ticket in (*self._waiting, *self._active)}
        for owner in owners:
            self.stop(owner)
        with self._change:
            while self._active:
                self._change.wait()

    def _serve(self) -> None:
        while True:
            with self._change:
                while not self._waiting:
                    self._change.wait()
                ticket = self._waiting.popleft()
                self._active.append(ticket)
            ticket.run()
            with self._change:
                self._active.remove(ticket)
                self._change.notify_all()
