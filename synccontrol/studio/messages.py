"""Values of the page's components, as JSON."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from synccontrol.errors import describe, for_page
from synccontrol.io.images import open_image
from synccontrol.spec.settings import EQUIRECTANGULAR
from synccontrol.studio.backends import jpeg
from synccontrol.studio.queue import GENERATING, WAITING, Ticket
from synccontrol.studio.session import Entry, Session
from synccontrol.studio.studio import Preview

THUMBNAIL = 96  # px high


def status(text: str, done: float | None = None, error: bool = False, busy: bool = False) -> dict[str, Any]:
    """Return the status line: a text, the share 0..1 that is done, whether it is an error or busy."""
    return {"text": text, "done": done, "error": error, "busy": busy}


def failure(error: Exception) -> dict[str, Any]:
    """Return an error as the status line."""
    return status(for_page(describe(error)), error=True)


def maps(preview: Preview, controls: Sequence[str]) -> dict[str, Any]:
    """Return the control maps with their windows and notes."""
    named_maps = zip(controls, preview.maps, strict=False)
    figures = [{"src": jpeg(control_map), "label": f"{name} map"} for name, control_map in named_maps]
    return {"figures": figures, "notes": preview.notes, **overlay(preview)}


def overlay(preview: Preview) -> dict[str, Any]:
    """Return the overlay of an image: windows and anchors, px of the canvas."""
    return {
        "width": preview.width,
        "height": preview.height,
        "boxes": preview.boxes,
        "anchors": preview.anchors,
        "kind": preview.kind,
        "windows": preview.windows,
    }


def generation(tickets: Sequence[Ticket], preview: Preview) -> dict[str, Any]:
    """Return previews and finished images."""
    figures: list[dict[str, Any]] = []
    for number, ticket in enumerate(tickets, 1):
        entry = ticket.result if isinstance(ticket.result, Entry) else None
        name = f"variation {number}" if len(tickets) > 1 else "image"
        if entry is not None:
            figures.append({"src": address(entry), "label": f"{name}, {short_title(entry)}", "token": entry.token})
        elif ticket.preview:
            figures.append(
                {"src": ticket.preview, "label": f"{name}, preview after step {ticket.step}", "coming": True}
            )
    return {"figures": figures, "notes": [], **overlay(preview)}


def progress(tickets: Sequence[Ticket], ahead: Sequence[int]) -> dict[str, Any]:
    """Return the progress of images as a status line.

    Args:
        tickets: of the images.
        ahead: number of images before each of them.
    """
    active = [(number, ticket) for number, ticket in enumerate(tickets, 1) if ticket.state in (WAITING, GENERATING)]
    if not active:  # the last one ended between two reads
        return status("finishing", 1.0, busy=True)
    number, ticket = active[0]
    which = f"Image {number} of {len(tickets)}: " if len(tickets) > 1 else ""
    if ticket.state == WAITING:
        count = ahead[number - 1]
        others = "1 image is" if count == 1 else f"{count} images are"
        return status(f"{which}waiting, {others} before yours" if count else f"{which}waiting", busy=True)
    if ticket.stopped:
        return status(f"{which}stopping after this step", ticket.done, busy=True)
    if not ticket.step:
        return status(f"{which}getting ready", 0.0, busy=True)
    left = ticket.seconds_left or 0.0
    return status(
        f"{which}step {ticket.step} of {ticket.steps}, about {seconds(left)} left",
        ticket.done,
        busy=True,
    )


def seconds(count: float) -> str:
    """Return a time in words."""
    return f"{count:.0f} s" if count < 100 else f"{count / 60:.0f} min"


def address(entry: Entry) -> str:
    """Return the address of an image below the page's own."""
    return f"synccontrol/pictures/{entry.token}"


def short_title(entry: Entry) -> str:
    """Return a finished image in a few words."""
    values = entry.settings
    return f"seed {values['seed']}, {values['width']}x{values['height']}, {values['steps']} steps"


def upload_figure(path: Path | None) -> dict[str, Any]:
    """Return the figure of an uploaded image, if any. Raises `InputError` as `open_image`."""
    return {} if path is None else {"src": jpeg(open_image(path)), "name": path.name}


def history(session: Session) -> dict[str, Any]:
    """Return the images of a session, newest first."""
    return {"entries": [_entry(entry) for entry in reversed(list(session.entries.values()))]}


@lru_cache(maxsize=256)
def _thumbnail(path: str, token: str) -> str:
    with Image.open(path) as image:
        image.draft("RGB", (image.width * THUMBNAIL // image.height, THUMBNAIL))
        small = image.convert("RGB")
    small.thumbnail((8 * THUMBNAIL, THUMBNAIL))
    return jpeg(small)


def _entry(entry: Entry) -> dict[str, Any]:
    values = entry.settings
    kind = "sphere" if values["projection"] == EQUIRECTANGULAR else "ring" if values["loop"] else ""
    return {
        "token": entry.token,
        "src": address(entry),
        "thumb": _thumbnail(str(entry.path), entry.token),
        "name": entry.path.name,
        "title": f"{values['prompt'] or 'no prompt'}, {short_title(entry)}",
        "command": entry.command,
        "kind": kind,
        "width": values["width"],
        "height": values["height"],
        "notes": list(entry.notes),
        "settings": {name: value for name, value in values.items() if name not in _NOT_COMPARED},
    }


_NOT_COMPARED = ("versions", "device", "dtype", "model_revision", "guide_sha256", "control_map_sha256")
