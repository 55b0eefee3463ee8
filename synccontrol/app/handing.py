"""`Handing`: what visitors hand over: guides, ready-made maps, pictures to start from, and settings of pictures."""

import shutil
from pathlib import Path
from typing import Any

import gradio as gr

import preprocess
from synccontrol.app import filling, showing, uploads
from synccontrol.app.fields import SLOTS
from synccontrol.app.looking import Looking
from synccontrol.app.restore import restored
from synccontrol.app.visitor import Visitor
from synccontrol.errors import InputError, SyncControlError
from synccontrol.files import poses

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
            return gr.skip(), gr.skip(), showing.failure(error)
        visitor.guide = Path(shutil.copy(FIRST_GUIDE, visitor.place()))
        look, news = self._page.look(request, *values)
        return {"guide": f"synccontrol/assets/{FIRST_GUIDE.name}", "name": FIRST_GUIDE.name}, look, news

    def take(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any, Any]:
        """Takes what a visitor hands over, a guide or a ready-made map, and returns the control map."""
        try:
            visitor = self._page.visitor(request)
            data = uploads.content(event.data, self._page.limits)
            path = uploads.save(data, event.name, visitor.place(), self._page.limits)
            self._place(visitor, path, str(event.role), values)
            start = showing.handed(visitor.start)
        except SyncControlError as error:
            return gr.skip(), showing.failure(error), gr.skip(), gr.skip()
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
        return showing.handed(visitor.start), *self._page.look(request, *values)

    def mask(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any]:
        """Takes which part of the picture that is started from is drawn anew; an empty text: all of it."""
        try:
            visitor = self._page.visitor(request)
            visitor.mask = None
            if event.data:
                data = uploads.content(event.data, self._page.limits)
                visitor.mask = uploads.save(data, "mask", visitor.place(), self._page.limits)
        except SyncControlError as error:
            return gr.skip(), showing.failure(error)
        return self._page.look(request, *values)

    def refer(self, request: gr.Request, event: gr.EventData, *values: Any) -> tuple[Any, Any, Any]:
        """Takes what the IP-Adapter is shown; an empty text: nothing."""
        visitor, path = self._page.visitor(request), None
        try:
            if event.data:
                data = uploads.content(event.data, self._page.limits)
                path = uploads.save(data, event.name, visitor.place(), self._page.limits)
            shown = showing.handed(path)
        except SyncControlError as error:
            return gr.skip(), gr.skip(), self._page.failed(error, visitor)
        visitor.reference = path
        return shown, *self._page.look(request, *values)

    def restore(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Returns the settings of a picture of ours that is handed over, for the fields; files it names stay closed."""
        visitor = self._page.visitor(request)
        try:
            data = uploads.content(event.data, self._page.limits)
            path = uploads.save(data, event.name, visitor.place(), self._page.limits)
            known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
            values, notes = restored(path, self._page.models, known, self._page.extras)
        except SyncControlError as error:
            return [*(gr.skip() for _ in self._page.fields), self._page.failed(error, visitor)]
        return [*filling.filled(self._page.fields, values), showing.status(" ".join(["Settings restored.", *notes]))]

    def again(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Returns the settings of a picture in the history, for the fields."""
        entry = self._page.visitor(request).entries.get(str(event.token))
        if entry is None:
            return [*(gr.skip() for _ in self._page.fields), showing.failure(InputError("that picture is gone"))]
        known = {name for control in preprocess.names() for name in preprocess.detectors(control)}
        values, _ = restored(entry.path, self._page.models, known, self._page.extras)
        return [
            *filling.filled(self._page.fields, values),
            showing.status("Settings restored; the guide stays as it is."),
        ]
