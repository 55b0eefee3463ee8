"""What a visitor asks for: the page's values as flags of the command line, and so as a job and as a command."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.app import beside
from synccontrol.command.parser import CONFIGS, DEFAULTS
from synccontrol.command.wanted import template
from synccontrol.compose import ComposeConfig
from synccontrol.config import MIDDLE, flags
from synccontrol.enlarge import EnlargeConfig
from synccontrol.errors import ConfigError
from synccontrol.jobs.job import Job
from synccontrol.options import record
from synccontrol.picture import followed

MACHINE = ("device", "dtype", "offload", "offline")  # flags of who runs the page, not of who visits it
TEXTS = ("prompt", "negative_prompt", "model", "preset", "fit")
LISTS = ("control", "detector", "region")
NUMBERS = ("width", "height", "seed")
COMPOSING = {flag.replace("-", "_"): field for flag, field in flags(ComposeConfig).items()}
ENLARGING = {flag.replace("-", "_"): field for flag, field in flags(EnlargeConfig).items()}
SETTINGS = {
    **{flag.replace("-", "_"): field for config in CONFIGS.values() for flag, field in flags(config).items()},
    **COMPOSING,
    **ENLARGING,
}
STRENGTH, EXTEND = "strength", "extend"  # which 0 leaves open; which is two words on the command line
MAP = "map"  # what a map is called that is made before its picture
NAMES = (*TEXTS, *LISTS, *NUMBERS, *SETTINGS)


def setting(name: str, value: object) -> Any:
    """Returns the value of a setting as its flag has it, of what stands in the page; None: the preset's.

    Raises:
        ConfigError: it cannot be one.
    """
    field = SETTINGS[name]
    if value is None or value == "" or (name == STRENGTH and value == 0):
        return None
    if field.name.startswith("control_"):
        words = value.replace(",", " ").split() if isinstance(value, str) else [value]
        return [_number(name, word, float) for word in words]
    if field.default == MIDDLE:
        return value if value == MIDDLE else _number(name, value, int)
    if isinstance(field.default, bool):
        return bool(value)
    if isinstance(field.default, int | float):
        return _number(name, value, type(field.default))
    return str(value)


def _number(name: str, value: object, kind: type) -> Any:
    try:
        number = float(str(value))
        if kind is int and not number.is_integer():
            raise ValueError
        return int(value) if isinstance(value, int) else kind(number)
    except (ValueError, OverflowError) as error:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name.replace('_', ' ')} is {value!r}; it must be {what}") from error


def flags_of(values: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags that say what the page says, and no more: what is the preset's or a default is left out.

    Args:
        values: by the names of the page.
        preset: the settings of its preset, as `config.record`.

    Raises:
        ConfigError: a value cannot be one.
    """
    found: dict[str, Any] = {}
    for name in TEXTS:
        text = str(values.get(name) or "")
        if text != (DEFAULTS[name] or "") and text:
            found[name] = text
    for name in LISTS:
        if values.get(name):
            found[name] = [str(one) for one in values[name]]
    for name in NUMBERS:
        number = setting_number(name, values.get(name))
        if number is not None and number != DEFAULTS[name]:
            found[name] = number
    for name in SETTINGS:
        value = setting(name, values.get(name))
        if value is not None and _alike(value) != _alike(preset[name]):
            found[name] = value
    return found


def setting_number(name: str, value: object) -> int | None:
    """Returns a size or seed; None where nothing is asked for. Raises `ConfigError` for what is no whole number."""
    if value in (None, "") or (name != "seed" and value == 0):
        return None
    number: int = _number(name, value, int)
    return number


def _alike(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def job(given: Mapping[str, Any], machine: Mapping[str, Any], output: Path) -> Job:
    """Returns the job of some flags. Raises `SyncControlError` for flags that make no sense.

    Args:
        given: flags, files by their path.
        machine: the flags in `MACHINE`.
        output: the picture's path.
    """
    kinds = " and ".join(followed(given.get("control", ())))
    if kinds and not (given.get("guide") or given.get("control_map")):
        raise ConfigError(f"{kinds} has no guide to follow: open or sketch one, or choose no control")
    args = {**DEFAULTS, **machine, **given, "output": output}
    return template(args, args["seed"])


def command(given: Mapping[str, Any]) -> str:
    """Returns the command line that makes the same picture; files stand by their name alone."""
    words = ["synccontrol"]
    for name, value in beside.named(given).items():
        flag = f"--{name.replace('_', '-')}"
        if name == EXTEND:
            words += [flag, *str(value).split()]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name in SETTINGS and isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words += [word for one in (value if isinstance(value, list) else [value]) for word in _flag(flag, one)]
    return shlex.join(words)


def map_command(given: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the command, and a line break, that makes the maps of detectors with options of their own.

    Args:
        given: flags of the picture.
        options: by control.
    """
    own: dict[str, Any] = {name: given[name] for name in ("model", "width", "height", "fit", "loop") if name in given}
    told = [f"{control}.{name}={value}" for control, values in options.items() for name, value in values.items()]
    flags_ = {**own, "guide": given["guide"], "control": list(options), "option": told, "output": f"{MAP}.png"}
    return command(flags_).replace("synccontrol", "synccontrol map", 1) + "\n"


def _flag(flag: str, value: object) -> Sequence[str]:
    text = _named(value)
    return [f"{flag}={text}"] if text.startswith("-") or not text else [flag, text]


def _named(value: object) -> str:
    """Returns a value as it stands in a command; of files the name, also in TYPE=PATH."""
    if isinstance(value, Path):
        return value.name
    kind, equals, path = str(value).partition("=/")
    return f"{kind}={Path(path).name}" if equals else str(value)


def preset_values(defaults: Any) -> dict[str, Any]:
    """Returns the settings of a preset (`models.defaults.Defaults`) by flag, as JSON values."""
    found = record(defaults.sampling, defaults.windows, defaults.sync, ComposeConfig(), EnlargeConfig())
    return {**found, "tall": None}  # which the command line chooses by the preset
