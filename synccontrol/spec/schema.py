"""Checks of settings: what is wrong with a value, in one line."""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from synccontrol.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises `ConfigError` with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message)


def require_number(name: str, value: object, minimum: float, maximum: float = math.inf) -> None:
    """Raises `ConfigError` unless a value, or each of a tuple, is a finite number in a range."""
    values = value if isinstance(value, tuple) else (value,)
    for number in values:
        finite = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        limit = f"at least {minimum:g}" if maximum == math.inf else f"between {minimum:g} and {maximum:g}"
        require(finite and minimum <= number <= maximum, f"{name} is {number}; it must be {limit}")


def require_whole(name: str, value: object, minimum: int) -> None:
    """Raises `ConfigError` unless a value is a whole number, `minimum` at least."""
    require(
        isinstance(value, int) and not isinstance(value, bool),
        f"{name} is {value!r}; it must be a whole number",
    )
    require_number(name, value, minimum)


def require_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises `ConfigError` unless a value is one of some choices."""
    require(value in choices, f"unknown {name} {value!r}; known: {', '.join(choices)}")


def require_before(name: str, starts: float | tuple[float, ...], ends: float | tuple[float, ...]) -> None:
    """Raises `ConfigError` unless every start comes before its end; a single one stands for all."""
    first, last = (value if isinstance(value, tuple) else (value,) for value in (starts, ends))
    count = max(len(first), len(last))
    pairs = zip(*(values * count if len(values) == 1 else values for values in (first, last)), strict=False)
    for start, end in pairs:
        require(start < end, f"{name} start is {start:g} and {name} end {end:g}; the start must come before the end")


def option(default: Any, text: str, *, flag: str = "", choices: Collection[str] = ()) -> Any:
    """Returns a dataclass field that the CLI reads. `flag` replaces the class's prefix and the field's name."""
    return dataclasses.field(default=default, metadata={"help": text, "flag": flag, "choices": tuple(choices)})


def flags(config: Any) -> dict[str, dataclasses.Field[Any]]:
    """Returns the fields of a config class or object that are flags, by their names, without dashes in front."""
    return {
        field.metadata["flag"] or (config.prefix + field.name).replace("_", "-"): field
        for field in dataclasses.fields(config)
        if "flag" in field.metadata
    }


def record(*configs: Any) -> dict[str, Any]:
    """Returns configs as JSON values by flag, dashes as underscores; what has none by its name or class."""
    values = {
        flag.replace("-", "_"): getattr(config, field.name)
        for config in configs
        for flag, field in flags(config).items()
    }
    return {name: _json_value(value) for name, value in values.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int | float | str):
        return value
    return getattr(value, "__name__", type(value).__name__)  # a function or a picture
