"""The form of the page: its fields by name, made from the schema of settings."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from synccontrol import preprocess
from synccontrol.errors import ConfigError
from synccontrol.families.checkpoints import SUFFIX
from synccontrol.models import listing, loader
from synccontrol.spec.image_settings import CONFIGS, DEFAULT, PRESETS
from synccontrol.spec.image_spec import INPAINT, mapped_controls
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
    """Return the fields of the prompts."""
    return {
        "prompt": gr.Textbox(prompt, label="Prompt", lines=3, max_lines=8, scale=4, elem_id="prompt", min_width=240),
        "negative_prompt": gr.Textbox(label="Avoid", lines=3, max_lines=8, scale=2, min_width=160),
    }


def model(models: Sequence[str]) -> Fields:
    """Return the fields of model and preset."""
    return {
        "model": gr.Dropdown(
            list(models), value=models[0], label="Model", visible=len(models) > 1, filterable=False, min_width=140
        ),
        "preset": gr.Radio(
            list(PRESETS), value=DEFAULT, label="Preset", info="paper: SyncDiffusion as published", min_width=300
        ),
    }


def control(slot: int, controls: Sequence[str], chosen: str) -> Fields:
    """Return the fields of one control: its type and its detector."""
    which = "Control" if slot == 0 else "Second control"
    return {
        f"control{slot}": gr.Dropdown(
            [NONE, *controls],
            value=chosen,
            label=which,
            info="how the image follows the guide",
            filterable=False,
            min_width=140,
        ),
        f"detector{slot}": gr.Dropdown(
            detectors(chosen),
            value=DEFAULT_DETECTOR,
            label=f"{which}: detector",
            info="makes the control map",
            filterable=False,
            min_width=140,
        ),
    }


def detectors(control: str) -> list[str]:
    """Return the detectors of a control type in the form."""
    return [DEFAULT_DETECTOR] if control == NONE else [DEFAULT_DETECTOR, *preprocess.detectors(control)]


def detector_options(controls: Sequence[str], chosen: Sequence[str]) -> Fields:
    """Return the fields of detector options, by control:option; only those of chosen controls are visible."""
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
    """Return the regions of the form as lines. Raises `ConfigError` for a wrong one."""
    fields = value.get("regions", []) if isinstance(value, dict) else []
    known = {field.name for field in dataclasses.fields(Region)}
    wrong = [region for region in fields if not isinstance(region, dict) or set(region) - known]
    if wrong or not all(set(region) >= {"area", "prompt"} for region in fields):
        raise ConfigError(
            "a region has an area and a prompt, and perhaps a negative prompt, a control scale, a softness"
        )
    return [str(Region(**region)) for region in fields]


def regions_value(lines: Sequence[str]) -> dict[str, Any]:
    """Return the value of the regions' component from lines."""
    fresh = dataclasses.asdict(Region(area="0-100%", prompt="x"))
    return {"regions": [dataclasses.asdict(Region.parse(line)) for line in lines], "fresh": fresh}


def canvas() -> Fields:
    """Return the fields of size and shape."""
    fields: Fields = {}
    for name, text in (("width", "px; 0: by the guide"), ("height", "px; 0: the model's")):
        fields[name] = gr.Number(0, label=name.capitalize(), info=text, precision=0, minimum=0, min_width=100)
    fields["shape"] = gr.Radio(list(SHAPES), value="flat", label="Shape", info="ring and sphere: 360°", min_width=200)
    text = "how a guide of another aspect is fitted to the image"
    fields["fit"] = gr.Dropdown(list(FITS), value=FITS[0], label="Fit", info=text, filterable=False, min_width=120)
    return fields


def settings(values: Mapping[str, Any]) -> Fields:
    """Return the fields of all other settings in an accordion for each config.

    Args:
        values: settings of the preset, as `schema.record`.
    """
    fields: Fields = {}
    for title, config in CONFIGS.items():
        with gr.Accordion(title.capitalize(), open=False), gr.Row():
            for flag in flags(config).values():
                if flag.key not in SHAPED:
                    fields[flag.key] = _setting(flag, values[flag.key])
    return fields


def img2img_fields() -> Fields:
    """Return the fields of img2img."""
    values, strength = record(Img2ImgConfig()), form_values.IMG2IMG[form_values.STRENGTH]
    text = f"{strength.setting.help}; 0: {strength.setting.shown_default}"
    return {
        name: _field(name, text, 0.0, ()) if field is strength else _setting(field, values[name])
        for name, field in form_values.IMG2IMG.items()
    }


