"""What the parts of the page are told, as JSON values."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from synccontrol.errors import describe, for_page
from synccontrol.io.images import open_image
from synccontrol.spec.settings import EQUIRECTANGULAR
from synccontrol.studio.backends import jpeg
from synccontrol.studio.queue import DRAWING, WAITING, Ticket
from synccontrol.studio.session import Entry, Visitor
from synccontrol.studio.studio import Look

THUMBNAIL = 96  # px high


def status(text: str, done: float | None = None, error: bool = False, busy: bool = False) -> dict[str, Any]:
    """Returns what the line of news says: a text, the part 0..1 that is done, whether it is an error."""
    return {"text": text, "done": done, "error": error, "busy": busy}


def failure(error: Exception) -> dict[str, Any]:
    """Returns an error as the line of news says it."""
    return status(for_page(describe(error)), error=True)


def maps(look: Look, controls: Sequence[str]) -> dict[str, Any]:
    """Returns the control maps with the windows that lie over them, and what is said of them."""
    figures = [{"src": jpeg(one), "label": f"{name} map"} for name, one in zip(controls, look.maps, strict=False)]
    return {"figures": figures, "notes": look.notes, **over(look)}


def over(look: Look) -> dict[str, Any]:
    """Returns what is drawn over a picture: windows and anchor, px of the canvas."""
    return {
        "width": look.width,
        "height": look.height,
        "boxes": look.boxes,
        "anchors": look.anchors,
        "kind": look.kind,
        "windows": look.windows,
    }


def drawing(tickets: Sequence[Ticket], look: Look) -> dict[str, Any]:
    """Returns pictures on their way: previews, and what is finished."""
    figures: list[dict[str, Any]] = []
    for number, ticket in enumerate(tickets, 1):
        entry = ticket.result if isinstance(ticket.result, Entry) else None
        name = f"variation {number}" if len(tickets) > 1 else "picture"
        if entry is not None:
            figures.append({"src": address(entry), "label": f"{name}, {titled(entry)}", "token": entry.token})
        elif ticket.shown:
            figures.append({"src": ticket.shown, "label": f"{name}, preview after step {ticket.step}", "coming": True})
    return {"figures": figures, "notes": [], **over(look)}


def progress(tickets: Sequence[Ticket], ahead: Sequence[int]) -> dict[str, Any]:
    """Returns how far pictures are, in words and as a part.

    Args:
        tickets: the pictures.
        ahead: how many others come before each.
    """
    active = [(number, ticket) for number, ticket in enumerate(tickets, 1) if ticket.state in (WAITING, DRAWING)]
    if not active:  # the last one ended between two looks
        return status("finishing", 1.0, busy=True)
    number, ticket = active[0]
    which = f"Picture {number} of {len(tickets)}: " if len(tickets) > 1 else ""
    if ticket.state == WAITING:
        count = ahead[number - 1]
        others = "1 picture comes" if count == 1 else f"{count} pictures come"
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
    """Returns a time in words."""
    return f"{count:.0f} s" if count < 100 else f"{count / 60:.0f} min"


def address(entry: Entry) -> str:
    """Returns where a browser finds a picture, below the page's own address."""
    return f"synccontrol/pictures/{entry.token}"


def titled(entry: Entry) -> str:
    """Returns a finished picture in a few words."""
    values = entry.settings
    return f"seed {values['seed']}, {values['width']}x{values['height']}, {values['steps']} steps"


def handed(path: Path | None) -> dict[str, Any]:
    """Returns a picture that was handed over, if there is any. Raises `InputError` as `open_image`."""
    return {} if path is None else {"src": jpeg(open_image(path)), "name": path.name}


def history(visitor: Visitor) -> dict[str, Any]:
    """Returns the pictures of a visitor, the newest first."""
    return {"entries": [_entry(one) for one in reversed(list(visitor.entries.values()))]}


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
        "title": f"{values['prompt'] or 'no prompt'}, {titled(entry)}",
        "command": entry.command,
        "kind": kind,
        "width": values["width"],
        "height": values["height"],
        "notes": list(entry.notes),
        "settings": {name: value for name, value in values.items() if name not in _NOT_COMPARED},
    }


_NOT_COMPARED = ("versions", "device", "dtype", "model_revision", "guide_sha256", "control_map_sha256")
