"""From the fields of the page, and what a user has uploaded, to what is asked for."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol import preprocess
from synccontrol.batch.job import Job
from synccontrol.batch.model_request import own_detectors
from synccontrol.errors import ConfigError
from synccontrol.io import poses
from synccontrol.models import loader
from synccontrol.preprocess.control import Option
from synccontrol.spec.image_settings import PRESETS
from synccontrol.spec.image_spec import INPAINT, followed
from synccontrol.spec.settings import LARGEST_SEED, Adapters
from synccontrol.studio.form import DEFAULT_DETECTOR, NONE, SHAPES, SLOTS, regions
from synccontrol.studio.form_values import (
    COMPOSING,
    adapter_flags,
    flags_of,
    job,
    preset_values,
    setting_number,
)
from synccontrol.studio.session import Visitor

Options = dict[str, dict[str, Option]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for."""

    given: dict[str, Any]  # flags of the command line
    options: Options  # of detectors, where they are not the default, by control
    notes: list[str]

    def with_maps(self, maps: Mapping[str, Path]) -> "Asked":
        """Returns the same with ready-made maps in place of detecting, by control."""
        own = list(self.given.get("control_map", ()))
        given = {**self.given, "control_map": own + [f"{control}={path}" for control, path in maps.items()]}
        if len(given["control_map"]) == len(followed(given["control"])):
            given = {name: value for name, value in given.items() if name not in ("guide", "detector")}
        elif "detector" in given:
            kept = _detected(self.given)
            pairs = zip(kept, given["detector"], strict=True)
            given["detector"] = [name for control, name in pairs if control not in maps]
        return dataclasses.replace(self, given=given, options={})

    def job(self, machine: Mapping[str, Any], output: Path) -> Job:
        """Returns its job. Raises `SyncControlError` for what makes no sense."""
        return job(self.given, machine, output)


def asked(
    values: Mapping[str, Any], visitor: Visitor, models: tuple[str, ...], offline: bool, adapters: Adapters = Adapters()
) -> Asked:
    """Returns what is asked for.

    Args:
        values: of the fields, by name.
        visitor: who asks.
        models: those on offer.
        offline: the network is never used.
        adapters: what is loaded into the model on offer.

    Raises:
        SyncControlError: a value cannot be one.
    """
    model, preset = _one_of("model", values["model"], models), _one_of("preset", values["preset"], PRESETS)
    chosen = [(slot, str(values[f"control{slot}"])) for slot in range(SLOTS) if values[f"control{slot}"] != NONE]
    controls = [control for _, control in chosen]
    if len(set(controls)) < len(controls):
        raise ConfigError(f"{controls[0]} is chosen twice; choose another second control, or none")
    for control in controls:
        _one_of("control", control, preprocess.names())
    notes = []
    if values.get(INPAINT) and visitor.start is None:
        notes.append("no picture is started from, so there is nothing to repaint")
    shape: dict[str, object] = {
        "loop": False,
        "projection": "flat",
        **SHAPES[_one_of("shape", values["shape"], tuple(SHAPES))],
    }
    repainted = [INPAINT] if values.get(INPAINT) and visitor.start is not None else []
    own = {"control": controls + repainted, "region": regions(values.get("region"))}
    given = flags_of({**values, **shape, **own}, preset_values(loader.defaults(model, preset, offline)))
    if visitor.guide is not None and not controls:
        notes.append("no control is chosen, so the guide is not followed")
    if visitor.start is None:
        given = {name: value for name, value in given.items() if name not in COMPOSING}
    maps = {control: visitor.ready[slot] for slot, control in chosen if slot in visitor.ready}
    given |= _files(visitor, controls, maps) | adapter_flags(values, visitor.reference, adapters)
    detectors = _detectors(values, [one for one in chosen if one[1] not in maps], model)
    if detectors:
        given["detector"] = detectors
    return Asked(given=given, options=_options(values, _detected(given)), notes=notes)


def _files(visitor: Visitor, controls: Sequence[str], maps: Mapping[str, Path]) -> dict[str, Any]:
    """Returns what a visitor has handed over, as flags. Raises `ConfigError` for JSON that is no map of its control.

    Args:
        visitor: who asks.
        controls: those that follow a guide or a map.
        maps: the ready-made ones, by control.
    """
    found: dict[str, Any] = {}
    if controls and visitor.guide is not None and len(maps) < len(controls):
        found["guide"] = visitor.guide
    if visitor.start is not None:
        found["init_image"] = visitor.start
        found |= {} if visitor.mask is None else {"mask": visitor.mask}
    if maps:
        found["control_map"] = [f"{control}={path}" for control, path in maps.items()]
    for control, path in maps.items():
        if path.suffix == poses.SUFFIX and control != "pose":
            raise ConfigError(f"{path.name} is OpenPose JSON, which only the control pose reads, not {control}")
    return found


def seeds(values: Mapping[str, Any], most: int) -> list[int]:
    """Returns the seeds of the variations that are asked for. Raises `ConfigError` for too many, or none."""
    first, count = setting_number("seed", values["seed"]) or 0, setting_number("count", values["count"]) or 1
    if not 1 <= count <= most:
        raise ConfigError(f"{count} variations; between 1 and {most} can be drawn at once")
    return [min(first + number, LARGEST_SEED) for number in range(count)] if first <= LARGEST_SEED else [first]


def _detected(given: Mapping[str, Any]) -> list[str]:
    """Returns the controls that are read off the guide."""
    ready = {str(one).partition("=")[0] for one in given.get("control_map", ())}
    return [control for control in followed(given.get("control", ())) if control not in ready and "guide" in given]


def _detectors(values: Mapping[str, Any], detected: list[tuple[int, str]], model: str) -> list[str]:
    """Returns the detector of each control that is read off the guide; none where all are the model's own."""
    asked_for = [str(values[f"detector{slot}"] or DEFAULT_DETECTOR) for slot, _ in detected]
    if all(name == DEFAULT_DETECTOR for name in asked_for):
        return []
    found = []
    for (_, control), name in zip(detected, asked_for, strict=True):
        known = preprocess.detectors(control)
        own = own_detectors(model, [control]) or (known[0],)
        found.append(own[0] if name == DEFAULT_DETECTOR else _one_of(f"{control} detector", name, known))
    return found


def _options(values: Mapping[str, Any], controls: list[str]) -> Options:
    found: Options = {}
    for control in controls:
        for option in preprocess.option_fields(control):
            value = values.get(f"{control}:{option.name}")
            if value not in (None, "", option.default):
                found.setdefault(control, {})[option.name] = value
    return found


def _one_of(name: str, value: object, known: "tuple[str, ...] | list[str]") -> str:
    if value not in known:
        raise ConfigError(f"{name} {value!r} is not on offer; choose one of {', '.join(known)}")
    return str(value)
