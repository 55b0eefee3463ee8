"""`Looking`: who asks, what their fields hold, and the control map of it."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from synccontrol.app import showing
from synccontrol.app.asking import Asked, asked
from synccontrol.app.fields import Fields
from synccontrol.app.guard import key_of
from synccontrol.app.studio import Look, Studio, nameless
from synccontrol.app.visitor import Visitor, Visitors
from synccontrol.errors import SyncControlError
from synccontrol.extras import Extras
from synccontrol.picture import followed
from synccontrol.terminal import describe


class Looking:
    """Shows visitors what a picture would follow; each sees their own files, and all share one studio.

    Args:
        studio: what draws.
        visitors: who is there.
        models: those on offer.
        extras: what is loaded into them.

    Attributes:
        fields: of the page, by name; the page sets them.
    """

    def __init__(self, studio: Studio, visitors: Visitors, models: tuple[str, ...], extras: Extras = Extras()) -> None:
        self.studio, self.visitors, self.models, self.extras = studio, visitors, models, extras
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
            return gr.skip(), showing.failure(error)
        try:
            found, look = self.looked(visitor, self.named(values))
        except Exception as error:
            return {"figures": [], "notes": [self.said(error, visitor)]}, self.failed(error, visitor)
        controls = followed(found.given.get("control", []))
        notes = [nameless(note, visitor.folder) for note in (*found.notes, *look.notes)]
        value = {**showing.maps(look, controls), "notes": notes}
        windows = "1 window" if look.windows == 1 else f"{look.windows} windows"
        return value, showing.status(f"{look.width}x{look.height} px, {windows}. " + " ".join(notes))

    def map(self, request: gr.Request, *values: Any) -> Any:
        """Returns the control maps alone, where the news are of something else."""
        return self.look(request, *values)[0]

    def looked(self, visitor: Visitor, values: Mapping[str, Any]) -> tuple[Asked, Look]:
        """Returns what is asked for, and what can be said of it. Raises `SyncControlError` for what makes no sense."""
        found = asked(values, visitor, self.models, self.offline, self.extras)
        job = found.job(self.studio.machine, visitor.folder / "picture.png")
        return found, self.studio.look(job, found.options)

    def named(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """Returns values of the fields by name."""
        return dict(zip(self.fields, values, strict=True))

    def failed(self, error: Exception, visitor: Visitor) -> dict[str, Any]:
        """Returns an error as the line of news."""
        return showing.status(self.said(error, visitor), error=True)

    def said(self, error: Exception, visitor: Visitor) -> str:
        """Returns an error in one line."""
        return nameless(describe(error), visitor.folder)