def inpainting(visible: bool) -> Fields:
    """Return the field of the ControlNet for inpainting."""
    text = "it follows the image around the inpainted part"
    return {INPAINT: gr.Checkbox(False, label="ControlNet for inpainting", info=text, visible=visible, min_width=220)}


def adapters(loaded: Adapters) -> Fields:
    """Return the fields of the strengths of LoRAs and an IP-Adapter."""
    fields: Fields = {}
    for name, (called, weight) in form_values.weights(loaded).items():
        label = f"LoRA {called.removesuffix(SUFFIX)}"
        text = f"its weight, within {form_values.MAX_LORA_WEIGHT:g} either way; 0: without it"
        fields[name] = gr.Number(weight, label=label, info=text, min_width=220)
    if loaded.ip_adapter:
        fields[form_values.IP_SCALE] = gr.Number(
            1.0, label="likeness", info="strength of the IP-Adapter", min_width=220
        )
    return fields


def upscaling() -> Fields:
    """Return the fields of upscaling."""
    values, tall = record(UpscaleConfig()), form_values.UPSCALING["tall_canvas"]
    choices: list[str | tuple[str, str]] = [("by the preset", ""), *tall.setting.choices]
    return {
        name: _field(name, tall.setting.help, "", choices) if field is tall else _setting(field, values[name])
        for name, field in form_values.UPSCALING.items()
    }


def _setting(flag: Flag, value: Any) -> gr.Component:
    label, text = words_of(flag.name), flag.setting.help
    if flag.setting.per_control:
        return gr.Textbox(field_value(flag.key, value), label=label, info=text, min_width=220)
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


def field_value(name: str, value: Any) -> Any:
    """Return a setting as its field shows it."""
    if SETTINGS[name].setting.per_control:
        return " ".join(f"{number:g}" for number in (value if isinstance(value, list | tuple) else [value]))
    return str(value) if SETTINGS[name].is_anchor else value


def shape_of(values: Mapping[str, Any]) -> str:
    """Return the shape of settings."""
    if values.get("loop"):
        return "ring"
    return "sphere" if values.get("projection") == "equirectangular" else "flat"


PRESET_FIELDS = tuple(
    name for name in form_values.SETTINGS if name not in (*SHAPED, *form_values.IMG2IMG, *form_values.UPSCALING)
)  # fields that a preset fills


def controls(fields: Fields, slot: int) -> Callable[..., list[Any]]:
    """Return the handler of a control's choice: it updates the detectors and their options."""

    def update(*chosen: str) -> list[Any]:
        offered = gr.Dropdown(choices=detectors(chosen[slot]), value=DEFAULT_DETECTOR)
        return [offered, *(gr.update(visible=name.partition(":")[0] in chosen) for name in fields if ":" in name)]

    return update


def preset(models: tuple[str, ...], offline: bool) -> Callable[[str, str], list[Any]]:
    """Return the handler of a model's or preset's choice: it fills the fields of its settings."""

    def update(model: str, name: str) -> list[Any]:
        if model not in models:
            return [gr.skip() for _ in PRESET_FIELDS]
        values = form_values.preset_values(loader.defaults(model, name, offline))
        return [field_value(setting, values[setting]) for setting in PRESET_FIELDS]

    return update


def inpainting_choice(models: tuple[str, ...], offline: bool) -> Callable[[str], list[Any]]:
    """Return the handler of a model's choice: it shows the fields of inpainting that the model supports."""

    def update(model: str) -> list[Any]:
        if model not in models:
            return [gr.skip(), gr.skip()]
        known = INPAINT in listing.controls(model)
        return [gr.Checkbox(value=False, visible=known), gr.HTML(visible=listing.is_inpainting_model(model, offline))]

    return update


def filled(fields: Fields, values: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the update of each field: a recorded value, or none.

    Args:
        fields: of the page.
        values: of an image, as `form_values.restored`.
    """
    controls = values.get("control", ())
    chosen = [*mapped_controls(controls), *([NONE] * SLOTS)]
    names = [*values.get("detector", ()), *([DEFAULT_DETECTOR] * SLOTS)]
    special: dict[str, Any] = {"shape": shape_of(values), "region": regions_value(values.get("region", ()))}
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
            yield field_value(name, values[name]) if name in form_values.SETTINGS else values[name]
        else:
            yield gr.skip()
