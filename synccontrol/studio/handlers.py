"""The handlers of the page's events: previews, uploads, generation."""

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from synccontrol import preprocess
from synccontrol.batch.job import Job, Outcome
from synccontrol.errors import InputError, SyncControlError, describe, for_page
from synccontrol.io import poses
from synccontrol.spec.image_spec import mapped_controls
from synccontrol.spec.settings import Adapters
from synccontrol.studio import form, form_values, messages
from synccontrol.studio.form import SLOTS, Fields
from synccontrol.studio.form_values import restored
from synccontrol.studio.queue import ENDED, BusyError, Stopped, Ticket
from synccontrol.studio.request import PageRequest, read_request, seeds
from synccontrol.studio.server import key_of
from synccontrol.studio.session import Entry, Session, Sessions, data_url_bytes, save_upload
from synccontrol.studio.studio import Preview, Studio, without_folders


class PreviewHandlers:
    """Shows control maps and windows before an image is generated; reads requests for all handlers.

    Args:
        studio: shared by all sessions.
        sessions: the open pages.
        models: the models of the page.
        adapters: the adapters of the page.

    Attributes:
        fields: of the page by name; the page sets them.
    """

    def __init__(
        self, studio: Studio, sessions: Sessions, models: tuple[str, ...], adapters: Adapters = Adapters()
    ) -> None:
        self.studio, self.sessions, self.models, self.adapters = studio, sessions, models, adapters
        self.limits, self.offline = studio.limits, bool(studio.machine["offline"])
        self.fields: Fields = {}

    def session(self, request: gr.Request) -> Session:
        """Return the session of a request. Raises `BusyError` if there are too many."""
        return self.sessions.of(str(request.session_hash), key_of(request.headers.get("cookie", "")))

    def preview(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Return the values of the map and of the status line."""
        try:
            session = self.session(request)
        except SyncControlError as error:
            return gr.skip(), messages.failure(error)
        try:
            page_request, preview = self.read_preview(session, self.by_field(values))
        except Exception as error:
            return {"figures": [], "notes": [self.error_line(error, session)]}, self.error_status(error, session)
        controls = mapped_controls(page_request.given.get("control", []))
        notes = [without_folders(note, session.folder) for note in (*page_request.notes, *preview.notes)]
        value = {**messages.maps(preview, controls), "notes": notes}
        windows = "1 window" if preview.windows == 1 else f"{preview.windows} windows"
        return value, messages.status(f"{preview.width}x{preview.height} px, {windows}. " + " ".join(notes))

    def map(self, request: gr.Request, *values: Any) -> Any:
        """Return the value of the map alone."""
        return self.preview(request, *values)[0]

    def read_preview(self, session: Session, values: Mapping[str, Any]) -> tuple[PageRequest, Preview]:
        """Return the request and its preview. Raises `SyncControlError` for values that contradict each other."""
        page_request = read_request(values, session, self.models, self.offline, self.adapters)
        job = page_request.job(self.studio.machine, session.folder / "picture.png")
        return page_request, self.studio.preview(job, page_request.options)

    def by_field(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """Return the values of the fields by name."""
        return dict(zip(self.fields, values, strict=True))

    def error_status(self, error: Exception, session: Session) -> dict[str, Any]:
        """Return an error as the value of the status line."""
        return messages.status(self.error_line(error, session), error=True)

    def error_line(self, error: Exception, session: Session) -> str:
        """Return an error in one line."""
        return without_folders(for_page(describe(error)), session.folder)


FIRST_GUIDE = Path(__file__).parent / "assets" / "valley.webp"
GUIDE, START, MAP = "guide", "start", "map"  # roles of uploads; maps have the number of the control
MAP_TAB = "map"


class UploadHandlers:
    """Takes uploads.

    Args:
        page: the handlers of previews.
    """

    def __init__(self, page: PreviewHandlers) -> None:
        self._page = page

    def open(self, request: gr.Request, *values: Any) -> tuple[Any, Any, Any]:
        """Return the values of a page that was just opened: a guide, its control map, the status line."""
        try:
            session = self._page.session(request)
        except SyncControlError as error:
            return gr.skip(), gr.skip(), messages.failure(error)
        session.guide = Path(shutil.copy(FIRST_GUIDE, session.place()))
        preview, news = self._page.preview(request, *values)
        return {"guide": f"synccontrol/assets/{FIRST_GUIDE.name}", "name": FIRST_GUIDE.name}, preview, news

    def take(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any, Any]:
        """Take an uploaded guide or ready-made map, and return the control map."""
        try:
            session = self._page.session(request)
            data = data_url_bytes(event.data, self._page.limits)
            path = save_upload(data, event.name, session.place(), self._page.limits)
            self._place(session, path, str(event.role), values)
            start = messages.upload_figure(session.start)
        except SyncControlError as error:
            return gr.skip(), messages.failure(error), gr.skip(), gr.skip()
        is_map = str(event.role).startswith(MAP) or path.suffix == poses.SUFFIX
        tab = gr.Tabs(selected=MAP_TAB) if is_map else gr.skip()
        return *self._page.preview(request, *values), tab, start

    def _place(self, session: Session, path: Path, role: str, values: tuple[Any, ...]) -> None:
        """Store an upload by its role; OpenPose JSON is the map of the control pose in whichever slot it is chosen."""
        if path.suffix == poses.SUFFIX:
            controls = [self._page.by_field(values)[f"control{slot}"] for slot in range(SLOTS)]
            if "pose" not in controls:
                raise InputError(f"{path.name} is JSON, which only the control pose reads; choose pose first")
            role = f"{MAP}{controls.index('pose')}"
        if role == GUIDE:
            session.guide = path
            session.ready.clear()
        elif role == START:
            session.start, session.mask = path, None
        elif role in [f"{MAP}{slot}" for slot in range(SLOTS)]:
            session.ready[int(role.removeprefix(MAP))] = path
        else:
            raise InputError(f"{role!r} is no role of an upload")

    def forget(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Remove the guide and ready-made maps."""
        session = self._page.session(request)
        session.guide = None
        session.ready.clear()
        return self._page.preview(request, *values)

    def start(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any]:
        """Set the init image to one of the history; without a token, remove it."""
        session = self._page.session(request)
        entry = session.entries.get(str(event._data.get("token")))
        session.start, session.mask = None if entry is None else entry.path, None
        return messages.upload_figure(session.start), *self._page.preview(request, *values)

    def mask(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any]:
        """Set the mask of the init image; an empty text removes it."""
        try:
            session = self._page.session(request)
            session.mask = None
            if event.data:
                data = data_url_bytes(event.data, self._page.limits)
                session.mask = save_upload(data, "mask", session.place(), self._page.limits)
        except SyncControlError as error:
            return gr.skip(), messages.failure(error)
        return self._page.preview(request, *values)

    def refer(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any]:
        """Set the image of the IP-Adapter; an empty text removes it."""
        session, path = self._page.session(request), None
        try:
            if event.data:
                data = data_url_bytes(event.data, self._page.limits)
                path = save_upload(data, event.name, session.place(), self._page.limits)
            figure = messages.upload_figure(path)
        except SyncControlError as error:
            return gr.skip(), gr.skip(), self._page.error_status(error, session)
        session.reference = path
        return figure, *self._page.preview(request, *values)

    def restore(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Return the updates of the fields from an uploaded image's settings; files that it names are not opened."""
        session = self._page.session(request)
        try:
            data = data_url_bytes(event.data, self._page.limits)
            path = save_upload(data, event.name, session.place(), self._page.limits)
            known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
            values, notes = restored(path, self._page.models, known, self._page.adapters)
        except SyncControlError as error:
            return [*(gr.skip() for _ in self._page.fields), self._page.error_status(error, session)]
        return [*form.filled(self._page.fields, values), messages.status(" ".join(["Settings restored.", *notes]))]

    def again(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Return the updates of the fields from an image of the history."""
        entry = self._page.session(request).entries.get(str(event.token))
        if entry is None:
            return [
                *(gr.skip() for _ in self._page.fields),
                messages.failure(InputError("that image no longer exists")),
            ]
        known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
        values, _ = restored(entry.path, self._page.models, known, self._page.adapters)
        return [
            *form.filled(self._page.fields, values),
            messages.status("Settings restored; the guide stays as it is."),
        ]


POLL_SECONDS = 0.1  # between two reads of a ticket
PICTURE_TAB = "picture"


class GenerationHandlers:
    """Generates images.

    Args:
        page: the handlers of previews.

    Attributes:
        parts: the other components of the page by name; the page sets them.
    """

    def __init__(self, page: PreviewHandlers) -> None:
        self._page = page
        self.parts: dict[str, Any] = {}

    def warm(self) -> None:
        """Begin to load the first model."""
        given = {"model": self._page.models[0], "control": ["depth"], "guide": FIRST_GUIDE}
        given |= form_values.adapter_flags({}, None, self._page.adapters)
        with contextlib.suppress(SyncControlError):  # the first request reports it
            self._page.studio.warm(form_values.job(given, self._page.studio.machine, FIRST_GUIDE.with_suffix(".png")))

    async def draw(self, request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        """Yield previews, the status line and finished images until all are finished."""
        image, status, history, tabs = (self.parts[name] for name in ("picture", "status", "history", "tabs"))
        try:
            session = self._page.session(request)
        except SyncControlError as error:
            yield {status: messages.failure(error)}
            return
        try:
            preview, tickets = await asyncio.to_thread(
                self._submitted, session, self._page.by_field(values), str(request.session_hash)
            )
        except Exception as error:
            yield {status: self._page.error_status(error, session)}
            return
        yield {tabs: gr.Tabs(selected=PICTURE_TAB), image: messages.generation(tickets, preview)}
        before: Any = None
        queue = self._page.studio.queue
        while any(ticket.state != ENDED for ticket in tickets):
            aheads = [queue.ahead(ticket) for ticket in tickets]
            now = [(ticket.state, ticket.step, ticket.stopped, id(ticket.preview)) for ticket in tickets], aheads
            if now != before:
                before = now
                yield {
                    image: messages.generation(tickets, preview),
                    status: messages.progress(tickets, aheads),
                    history: messages.history(session) if any(ticket.result for ticket in tickets) else gr.skip(),
                }
            await asyncio.sleep(POLL_SECONDS)
        yield {
            image: messages.generation(tickets, preview),
            status: self._ended(tickets, session),
            history: await asyncio.to_thread(messages.history, session),
        }
        for ticket in tickets:
            ticket.forget()

    def _submitted(self, session: Session, values: Mapping[str, Any], owner: str) -> tuple[Preview, list[Ticket]]:
        """Submit the requested images; return their preview and tickets. Raises `SyncControlError`."""
        page_request, preview = self._page.read_preview(session, values)
        first = ""
        if page_request.options:  # generation has no flags for them, so the map of the preview becomes a file
            first = form_values.map_command(page_request.given, page_request.options)
            page_request = page_request.with_maps(self._saved_maps(page_request, preview, session))
        tickets: list[Ticket] = []
        for seed in seeds(values, self._page.limits.variations):
            variation = dataclasses.replace(page_request, given={**page_request.given, "seed": seed}, options={})
            stem = session.guide.stem if "guide" in variation.given and session.guide else "picture"
            job = variation.job(self._page.studio.machine, session.place() / f"{stem}-{seed}.png")
            add = entry_adder(session, first + form_values.command(variation.given))
            try:
                tickets.append(self._page.studio.submit(job, owner, add))
            except BusyError:
                for ticket in tickets:
                    ticket.stop()
                raise
        return preview, tickets

    def _saved_maps(self, page_request: PageRequest, preview: Preview, session: Session) -> dict[str, Path]:
        maps = {}
        for control, image in zip(mapped_controls(page_request.given["control"]), preview.maps, strict=True):
            if control in page_request.options:
                maps[control] = session.place() / f"{form_values.MAP}.{control}.png"
                image.save(maps[control])
        return maps

    def _ended(self, tickets: list[Ticket], session: Session) -> dict[str, Any]:
        errors = [ticket.error for ticket in tickets if ticket.error is not None]
        others = [error for error in errors if not isinstance(error, Stopped)]
        if others:
            return self._page.error_status(others[0], session)
        if errors:
            steps = max(ticket.step for ticket in tickets if ticket.error is not None)
            return messages.status(f"Stopped after step {steps}; the last preview stays.")
        notes = list(dict.fromkeys(note for ticket in tickets for note in ticket.result.notes))
        return messages.status(" ".join(["Done.", *notes]), done=1.0)

    def stop(self, request: gr.Request) -> Any:
        """Stop all images of a session."""
        count = self._page.studio.queue.stop(str(request.session_hash))
        return gr.skip() if count else messages.status("Nothing is being generated.")  # else the generation reports it

    def leave(self, request: gr.Request) -> None:
        """Stop and remove the session of a closed page."""
        session_hash = str(request.session_hash)
        self._page.studio.queue.stop(session_hash)
        self._page.sessions.leave(session_hash)


def entry_adder(session: Session, command: str) -> Callable[[Job, Outcome], Entry]:
    """Return a function that makes the history's entry of an outcome. It raises `InputError` for a failed job."""

    def add(job: Job, outcome: Outcome) -> Entry:
        if outcome.error:
            raise InputError(outcome.error)
        notes = tuple(without_folders(note, session.folder) for note in outcome.notes)
        return session.add(job.output, outcome.settings, notes, command)

    return add
