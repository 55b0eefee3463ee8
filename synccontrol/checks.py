"""Checks of settings: what is wrong with a value, in one line."""

import math
from collections.abc import Collection

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
