"""The page's interface for programs: one call, from words and a guide to a picture."""

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import gradio as gr

from synccontrol.errors import ConfigError, describe, for_page
from synccontrol.spec import image_spec as kinds
from synccontrol.studio import form_values
from synccontrol.studio import session as uploads
from synccontrol.studio.form import DEFAULT_DETECTOR, NONE, regions_shown, shape_of
from synccontrol.studio.handlers import POLL_SECONDS, Looking, adder
from synccontrol.studio.queue import OVER
from synccontrol.studio.request import asked
from synccontrol.studio.server import key_of
from synccontrol.studio.session import Entry, Visitor

SETTABLE = (
    *("negative_prompt", "model", "fit", "width", "height", "seed", "region"),
    *(name for name in form_values.SETTINGS if name not in form_values.COMPOSING),
)
Picture = Callable[..., Awaitable[dict[str, Any]]]


def picture_of(looking: Looking) -> Picture:
    """Returns the call `picture`."""

    async def picture(
        request: gr.Request,
        prompt: str,
        guide: str = "",
        control: str = "",
        preset: str = "default",
        settings: dict[str, Any] = {},  # noqa: B006, RUF100 (what Gradio shows as the default)
    ) -> dict[str, Any]:
        """Draws a picture.

        Args:
            prompt: what to draw.
            guide: what to follow, a picture as data:image/png;base64,...; or an empty text.
            control: how the guide is followed: depth, canny, pose, ...; or an empty text.
            preset: default, fast, best or paper.
            settings: others by their flag, underscores for dashes: {"width": 1024, "seed": 3, "steps": 20}.

        Returns:
            {"picture": a PNG as data:image/png;base64,..., "settings": {...}, "notes": [...], "command": "..."}
        """
        session = secrets.token_urlsafe()
        host = request.client.host if request.client else ""
        owner = key_of(request.headers.get("cookie", "")) or f"program at {host}"
        try:
            visitor = looking.visitors.of(session, session)
            values = _values(settings, prompt=prompt, control=control, preset=preset, models=looking.models)
            return await _drawn(looking, visitor, owner, guide, values)
        except Exception as error:
            raise gr.Error(for_page(describe(error)), print_exception=False) from error
        finally:
            looking.visitors.leave(session)

    return picture


def _values(
    settings: Mapping[str, Any], *, prompt: str, control: str, preset: str, models: tuple[str, ...]
) -> dict[str, Any]:
    """Returns a call as values of the page. Raises `ConfigError` for a setting that there is not, or is wrong."""
    unknown = sorted(set(settings) - set(SETTABLE))
    if unknown:
        raise ConfigError(f"settings {', '.join(unknown)} cannot be set here; those that can: {', '.join(SETTABLE)}")
    checked = kinds.check(settings)
    return {
        **dict.fromkeys(form_values.NAMES),
        "model": models[0],
        **checked,
        "seed": checked.get("seed", 0),
        "region": regions_shown(checked.get("region", ())),
        "prompt": prompt,
        "preset": preset,
        "shape": shape_of(checked),
        "count": 1,
        "control0": control or NONE,
        "control1": NONE,
        "detector0": DEFAULT_DETECTOR,
        "detector1": DEFAULT_DETECTOR,
    }


async def _drawn(
    looking: Looking, visitor: Visitor, owner: str, guide: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    if guide:
        data = uploads.content(guide, looking.limits)
        visitor.guide = uploads.save(data, "guide", visitor.place(), looking.limits)
    found = asked(values, visitor, looking.models, looking.offline, looking.adapters)
    job = found.job(looking.studio.machine, visitor.place() / "picture.png")
    await asyncio.to_thread(looking.studio.look, job, {})
    ticket = looking.studio.enlist(job, owner, adder(visitor, form_values.command(found.given)))
    try:
        while ticket.state != OVER:
            await asyncio.sleep(POLL_SECONDS)
    finally:
        ticket.stop()  # where the caller has gone
    if ticket.error is not None:
        raise ticket.error
    entry: Entry = ticket.result
    data = entry.path.read_bytes()
    return {
        "picture": f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}",
        "settings": dict(entry.settings),
        "notes": [*found.notes, *entry.notes],
        "command": entry.command,
    }
