"""What becomes of the fields when a control, a preset or a picture of ours says so."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from synccontrol.app import wish
from synccontrol.app.fields import (
    DEFAULT_DETECTOR,
    NONE,
    SHAPED,
    SLOTS,
    Fields,
    detectors,
    regions_shown,
    shape_of,
    shown,
)
from synccontrol.models import hub, listing
from synccontrol.picture import INPAINT, followed

SETTINGS = tuple(
    name for name in wish.SETTINGS if name not in (*SHAPED, *wish.COMPOSING, *wish.ENLARGING)
)  # what a preset fills


def controls(fields: Fields, slot: int) -> Callable[..., list[Any]]:
    """Returns what answers another control: its detectors are offered, and their options shown."""

    def answer(*chosen: str) -> list[Any]:
        offered = gr.Dropdown(choices=detectors(chosen[slot]), value=DEFAULT_DETECTOR)
        return [offered, *(gr.update(visible=name.partition(":")[0] in chosen) for name in fields if ":" in name)]

    return answer


def preset(models: tuple[str, ...], offline: bool) -> Callable[[str, str], list[Any]]:
    """Returns what answers another model or preset: its settings, for their fields."""

    def answer(model: str, name: str) -> list[Any]:
        if model not in models:
            return [gr.skip() for _ in SETTINGS]
        values = wish.preset_values(hub.defaults(model, name, offline))
        return [shown(setting, values[setting]) for setting in SETTINGS]

    return answer


def repainting(models: tuple[str, ...], offline: bool) -> Callable[[str], list[Any]]:
    """Returns what answers another model: what it has for repainting is shown, and nothing where it has nothing."""

    def answer(model: str) -> list[Any]:
        if model not in models:
            return [gr.skip(), gr.skip()]
        known = INPAINT in listing.controls(model)
        return [gr.Checkbox(value=False, visible=known), gr.HTML(visible=listing.repaints(model, offline))]

    return answer


def filled(fields: Fields, values: Mapping[str, Any]) -> Iterator[Any]:
    """Yields what each field becomes: a value of a picture, or as it is.

    Args:
        fields: of the page.
        values: of a picture, as `restore.restored`.
    """
    controls = values.get("control", ())
    chosen = [*followed(controls), *([NONE] * SLOTS)]
    names = [*values.get("detector", ()), *([DEFAULT_DETECTOR] * SLOTS)]
    special: dict[str, Any] = {"shape": shape_of(values), "region": regions_shown(values.get("region", ()))}
    special[INPAINT] = gr.Checkbox(value=True, visible=True) if INPAINT in controls else False
    for slot in range(SLOTS):
        special[f"control{slot}"] = chosen[slot]
        special[f"detector{slot}"] = gr.Dropdown(choices=detectors(chosen[slot]), value=names[slot])
    for name in fields:
        control, option, _ = name.partition(":")
        if option:
            yield gr.update(visible=control in chosen)
        elif name in special:
            yield special[name]
        elif name in values:
            yield shown(name, values[name]) if name in wish.SETTINGS else values[name]
        else:
            yield gr.skip()
