"""`Making`: pictures in line and on their way, as visitors see them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from synccontrol.app import beside, showing, wish
from synccontrol.app.asking import Asked, seeds
from synccontrol.app.handing import FIRST_GUIDE
from synccontrol.app.limits import BusyError
from synccontrol.app.line import OVER, Stopped, Ticket
from synccontrol.app.looking import Looking
from synccontrol.app.studio import Look, nameless
from synccontrol.app.visitor import Entry, Visitor
from synccontrol.errors import InputError, SyncControlError
from synccontrol.jobs.job import Job
from synccontrol.jobs.outcome import Outcome
from synccontrol.picture import followed

POLL_SECONDS = 0.1  # between looks at what a picture has become
PICTURE_TAB = "picture"


class Making:
    """Has pictures made.

    Args:
        page: who asks, and for what.

    Attributes:
        shown: the parts of the page by name; the page sets them.
    """

    def __init__(self, page: Looking) -> None:
        self._page = page
        self.shown: dict[str, Any] = {}

    def warm(self) -> None:
        """Begins to load the model with which most begin."""
        given = {"model": self._page.models[0], "control": ["depth"], "guide": FIRST_GUIDE}
        given |= beside.given({}, None, self._page.extras)
        with contextlib.suppress(SyncControlError):  # whoever asks for it is told
            self._page.studio.warm(wish.job(given, self._page.studio.machine, FIRST_GUIDE.with_suffix(".png")))

    async def draw(self, request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        """Yields pictures on their way, and what is said of them, until all are finished."""
        picture, news, history, tabs = (self.shown[name] for name in ("picture", "status", "history", "tabs"))
        try:
            visitor = self._page.visitor(request)
        except SyncControlError as error:
            yield {news: showing.failure(error)}
            return
        try:
            look, tickets = await asyncio.to_thread(
                self._enlisted, visitor, self._page.named(values), str(request.session_hash)
            )
        except Exception as error:
            yield {news: self._page.failed(error, visitor)}
            return
        yield {tabs: gr.Tabs(selected=PICTURE_TAB), picture: showing.drawing(tickets, look)}
        before: Any = None
        line = self._page.studio.line
        while any(ticket.state != OVER for ticket in tickets):
            aheads = [line.ahead(one) for one in tickets]
            now = [(one.state, one.step, one.stopped, id(one.shown)) for one in tickets], aheads
            if now != before:
                before = now
                yield {
                    picture: showing.drawing(tickets, look),
                    news: showing.progress(tickets, aheads),
                    history: showing.history(visitor) if any(ticket.result for ticket in tickets) else gr.skip(),
                }
            await asyncio.sleep(POLL_SECONDS)
        yield {
            picture: showing.drawing(tickets, look),
            news: self._ended(tickets, visitor),
            history: await asyncio.to_thread(showing.history, visitor),
        }
        for ticket in tickets:
            ticket.forget()

    def _enlisted(self, visitor: Visitor, values: Mapping[str, Any], owner: str) -> tuple[Look, list[Ticket]]:
        """Returns the pictures that are asked for, in line. Raises `SyncControlError` for what makes no sense."""
        found, look = self._page.looked(visitor, values)
        first = ""
        if found.options:  # no flag of drawing says them, so the map that is seen is the one that is followed
            first = wish.map_command(found.given, found.options)
            found = found.with_maps(self._saved_maps(found, look, visitor))
        tickets: list[Ticket] = []
        for seed in seeds(values, self._page.limits.variations):
            one = Asked(given={**found.given, "seed": seed}, options={}, notes=found.notes)
            stem = visitor.guide.stem if "guide" in one.given and visitor.guide else "picture"
            job = one.job(self._page.studio.machine, visitor.place() / f"{stem}-{seed}.png")
            add = adder(visitor, first + wish.command(one.given))
            try:
                tickets.append(self._page.studio.enlist(job, owner, add))
            except BusyError:
                for ticket in tickets:
                    ticket.stop()
                raise
        return look, tickets

    def _saved_maps(self, found: Asked, look: Look, visitor: Visitor) -> dict[str, Path]:
        maps = {}
        for control, image in zip(followed(found.given["control"]), look.maps, strict=True):
            if control in found.options:
                maps[control] = visitor.place() / f"{wish.MAP}.{control}.png"
                image.save(maps[control])
        return maps

    def _ended(self, tickets: list[Ticket], visitor: Visitor) -> dict[str, Any]:
        errors = [one.error for one in tickets if one.error is not None]
        others = [error for error in errors if not isinstance(error, Stopped)]
        if others:
            return self._page.failed(others[0], visitor)
        if errors:
            steps = max(one.step for one in tickets if one.error is not None)
            return showing.status(f"Stopped after step {steps}; the last preview stays.")
        notes = list(dict.fromkeys(note for one in tickets for note in one.result.notes))
        return showing.status(" ".join(["Done.", *notes]), done=1.0)

    def stop(self, request: gr.Request) -> Any:
        """Stops all pictures of a visitor that wait or are drawn."""
        count = self._page.studio.line.stop(str(request.session_hash))
        return gr.skip() if count else showing.status("Nothing is being drawn.")  # what is, says so itself

    def leave(self, request: gr.Request) -> None:
        """Stops and removes what a page that is closed has left."""
        session = str(request.session_hash)
        self._page.studio.line.stop(session)
        self._page.visitors.leave(session)


def adder(visitor: Visitor, command: str) -> Callable[[Job, Outcome], Entry]:
    """Returns what makes an entry of a picture that is drawn. It raises `InputError` for one that failed."""

    def add(job: Job, outcome: Outcome) -> Entry:
        if outcome.error:
            raise InputError(outcome.error)
        notes = tuple(nameless(note, visitor.folder) for note in outcome.notes)
        return visitor.add(job.output, outcome.settings, notes, command)

    return add
