"""What visitors fill in: components of the page by name; settings are made from the config classes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from synccontrol import preprocess
from synccontrol.errors import ConfigError
from synccontrol.families.checkpoints import SUFFIX
from synccontrol.models import listing, loader
from synccontrol.spec.image_settings import CONFIGS, DEFAULT, PRESETS
from synccontrol.spec.image_spec import INPAINT, followed
from synccontrol.spec.region import Region
from synccontrol.spec.schema import Flag, flags, record, words_of
from synccontrol.spec.settings import FITS, Adapters, Img2ImgConfig, UpscaleConfig
from synccontrol.studio import form_values
from synccontrol.studio.form_values import SETTINGS

NONE = "none"
SLOTS = 2  # controls at once
DEFAULT_DETECTOR = "default"
SHAPES: dict[str, dict[str, object]] = {"flat": {}, "ring": {"loop": True}, "sphere": {"projection": "equirectangular"}}
SHAPED = ("loop", "projection")  # settings that the shape stands for
Fields = dict[str, gr.Component]


def prompts(prompt: str) -> Fields:
    """Returns what is drawn, in words."""
    return {
        "prompt": gr.Textbox(prompt, label="Prompt", lines=3, max_lines=8, scale=4, elem_id="prompt", min_width=240),
        "negative_prompt": gr.Textbox(label="Avoid", lines=3, max_lines=8, scale=2, min_width=160),
    }


def model(models: Sequence[str]) -> Fields:
    """Returns which model draws, and by which preset."""
    return {
        "model": gr.Dropdown(
            list(models), value=models[0], label="Model", visible=len(models) > 1, filterable=False, min_width=140
        ),
        "preset": gr.Radio(
            list(PRESETS), value=DEFAULT, label="Preset", info="paper: SyncDiffusion as published", min_width=300
        ),
    }


def control(slot: int, controls: Sequence[str], chosen: str) -> Fields:
    """Returns one control: its type, and what reads it off the guide."""
    which = "Control" if slot == 0 else "Second control"
    return {
        f"control{slot}": gr.Dropdown(
            [NONE, *controls], value=chosen, label=which, info="what follows the guide", filterable=False, min_width=140
        ),
        f"detector{slot}": gr.Dropdown(
            detectors(chosen),
            value=DEFAULT_DETECTOR,
            label=f"{which}: detector",
            info="what reads it off the guide",
            filterable=False,
            min_width=140,
        ),
    }


def detectors(control: str) -> list[str]:
    """Returns the detectors of a control type that visitors may choose."""
    return [DEFAULT_DETECTOR] if control == NONE else [DEFAULT_DETECTOR, *preprocess.detectors(control)]


def detector_options(controls: Sequence[str], chosen: Sequence[str]) -> Fields:
    """Returns what detectors can be told, by control:option; those of controls that are not chosen are not seen."""
    fields: Fields = {}
    for name in controls:
        for option in preprocess.option_fields(name):
            fields[f"{name}:{option.name}"] = _field(
                f"{name}: {option.name}",
                option.metadata["help"],
                option.default,
                option.metadata["choices"],
                visible=name in chosen,
            )
    return fields


def regions(value: object) -> list[str]:
    """Returns the regions that a visitor has drawn, as lines. Raises `ConfigError` for a wrong one."""
    found = value.get("regions", []) if isinstance(value, dict) else []
    known = {field.name for field in dataclasses.fields(Region)}
    wrong = [one for one in found if not isinstance(one, dict) or set(one) - known]
    if wrong or not all(set(one) >= {"area", "prompt"} for one in found):
        raise ConfigError("a region has an area and a prompt, and perhaps what to avoid, a control scale, a softness")
    return [str(Region(**one)) for one in found]


def regions_shown(lines: Sequence[str]) -> dict[str, Any]:
    """Returns regions, as lines, for their part of the page."""
    fresh = dataclasses.asdict(Region(area="0-100%", prompt="x"))
    return {"regions": [dataclasses.asdict(Region.parse(line)) for line in lines], "fresh": fresh}


def canvas() -> Fields:
    """Returns size and shape of the picture."""
    fields: Fields = {}
    for name, text in (("width", "px; 0: by the guide"), ("height", "px; 0: the model's")):
        fields[name] = gr.Number(0, label=name.capitalize(), info=text, precision=0, minimum=0, min_width=100)
    fields["shape"] = gr.Radio(list(SHAPES), value="flat", label="Shape", info="ring and sphere: 360°", min_width=200)
    text = "how a guide of another aspect comes onto the picture"
    fields["fit"] = gr.Dropdown(list(FITS), value=FITS[0], label="Fit", info=text, filterable=False, min_width=120)
    return fields


def settings(values: Mapping[str, Any]) -> Fields:
    """Returns all other settings, folded away by config, with their help and unit.

    Args:
        values: those of the preset, as `config.record`.
    """
    fields: Fields = {}
    for title, config in CONFIGS.items():
        with gr.Accordion(title.capitalize(), open=False), gr.Row():
            for flag in flags(config).values():
                if flag.key not in SHAPED:
                    fields[flag.key] = _setting(flag, values[flag.key])
    return fields


def composing() -> Fields:
    """Returns how a picture starts from another one."""
    values, strength = record(Img2ImgConfig()), form_values.COMPOSING[form_values.STRENGTH]
    text = f"{strength.setting.help}; 0: {strength.setting.shown_default}"
    return {
        name: _field(name, text, 0.0, ()) if field is strength else _setting(field, values[name])
        for name, field in form_values.COMPOSING.items()
    }


def repainting(shown: bool) -> Fields:
    """Returns whether the ControlNet for inpainting follows what is kept; seen where the model has one."""
    text = "it follows the picture around what is drawn anew"
    return {INPAINT: gr.Checkbox(False, label="ControlNet for inpainting", info=text, visible=shown, min_width=220)}


def adapters(loaded: Adapters) -> Fields:
    """Returns how strong LoRAs and an IP-Adapter are."""
    fields: Fields = {}
    for name, (called, weight) in form_values.weights(loaded).items():
        label = f"LoRA {called.removesuffix(SUFFIX)}"
        text = f"its weight, within {form_values.STRONGEST:g} either way; 0: without it"
        fields[name] = gr.Number(weight, label=label, info=text, min_width=220)
    if loaded.ip_adapter:
        fields[form_values.IP_SCALE] = gr.Number(
            1.0, label="likeness", info="strength of the IP-Adapter", min_width=220
        )
    return fields


def enlarging() -> Fields:
    """Returns how a finished picture is enlarged."""
    values, tall = record(UpscaleConfig()), form_values.ENLARGING["tall_canvas"]
    choices: list[str | tuple[str, str]] = [("by the preset", ""), *tall.setting.choices]
    return {
        name: _field(name, tall.setting.help, "", choices) if field is tall else _setting(field, values[name])
        for name, field in form_values.ENLARGING.items()
    }


def _setting(flag: Flag, value: Any) -> gr.Component:
    label, text = words_of(flag.name), flag.setting.help
    if flag.setting.per_control:
        return gr.Textbox(shown(flag.key, value), label=label, info=text, min_width=220)
    if flag.is_anchor:
        text = f"{text.partition(':')[0]}: middle, or an index from the top left"
        return gr.Textbox(str(value), label=label, info=text, min_width=220)
    return _field(label, text, value, flag.setting.choices)


def _field(
    label: str, text: str, value: Any, choices: Sequence[str | tuple[str, str]], visible: bool = True
) -> gr.Component:
    common: dict[str, Any] = {"label": label, "info": text, "visible": visible, "min_width": 220}
    if choices:
        return gr.Dropdown(list(choices), value=value, filterable=False, **common)
    if isinstance(value, bool):
        return gr.Checkbox(value, **common)
    if isinstance(value, int | float):
        return gr.Number(value, precision=0 if isinstance(value, int) else None, **common)
    return gr.Textbox(value, **common)


def shown(name: str, value: Any) -> Any:
    """Returns a setting as its field shows it."""
    if SETTINGS[name].setting.per_control:
        return " ".join(f"{number:g}" for number in (value if isinstance(value, list | tuple) else [value]))
    return str(value) if SETTINGS[name].is_anchor else value


def shape_of(values: Mapping[str, Any]) -> str:
    """Returns the shape of settings."""
    if values.get("loop"):
        return "ring"
    return "sphere" if values.get("projection") == "equirectangular" else "flat"


PRESET_FIELDS = tuple(
    name for name in form_values.SETTINGS if name not in (*SHAPED, *form_values.COMPOSING, *form_values.ENLARGING)
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
            return [gr.skip() for _ in PRESET_FIELDS]
        values = form_values.preset_values(loader.defaults(model, name, offline))
        return [shown(setting, values[setting]) for setting in PRESET_FIELDS]

    return answer


def repainting_choice(models: tuple[str, ...], offline: bool) -> Callable[[str], list[Any]]:
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
            yield shown(name, values[name]) if name in form_values.SETTINGS else values[name]
        else:
            yield gr.skip()
