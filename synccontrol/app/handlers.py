"""What the page does when a visitor does something."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

import preprocess
from synccontrol.app import filling, showing, uploads, wish
from synccontrol.app.asking import Asked, asked, seeds
from synccontrol.app.fields import SLOTS, Fields
from synccontrol.app.guard import key_of
from synccontrol.app.line import OVER, Stopped, Ticket
from synccontrol.app.restore import restored
from synccontrol.app.studio import Look, Studio, said
from synccontrol.app.visitor import Entry, Visitor, Visitors
from synccontrol.errors import InputError, SyncControlError
from synccontrol.files import poses
from synccontrol.jobs.job import Job
from synccontrol.jobs.outcome import Outcome
from synccontrol.terminal import describe

FIRST_GUIDE = Path(__file__).parent / "assets" / "valley.webp"
FIRST_PROMPT = "a mountain valley at sunset"
POLL_SECONDS = 0.1  # between looks at what a picture has become
MAP_TAB, PICTURE_TAB = "map", "picture"


class Handlers:
    """Answers visitors; each sees their own files, and all share one studio.

    Args:
        studio: what draws.
        visitors: who is there.
        models: those on offer.

    Attributes:
        fields: of the page, by name; the page sets them.
        shown: its parts, by name; likewise.
    """

    def __init__(self, studio: Studio, visitors: Visitors, models: tuple[str, ...]) -> None:
        self.studio, self.visitors, self.models = studio, visitors, models
        self.limits, self.offline = studio.limits, bool(studio.machine["offline"])
        self.fields: Fields = {}
        self.shown: dict[str, Any] = {}

    def warm(self) -> None:
        """Begins to load the model with which most begin."""
        given = {"model": self.models[0], "control": ["depth"], "guide": FIRST_GUIDE}
        with contextlib.suppress(SyncControlError):  # whoever asks for it is told
            self.studio.warm(wish.job(given, self.studio.machine, FIRST_GUIDE.with_suffix(".png")))

    def visitor(self, request: gr.Request) -> Visitor:
        """Returns who asks. Raises `BusyError` if too many are there."""
        return self.visitors.of(str(request.session_hash), key_of(request.headers.get("cookie", "")))

    def open(self, request: gr.Request, *values: Any) -> tuple[Any, Any, Any]:
        """Returns what a page shows that has just been opened: a guide, and its control map."""
        try:
            visitor = self.visitor(request)
        except SyncControlError as error:
            return gr.skip(), gr.skip(), showing.failure(error)
        visitor.guide = Path(shutil.copy(FIRST_GUIDE, visitor.place()))
        look, news = self.look(request, *values)
        return {"guide": f"synccontrol/assets/{FIRST_GUIDE.name}", "name": FIRST_GUIDE.name}, look, news

    def leave(self, request: gr.Request) -> None:
        """Stops and removes what a page that is closed has left."""
        session = str(request.session_hash)
        self.studio.line.stop(session)
        self.visitors.leave(session)

    def take(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any]:
        """Takes what a visitor hands over, a guide or a ready-made map, and returns the control map."""
        try:
            visitor = self.visitor(request)
            data = uploads.content(event.data, self.limits)
            path = uploads.save(data, event.name, visitor.place(), self.limits)
            self._place(visitor, path, str(event.role), values)
        except SyncControlError as error:
            return gr.skip(), showing.failure(error), gr.skip()
        tab = gr.Tabs(selected=MAP_TAB) if event.role != "guide" or path.suffix == poses.SUFFIX else gr.skip()
        return *self.look(request, *values), tab

    def _place(self, visitor: Visitor, path: Path, role: str, values: tuple[Any, ...]) -> None:
        """Puts a file to its use; OpenPose JSON is the map of the control pose, wherever that is chosen."""
        if path.suffix == poses.SUFFIX:
            controls = [self._named(values)[f"control{slot}"] for slot in range(SLOTS)]
            if "pose" not in controls:
                raise InputError(f"{path.name} is JSON, which only the control pose reads; choose pose first")
            role = f"map{controls.index('pose')}"
        if role == "guide":
            visitor.guide = path
            visitor.ready.clear()
        elif role in [f"map{slot}" for slot in range(SLOTS)]:
            visitor.ready[int(role.removeprefix("map"))] = path
        else:
            raise InputError(f"{role!r} is no use of a picture")

    def forget(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Forgets the guide and ready-made maps."""
        visitor = self.visitor(request)
        visitor.guide = None
        visitor.ready.clear()
        return self.look(request, *values)

    def look(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Returns the control maps, and what is said of them."""
        try:
            visitor = self.visitor(request)
        except SyncControlError as error:
            return gr.skip(), showing.failure(error)
        try:
            found, look = self._looked(visitor, self._named(values))
        except Exception as error:
            return {"figures": [], "notes": [self._said(error, visitor)]}, self._failed(error, visitor)
        controls = found.given.get("control", [])
        notes = [said(note, visitor.folder) for note in (*found.notes, *look.notes)]
        value = {**showing.maps(look, controls), "notes": notes}
        windows = "1 window" if look.windows == 1 else f"{look.windows} windows"
        return value, showing.status(f"{look.width}x{look.height} px, {windows}. " + " ".join(notes))

    def _looked(self, visitor: Visitor, values: Mapping[str, Any]) -> tuple[Asked, Look]:
        found = asked(values, visitor, self.models, self.offline)
        job = found.job(self.studio.machine, visitor.folder / "picture.png")
        return found, self.studio.look(job, found.options)

    async def draw(self, request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        """Yields pictures on their way, and what is said of them, until all are finished."""
        picture, news, history, tabs = (self.shown[name] for name in ("picture", "status", "history", "tabs"))
        try:
            visitor = self.visitor(request)
        except SyncControlError as error:
            yield {news: showing.failure(error)}
            return
        try:
            look, tickets = await asyncio.to_thread(
                self._enlisted, visitor, self._named(values), str(request.session_hash)
            )
        except Exception as error:
            yield {news: self._failed(error, visitor)}
            return
        yield {tabs: gr.Tabs(selected=PICTURE_TAB), picture: showing.drawing(tickets, look)}
        before: Any = None
        while any(ticket.state != OVER for ticket in tickets):
            now = [(one.state, one.step, id(one.shown), self.studio.line.ahead(one)) for one in tickets]
            if now != before:
                before = now
                yield {
                    picture: showing.drawing(tickets, look),
                    news: showing.progress(tickets, [ahead for *_, ahead in now]),
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
        found, look = self._looked(visitor, values)
        first = ""
        if found.options:  # no flag of drawing says them, so the map that is seen is the one that is followed
            first = wish.map_command(found.given, found.options)
            found = found.with_maps(self._saved_maps(found, look, visitor))
        tickets = []
        for seed in seeds(values, self.limits.variations):
            one = Asked(given={**found.given, "seed": seed}, options={}, notes=found.notes)
            stem = visitor.guide.stem if "guide" in one.given and visitor.guide else "picture"
            job = one.job(self.studio.machine, visitor.place() / f"{stem}-{seed}.png")
            tickets.append(self.studio.enlist(job, owner, self.adder(visitor, first + wish.command(one.given))))
        return look, tickets

    def _saved_maps(self, found: Asked, look: Look, visitor: Visitor) -> dict[str, Path]:
        maps = {}
        for control, image in zip(found.given["control"], look.maps, strict=True):
            if control in found.options:
                maps[control] = visitor.place() / f"{wish.MAP}.{control}.png"
                image.save(maps[control])
        return maps

    def adder(self, visitor: Visitor, command: str) -> Callable[[Job, Outcome], Entry]:
        """Returns what makes an entry of a picture that is drawn. It raises `InputError` for one that failed."""

        def add(job: Job, outcome: Outcome) -> Entry:
            if outcome.error:
                raise InputError(outcome.error)
            notes = tuple(said(note, visitor.folder) for note in outcome.notes)
            return visitor.add(job.output, outcome.settings, notes, command)

        return add

    def _ended(self, tickets: list[Ticket], visitor: Visitor) -> dict[str, Any]:
        errors = [one.error for one in tickets if one.error is not None]
        others = [error for error in errors if not isinstance(error, Stopped)]
        if others:
            return self._failed(others[0], visitor)
        if errors:
            steps = max(one.step for one in tickets if one.error is not None)
            return showing.status(f"Stopped after step {steps}; the last preview stays.")
        notes = list(dict.fromkeys(note for one in tickets for note in one.result.notes))
        return showing.status(" ".join(["Done.", *notes]), done=1.0)

    def stop(self, request: gr.Request) -> Any:
        """Stops all pictures of a visitor that wait or are drawn."""
        count = self.studio.line.stop(str(request.session_hash))
        return showing.status("Stopping after this step." if count else "Nothing is being drawn.")

    def restore(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Returns the settings of a picture of ours that is handed over, for the fields; files it names stay closed."""
        visitor = self.visitor(request)
        try:
            data = uploads.content(event.data, self.limits)
            path = uploads.save(data, event.name, visitor.place(), self.limits)
            known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
            values, notes = restored(path, self.models, known)
        except SyncControlError as error:
            return [*(gr.skip() for _ in self.fields), self._failed(error, visitor)]
        return [*filling.filled(self.fields, values), showing.status(" ".join(["Settings restored.", *notes]))]

    def again(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Returns the settings of a picture in the history, for the fields."""
        entry = self.visitor(request).entries.get(str(event.token))
        if entry is None:
            return [*(gr.skip() for _ in self.fields), showing.failure(InputError("that picture is gone"))]
        known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
        values, _ = restored(entry.path, self.models, known)
        return [*filling.filled(self.fields, values), showing.status("Settings restored; the guide stays as it is.")]

    def _named(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.fields, values, strict=True))

    def _failed(self, error: Exception, visitor: Visitor) -> dict[str, Any]:
        return showing.status(self._said(error, visitor), error=True)

    def _said(self, error: Exception, visitor: Visitor) -> str:
        return said(describe(error), visitor.folder)
