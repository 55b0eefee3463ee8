"""How much visitors of the page may ask for, so that nobody takes the machine from the others."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from synccontrol.errors import ConfigError, InputError, SyncControlError
from synccontrol.spec.schema import Settings, setting

MEGA = 1_000_000


class BusyError(SyncControlError):
    """So much is waiting already that nothing more is taken."""


class Limits(Settings):
    """The most of everything. Raises `ConfigError` for what is no whole number above 0."""

    prefix: ClassVar[str] = "max-"  # of flags

    upload: int = setting(32, "megabytes of one file that is handed over", minimum=1)
    pixels: int = setting(60, "megapixels of a picture that is handed over", minimum=1)
    canvas: int = setting(8, "megapixels of a picture that is drawn", minimum=1)
    steps: int = setting(100, "denoising steps", minimum=1)
    variations: int = setting(4, "pictures at one press of Draw", minimum=1)
    queue: int = setting(20, "pictures that wait or are drawn, of all visitors together", minimum=1)
    each: int = setting(4, "pictures that wait or are drawn, of one visitor", minimum=1)
    visitors: int = setting(100, "pages that are open at the same time", minimum=1)
    history: int = setting(40, "pictures of a visitor that are kept; the oldest goes first", minimum=1)

    def check_bytes(self, count: int) -> None:
        """Raises `InputError` for a file of too many bytes."""
        if count > self.upload * MEGA:
            raise InputError(f"the file has {count / MEGA:.0f} MB, and {self.upload} MB are the most; make it smaller")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises `InputError` for a picture of too many pixels, which is not to be decoded then."""
        if width * height > self.pixels * MEGA:
            raise InputError(
                f"the picture has {width}x{height} pixels, and {self.pixels} megapixels are the most; scale it down"
            )

    def check_drawn(self, width: int, height: int, steps: int) -> None:
        """Raises `ConfigError` for a picture that would take too long."""
        if width * height > self.canvas * MEGA:
            raise ConfigError(f"{width}x{height} is more than the {self.canvas} megapixels that this page draws")
        if steps > self.steps:
            raise ConfigError(f"{steps} steps are more than the {self.steps} that this page takes")


WAITING, DRAWING, OVER = "waiting", "drawing", "over"


class Stopped(Exception):
    """Somebody wants an end of a picture that is being drawn."""


class Ticket:
    """A picture in line, whom it belongs to, and what has become of it. Others read it at any time.

    Args:
        owner: whose it is.
        work: draws it; it is given the ticket, calls `check` between two steps, and returns what comes out.

    Attributes:
        state: WAITING, DRAWING or OVER.
        result: what the work returned.
        error: what it raised; `Stopped` for a picture that was stopped.
        step: how many steps are done.
        steps: of how many.
        done: share 0..1 of the work that is done.
        shown: the newest preview, as a data URL; empty: there is none yet.
    """

    def __init__(self, owner: str, work: Callable[["Ticket"], Any]) -> None:
        self.owner, self._work = owner, work
        self.state = WAITING
        self.result: Any = None
        self.error: Exception | None = None
        self.step = self.steps = 0
        self.done = 0.0
        self.shown = ""
        self._stop = threading.Event()
        self._began = 0.0

    @property
    def stopped(self) -> bool:
        """Returns whether somebody wants an end."""
        return self._stop.is_set()

    @property
    def seconds_left(self) -> float | None:
        """Returns about how long the rest of the work takes; None before the first step is done."""
        if self.state != DRAWING or not self.done:
            return None
        return (time.monotonic() - self._began) * (1 - self.done) / self.done

    def stop(self) -> None:
        """Has it end: at once while it waits, after the current step while it is drawn."""
        self._stop.set()

    def check(self) -> None:
        """Raises `Stopped` if somebody wants an end."""
        if self.stopped:
            raise Stopped

    def begin(self, steps: int) -> None:
        """Notes that the first of so many steps begins."""
        self.steps, self._began = steps, time.monotonic()

    def see(self, step: int, steps: int, done: float, shown: str = "") -> None:
        """Notes that so many steps of all are done, and a preview as a data URL where there is a new one."""
        self.step, self.steps, self.done, self.shown = step, steps, done, shown or self.shown

    def forget(self) -> None:
        """Lets go of previews and results: whoever waited has seen them."""
        self.shown, self.result = "", None

    def run(self) -> None:
        """Does the work; whatever it raises is kept."""
        self.state = DRAWING
        try:
            self.check()
            self.result = self._work(self)
        except Exception as error:
            self.error = error
        finally:
            self.state = OVER


class Line:
    """Pictures that wait for their turn, first come, first served; `hands` are drawn at a time.

    Args:
        limits: how many may wait, of all and of one visitor.
        hands: how many are drawn at a time.
    """

    def __init__(self, limits: Limits, hands: int = 1) -> None:
        self._limits = limits
        self._waiting: deque[Ticket] = deque()
        self._drawn: list[Ticket] = []
        self._change = threading.Condition()
        for _ in range(hands):
            threading.Thread(target=self._serve, daemon=True).start()

    def join(self, ticket: Ticket) -> None:
        """Puts a picture at the end. Raises `BusyError` if too many wait, of all visitors or of this one."""
        with self._change:
            everybody = [*self._waiting, *self._drawn]
            own = [one for one in everybody if one.owner == ticket.owner]
            if len(own) >= self._limits.each:
                raise BusyError(f"{len(own)} pictures of yours are waiting or being drawn; wait for one, or stop one")
            if len(everybody) >= self._limits.queue:
                raise BusyError(f"{len(everybody)} pictures are waiting already; try again in a while")
            self._waiting.append(ticket)
            self._change.notify_all()

    def ahead(self, ticket: Ticket) -> int:
        """Returns how many pictures come before one that waits; 0 for any other."""
        with self._change:
            if ticket not in self._waiting:
                return 0
            return len(self._drawn) + self._waiting.index(ticket)

    def stop(self, owner: str) -> int:
        """Stops all pictures of an owner, and returns how many; those that wait leave the line."""
        with self._change:
            leaving = [one for one in self._waiting if one.owner == owner]
            own = [*leaving, *(one for one in self._drawn if one.owner == owner)]
            for ticket in own:
                ticket.stop()
            for ticket in leaving:
                self._waiting.remove(ticket)
        for ticket in leaving:
            ticket.run()  # which ends at once, and says so
        return len(own)

    def close(self) -> None:
        """Stops all pictures, and waits for the steps that are under way."""
        with self._change:
            owners = {one.owner for one in (*self._waiting, *self._drawn)}
        for owner in owners:
            self.stop(owner)
        with self._change:
            while self._drawn:
                self._change.wait()

    def _serve(self) -> None:
        while True:
            with self._change:
                while not self._waiting:
                    self._change.wait()
                ticket = self._waiting.popleft()
                self._drawn.append(ticket)
            ticket.run()
            with self._change:
                self._drawn.remove(ticket)
                self._change.notify_all()
