"""Read a request of the page: the values of its form, and the files of the session."""

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
from synccontrol.spec.image_spec import INPAINT, mapped_controls
from synccontrol.spec.settings import LARGEST_SEED, Adapters
from synccontrol.studio.form import DEFAULT_DETECTOR, NONE, SHAPES, SLOTS, regions
from synccontrol.studio.form_values import (
    IMG2IMG,
    adapter_flags,
    flags_of,
    job,
    preset_values,
    setting_number,
)
from synccontrol.studio.session import Session

Options = dict[str, dict[str, Option]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageRequest:
    """A request of the page."""

    given: dict[str, Any]  # flags of the command line
    options: Options  # of detectors, by control; defaults are left out
    notes: list[str]

    def with_maps(self, maps: Mapping[str, Path]) -> "PageRequest":
        """Return the same request with ready-made maps, by control, instead of detection."""
        own = list(self.given.get("control_map", ()))
        given = {**self.given, "control_map": own + [f"{control}={path}" for control, path in maps.items()]}
        if len(given["control_map"]) == len(mapped_controls(given["control"])):
            given = {name: value for name, value in given.items() if name not in ("guide", "detector")}
        elif "detector" in given:
            pairs = zip(_detected(self.given), given["detector"], strict=True)
            given["detector"] = [name for control, name in pairs if control not in maps]
        return dataclasses.replace(self, given=given, options={})

    def job(self, machine: Mapping[str, Any], output: Path) -> Job:
        """Return the job of the request. Raises `SyncControlError` for values that contradict each other."""
        return job(self.given, machine, output)


def read_request(
    values: Mapping[str, Any], session: Session, models: tuple[str, ...], offline: bool, adapters: Adapters = Adapters()
) -> PageRequest:
    """Return the request of a session.

    Args:
        values: of the fields, by name.
        session: whose files are used.
        models: the models of the page.
        offline: the network is never used.
        adapters: the adapters of the page.

    Raises:
        SyncControlError: a value has the wrong type or range.
    """
    model, preset = _one_of("model", values["model"], models), _one_of("preset", values["preset"], PRESETS)
    chosen = [(slot, str(values[f"control{slot}"])) for slot in range(SLOTS) if values[f"control{slot}"] != NONE]
    controls = [control for _, control in chosen]
    if len(set(controls)) < len(controls):
        raise ConfigError(f"{controls[0]} is chosen twice; choose another second control, or none")
    for control in controls:
        _one_of("control", control, preprocess.names())
    notes = []
    if values.get(INPAINT) and session.start is None:
        notes.append("there is no init image, so there is nothing to inpaint")
    shape: dict[str, object] = {
        "loop": False,
        "projection": "flat",
        **SHAPES[_one_of("shape", values["shape"], tuple(SHAPES))],
    }
    inpaint = [INPAINT] if values.get(INPAINT) and session.start is not None else []
    own = {"control": controls + inpaint, "region": regions(values.get("region"))}
    given = flags_of({**values, **shape, **own}, preset_values(loader.defaults(model, preset, offline)))
    if session.guide is not None and not controls:
        notes.append("no control is chosen, so the guide is not followed")
    if session.start is None:
        given = {name: value for name, value in given.items() if name not in IMG2IMG}
    maps = {control: session.ready[slot] for slot, control in chosen if slot in session.ready}
    given |= _files(session, controls, maps) | adapter_flags(values, session.reference, adapters)
    detectors = _detectors(values, [(slot, control) for slot, control in chosen if control not in maps], model)
    if detectors:
        given["detector"] = detectors
    return PageRequest(given=given, options=_options(values, _detected(given)), notes=notes)


def _files(session: Session, controls: Sequence[str], maps: Mapping[str, Path]) -> dict[str, Any]:
    """Return the files of a session as flags. Raises `ConfigError` for JSON of another control than pose.

    Args:
        session: the session.
        controls: those that follow a guide or a map.
        maps: the ready-made maps, by control.
    """
    files: dict[str, Any] = {}
    if controls and session.guide is not None and len(maps) < len(controls):
        files["guide"] = session.guide
    if session.start is not None:
        files["init_image"] = session.start
        files |= {} if session.mask is None else {"mask": session.mask}
    if maps:
        files["control_map"] = [f"{control}={path}" for control, path in maps.items()]
    for control, path in maps.items():
        if path.suffix == poses.SUFFIX and control != "pose":
            raise ConfigError(f"{path.name} is OpenPose JSON, which only the control pose reads, not {control}")
    return files


def seeds(values: Mapping[str, Any], most: int) -> list[int]:
    """Return the seeds of the requested variations. Raises `ConfigError` for too many, or none."""
    first, count = setting_number("seed", values["seed"]) or 0, setting_number("count", values["count"]) or 1
    if not 1 <= count <= most:
        raise ConfigError(f"{count} variations; between 1 and {most} can be generated at once")
    return [min(first + number, LARGEST_SEED) for number in range(count)] if first <= LARGEST_SEED else [first]


def _detected(given: Mapping[str, Any]) -> list[str]:
    """Return the controls that are detected from the guide."""
    ready = {str(text).partition("=")[0] for text in given.get("control_map", ())}
    return [
        control for control in mapped_controls(given.get("control", ())) if control not in ready and "guide" in given
    ]


def _detectors(values: Mapping[str, Any], detected: list[tuple[int, str]], model: str) -> list[str]:
    """Return the detector of each detected control; none if all are the model's own."""
    names = [str(values[f"detector{slot}"] or DEFAULT_DETECTOR) for slot, _ in detected]
    if all(name == DEFAULT_DETECTOR for name in names):
        return []
    chosen = []
    for (_, control), name in zip(detected, names, strict=True):
        known = preprocess.detectors(control)
        own = own_detectors(model, [control]) or (known[0],)
        chosen.append(own[0] if name == DEFAULT_DETECTOR else _one_of(f"{control} detector", name, known))
    return chosen


def _options(values: Mapping[str, Any], controls: list[str]) -> Options:
    options: Options = {}
    for control in controls:
        for option in preprocess.option_fields(control):
            value = values.get(f"{control}:{option.name}")
            if value not in (None, "", option.default):
                options.setdefault(control, {})[option.name] = value
    return options


def _one_of(name: str, value: object, known: "tuple[str, ...] | list[str]") -> str:
    if value not in known:
        raise ConfigError(f"{name} {value!r} is not on offer; choose one of {', '.join(known)}")
    return str(value)
