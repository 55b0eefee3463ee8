"""The API of the page for programs: one call that generates an image."""

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import gradio as gr

from synccontrol.errors import ConfigError, describe, for_page
from synccontrol.spec import image_spec as kinds
from synccontrol.studio import form_values
from synccontrol.studio.form import DEFAULT_DETECTOR, NONE, regions_value, shape_of
from synccontrol.studio.handlers import POLL_SECONDS, PreviewHandlers, entry_adder
from synccontrol.studio.queue import ENDED
from synccontrol.studio.request import read_request
from synccontrol.studio.server import key_of
from synccontrol.studio.session import Entry, Session, data_url_bytes, save_upload

SETTABLE = (
    *("negative_prompt", "model", "fit", "width", "height", "seed", "region"),
    *(name for name in form_values.SETTINGS if name not in form_values.IMG2IMG),
)
Picture = Callable[..., Awaitable[dict[str, Any]]]


def picture_of(previews: PreviewHandlers) -> Picture:
    """Return the API's function `picture`."""

    async def picture(
        request: gr.Request,
        prompt: str,
        guide: str = "",
        control: str = "",
        preset: str = "default",
        settings: dict[str, Any] = {},  # noqa: B006, RUF100 (what Gradio shows as the default)
    ) -> dict[str, Any]:
        """Generate an image.

        Args:
            prompt: what the image shows.
            guide: the guide as data:image/png;base64,...; or an empty text.
            control: depth, canny, pose, ...; or an empty text.
            preset: default, fast, best or paper.
            settings: other settings by key: {"width": 1024, "seed": 3, "steps": 20}.

        Returns:
            {"picture": a PNG as data:image/png;base64,..., "settings": {...}, "notes": [...], "command": "..."}
        """
        session_hash = secrets.token_urlsafe()
        host = request.client.host if request.client else ""
        owner = key_of(request.headers.get("cookie", "")) or f"program at {host}"
        try:
            session = previews.sessions.of(session_hash, session_hash)
            values = _values(settings, prompt=prompt, control=control, preset=preset, models=previews.models)
            return await _generated(previews, session, owner, guide, values)
        except Exception as error:
            raise gr.Error(for_page(describe(error)), print_exception=False) from error
        finally:
            previews.sessions.leave(session_hash)

    return picture


def _values(
    settings: Mapping[str, Any], *, prompt: str, control: str, preset: str, models: tuple[str, ...]
) -> dict[str, Any]:
    """Return the values of the form for a call. Raises `ConfigError` for an unknown or wrong setting."""
    unknown = sorted(set(settings) - set(SETTABLE))
    if unknown:
        raise ConfigError(f"settings {', '.join(unknown)} cannot be set here; those that can: {', '.join(SETTABLE)}")
    checked = kinds.check(settings)
    return {
        **dict.fromkeys(form_values.NAMES),
        "model": models[0],
        **checked,
        "seed": checked.get("seed", 0),
        "region": regions_value(checked.get("region", ())),
        "prompt": prompt,
        "preset": preset,
        "shape": shape_of(checked),
        "count": 1,
        "control0": control or NONE,
        "control1": NONE,
        "detector0": DEFAULT_DETECTOR,
        "detector1": DEFAULT_DETECTOR,
    }


async def _generated(
    previews: PreviewHandlers, session: Session, owner: str, guide: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    if guide:
        data = data_url_bytes(guide, previews.limits)
        session.guide = save_upload(data, "guide", session.place(), previews.limits)
    page_request = read_request(values, session, previews.models, previews.offline, previews.adapters)
    job = page_request.job(previews.studio.machine, session.place() / "picture.png")
    await asyncio.to_thread(previews.studio.preview, job, {})
    ticket = previews.studio.submit(job, owner, entry_adder(session, form_values.command(page_request.given)))
    try:
        while ticket.state != ENDED:
            await asyncio.sleep(POLL_SECONDS)
    finally:
        ticket.stop()  # if the caller has gone
    if ticket.error is not None:
        raise ticket.error
    entry: Entry = ticket.result
    data = entry.path.read_bytes()
    return {
        "picture": f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}",
        "settings": dict(entry.settings),
        "notes": [*page_request.notes, *entry.notes],
        "command": entry.command,
    }
