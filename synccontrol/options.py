"""Fields of configs that are flags of the command line, and configs as JSON values by flag."""

import dataclasses
from collections.abc import Collection
from typing import Any


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
