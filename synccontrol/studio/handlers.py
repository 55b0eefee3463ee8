"""`Looking`: who asks, what their fields hold, and the control map of it."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from synccontrol import preprocess
from synccontrol.batch.job import Job, Outcome
from synccontrol.errors import InputError, SyncControlError, describe, for_page
from synccontrol.io import poses
from synccontrol.spec.image_spec import followed
from synccontrol.spec.settings import Adapters
from synccontrol.studio import form, form_values, messages, session
from synccontrol.studio.form import SLOTS, Fields
from synccontrol.studio.form_values import restored
from synccontrol.studio.queue import OVER, BusyError, Stopped, Ticket
from synccontrol.studio.request import Asked, asked, seeds
from synccontrol.studio.server import key_of
from synccontrol.studio.session import Entry, Visitor, Visitors
from synccontrol.studio.studio import Look, Studio, nameless


class Looking:
    """Shows visitors what a picture would follow; each sees their own files, and all share one studio.

    Args:
        studio: what draws.
        visitors: who is there.
        models: those on offer.
        adapters: what is loaded into them.

    Attributes:
        fields: of the page, by name; the page sets them.
    """

    def __init__(
        self, studio: Studio, visitors: Visitors, models: tuple[str, ...], adapters: Adapters = Adapters()
    ) -> None:
        self.studio, self.visitors, self.models, self.adapters = studio, visitors, models, adapters
        self.limits, self.offline = studio.limits, bool(studio.machine["offline"])
        self.fields: Fields = {}

    def visitor(self, request: gr.Request) -> Visitor:
        """Returns who asks. Raises `BusyError` if too many are there."""
        return self.visitors.of(str(request.session_hash), key_of(request.headers.get("cookie", "")))

    def look(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Returns the control maps, and what is said of them."""
        try:
            visitor = self.visitor(request)
        except SyncControlError as error:
            return gr.skip(), messages.failure(error)
        try:
            found, look = self.looked(visitor, self.named(values))
        except Exception as error:
            return {"figures": [], "notes": [self.said(error, visitor)]}, self.failed(error, visitor)
        controls = followed(found.given.get("control", []))
        notes = [nameless(note, visitor.folder) for note in (*found.notes, *look.notes)]
        value = {**messages.maps(look, controls), "notes": notes}
        windows = "1 window" if look.windows == 1 else f"{look.windows} windows"
        return value, messages.status(f"{look.width}x{look.height} px, {windows}. " + " ".join(notes))

    def map(self, request: gr.Request, *values: Any) -> Any:
        """Returns the control maps alone, where the news are of something else."""
        return self.look(request, *values)[0]

    def looked(self, visitor: Visitor, values: Mapping[str, Any]) -> tuple[Asked, Look]:
        """Returns what is asked for, and what can be said of it. Raises `SyncControlError` for what makes no sense."""
        found = asked(values, visitor, self.models, self.offline, self.adapters)
        job = found.job(self.studio.machine, visitor.folder / "picture.png")
        return found, self.studio.look(job, found.options)

    def named(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """Returns values of the fields by name."""
        return dict(zip(self.fields, values, strict=True))

    def failed(self, error: Exception, visitor: Visitor) -> dict[str, Any]:
        """Returns an error as the line of news."""
        return messages.status(self.said(error, visitor), error=True)

    def said(self, error: Exception, visitor: Visitor) -> str:
        """Returns an error in one line."""
        return nameless(for_page(describe(error)), visitor.folder)


FIRST_GUIDE = Path(__file__).parent / "assets" / "valley.webp"
GUIDE, START, MAP = "guide", "start", "map"  # uses of what is handed over; of maps, with the place of the control
MAP_TAB = "map"


class Handing:
    """Takes what visitors hand over.

    Args:
        page: who asks, and what is shown of it.
    """

    def __init__(self, page: Looking) -> None:
        self._page = page

    def open(self, request: gr.Request, *values: Any) -> tuple[Any, Any, Any]:
        """Returns what a page shows that has just been opened: a guide, and its control map."""
        try:
            visitor = self._page.visitor(request)
        except SyncControlError as error:
            return gr.skip(), gr.skip(), messages.failure(error)
        visitor.guide = Path(shutil.copy(FIRST_GUIDE, visitor.place()))
        look, news = self._page.look(request, *values)
        return {"guide": f"synccontrol/assets/{FIRST_GUIDE.name}", "name": FIRST_GUIDE.name}, look, news

    def take(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any, Any]:
        """Takes what a visitor hands over, a guide or a ready-made map, and returns the control map."""
        try:
            visitor = self._page.visitor(request)
            data = session.content(event.data, self._page.limits)
            path = session.save(data, event.name, visitor.place(), self._page.limits)
            self._place(visitor, path, str(event.role), values)
            start = messages.handed(visitor.start)
        except SyncControlError as error:
            return gr.skip(), messages.failure(error), gr.skip(), gr.skip()
        is_map = str(event.role).startswith(MAP) or path.suffix == poses.SUFFIX
        tab = gr.Tabs(selected=MAP_TAB) if is_map else gr.skip()
        return *self._page.look(request, *values), tab, start

    def _place(self, visitor: Visitor, path: Path, role: str, values: tuple[Any, ...]) -> None:
        """Puts a file to its use; OpenPose JSON is the map of the control pose, wherever that is chosen."""
        if path.suffix == poses.SUFFIX:
            controls = [self._page.named(values)[f"control{slot}"] for slot in range(SLOTS)]
            if "pose" not in controls:
                raise InputError(f"{path.name} is JSON, which only the control pose reads; choose pose first")
            role = f"{MAP}{controls.index('pose')}"
        if role == GUIDE:
            visitor.guide = path
            visitor.ready.clear()
        elif role == START:
            visitor.start, visitor.mask = path, None
        elif role in [f"{MAP}{slot}" for slot in range(SLOTS)]:
            visitor.ready[int(role.removeprefix(MAP))] = path
        else:
            raise InputError(f"{role!r} is no use of a picture")

    def forget(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Forgets the guide and ready-made maps."""
        visitor = self._page.visitor(request)
        visitor.guide = None
        visitor.ready.clear()
        return self._page.look(request, *values)

    def start(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any]:
        """Has the next picture start from one of the history; or, where none is named, from noise alone."""
        visitor = self._page.visitor(request)
        entry = visitor.entries.get(str(event._data.get("token")))
        visitor.start, visitor.mask = None if entry is None else entry.path, None
        return messages.handed(visitor.start), *self._page.look(request, *values)

    def mask(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any]:
        """Takes which part of the picture that is started from is drawn anew; an empty text: all of it."""
        try:
            visitor = self._page.visitor(request)
            visitor.mask = None
            if event.data:
                data = session.content(event.data, self._page.limits)
                visitor.mask = session.save(data, "mask", visitor.place(), self._page.limits)
        except SyncControlError as error:
            return gr.skip(), messages.failure(error)
        return self._page.look(request, *values)

    def refer(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any]:
        """Takes what the IP-Adapter is shown; an empty text: nothing."""
        visitor, path = self._page.visitor(request), None
        try:
            if event.data:
                data = session.content(event.data, self._page.limits)
                path = session.save(data, event.name, visitor.place(), self._page.limits)
            shown = messages.handed(path)
        except SyncControlError as error:
            return gr.skip(), gr.skip(), self._page.failed(error, visitor)
        visitor.reference = path
        return shown, *self._page.look(request, *values)

    def restore(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Returns the settings of a picture of ours that is handed over, for the fields; files it names stay closed."""
        visitor = self._page.visitor(request)
        try:
            data = session.content(event.data, self._page.limits)
            path = session.save(data, event.name, visitor.place(), self._page.limits)
            known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
            values, notes = restored(path, self._page.models, known, self._page.adapters)
        except SyncControlError as error:
            return [*(gr.skip() for _ in self._page.fields), self._page.failed(error, visitor)]
        return [*form.filled(self._page.fields, values), messages.status(" ".join(["Settings restored.", *notes]))]

    def again(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Returns the settings of a picture in the history, for the fields."""
        entry = self._page.visitor(request).entries.get(str(event.token))
        if entry is None:
            return [*(gr.skip() for _ in self._page.fields), messages.failure(InputError("that picture is gone"))]
        known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
        values, _ = restored(entry.path, self._page.models, known, self._page.adapters)
        return [
            *form.filled(self._page.fields, values),
            messages.status("Settings restored; the guide stays as it is."),
        ]


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
        given |= form_values.adapter_flags({}, None, self._page.adapters)
        with contextlib.suppress(SyncControlError):  # whoever asks for it is told
            self._page.studio.warm(form_values.job(given, self._page.studio.machine, FIRST_GUIDE.with_suffix(".png")))

    async def draw(self, request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        """Yields pictures on their way, and what is said of them, until all are finished."""
        picture, news, history, tabs = (self.shown[name] for name in ("picture", "status", "history", "tabs"))
        try:
            visitor = self._page.visitor(request)
        except SyncControlError as error:
            yield {news: messages.failure(error)}
            return
        try:
            look, tickets = await asyncio.to_thread(
                self._enlisted, visitor, self._page.named(values), str(request.session_hash)
            )
        except Exception as error:
            yield {news: self._page.failed(error, visitor)}
            return
        yield {tabs: gr.Tabs(selected=PICTURE_TAB), picture: messages.drawing(tickets, look)}
        before: Any = None
        line = self._page.studio.line
        while any(ticket.state != OVER for ticket in tickets):
            aheads = [line.ahead(one) for one in tickets]
            now = [(one.state, one.step, one.stopped, id(one.shown)) for one in tickets], aheads
            if now != before:
                before = now
                yield {
                    picture: messages.drawing(tickets, look),
                    news: messages.progress(tickets, aheads),
                    history: messages.history(visitor) if any(ticket.result for ticket in tickets) else gr.skip(),
                }
            await asyncio.sleep(POLL_SECONDS)
        yield {
            picture: messages.drawing(tickets, look),
            news: self._ended(tickets, visitor),
            history: await asyncio.to_thread(messages.history, visitor),
        }
        for ticket in tickets:
            ticket.forget()

    def _enlisted(self, visitor: Visitor, values: Mapping[str, Any], owner: str) -> tuple[Look, list[Ticket]]:
        """Returns the pictures that are asked for, in line. Raises `SyncControlError` for what makes no sense."""
        found, look = self._page.looked(visitor, values)
        first = ""
        if found.options:  # no flag of drawing says them, so the map that is seen is the one that is followed
            first = form_values.map_command(found.given, found.options)
            found = found.with_maps(self._saved_maps(found, look, visitor))
        tickets: list[Ticket] = []
        for seed in seeds(values, self._page.limits.variations):
            one = Asked(given={**found.given, "seed": seed}, options={}, notes=found.notes)
            stem = visitor.guide.stem if "guide" in one.given and visitor.guide else "picture"
            job = one.job(self._page.studio.machine, visitor.place() / f"{stem}-{seed}.png")
            add = adder(visitor, first + form_values.command(one.given))
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
                maps[control] = visitor.place() / f"{form_values.MAP}.{control}.png"
                image.save(maps[control])
        return maps

    def _ended(self, tickets: list[Ticket], visitor: Visitor) -> dict[str, Any]:
        errors = [one.error for one in tickets if one.error is not None]
        others = [error for error in errors if not isinstance(error, Stopped)]
        if others:
            return self._page.failed(others[0], visitor)
        if errors:
            steps = max(one.step for one in tickets if one.error is not None)
            return messages.status(f"Stopped after step {steps}; the last preview stays.")
        notes = list(dict.fromkeys(note for one in tickets for note in one.result.notes))
        return messages.status(" ".join(["Done.", *notes]), done=1.0)

    def stop(self, request: gr.Request) -> Any:
        """Stops all pictures of a visitor that wait or are drawn."""
        count = self._page.studio.line.stop(str(request.session_hash))
        return gr.skip() if count else messages.status("Nothing is being drawn.")  # what is, says so itself

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
