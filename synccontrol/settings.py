"""Settings: what decides a picture, as JSON values by flag. Which there are, and of what kind each is."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from synccontrol.compose import ComposeConfig
from synccontrol.config import OBJECTIVES, SamplingConfig, SyncConfig, WindowConfig, flags
from synccontrol.enlarge import EnlargeConfig
from synccontrol.errors import ConfigError
from synccontrol.extras import Extras

NO_FILE = "<picture>"  # a file's place where a program gave a picture
EMBEDDED = "<embeddings>"  # a prompt that was given encoded

Kind = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(one(item) for item in value)


_TEXT: Kind = ("text", lambda value: isinstance(value, str))
_WHOLE: Kind = ("a whole number", _is_whole)
_TEXTS: Kind = ("a list of texts", _list_of(_TEXT[1]))
_NUMBERS: Kind = ("a number or a list of numbers", lambda value: _is_number(value) or _list_of(_is_number)(value))
_ANCHOR: Kind = ("'middle', a whole number or a file", lambda value: _is_whole(value) or isinstance(value, str))
_BY_TYPE: Mapping[type, Kind] = {
    str: _TEXT,
    int: _WHOLE,
    float: ("a number", _is_number),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    tuple: _TEXTS,
}


def _kind(field: dataclasses.Field[Any]) -> Kind:
    if field.name == "anchor":
        return _ANCHOR
    return _NUMBERS if field.name.startswith("control_") else _BY_TYPE[type(field.default)]


KINDS: Mapping[str, Kind] = {  # the allow-list: all that decides a picture, and of what kind it is in JSON
    **dict.fromkeys(("prompt", "negative_prompt", "model", "fit", "guide", "guide_sha256", "anchor_sha256"), _TEXT),
    **dict.fromkeys(("ip_image", "ip_image_sha256", "region_map", "region_map_sha256"), _TEXT),
    **dict.fromkeys(("init_image", "init_image_sha256", "mask", "mask_sha256"), _TEXT),
    **dict.fromkeys(("width", "height", "seed"), _WHOLE),
    **dict.fromkeys(("control", "controlnet", "detector", "control_map", "control_map_sha256", "region"), _TEXTS),
    **{
        flag.replace("-", "_"): _kind(field)
        for config in (Extras, ComposeConfig, EnlargeConfig, SamplingConfig, WindowConfig, SyncConfig)
        for flag, field in flags(config).items()
    },
}

YOUNGER: Mapping[str, Any] = {"sync_scaffold": 0.0, "sync_scaffold_noise": 1.0}  # than the statistics of latents


def check(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of some settings that decide a picture; None and what is no picture's own are left out.

    Raises:
        ConfigError: a value is of the wrong type, or cannot be made from JSON.
    """
    values = {name: settings[name] for name in KINDS if settings.get(name) is not None}
    for name, value in values.items():
        words, fits = KINDS[name]
        if not fits(value):
            raise ConfigError(f"{name} is {value!r}; it must be {words}")
    objective = values.get("objective", OBJECTIVES[0])
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"objective {objective!r} is unknown, or a function of the program that made the picture, which cannot be "
            f"made from JSON; choose one of {', '.join(OBJECTIVES)}"
        )
    for name in ("anchor", "ip_image", "region_map", "init_image", "mask"):
        if values.get(name) == NO_FILE:
            raise ConfigError(
                f"the {name.replace('_', ' ')} was a picture in another program's memory, which cannot be made from "
                "JSON; name a file"
            )
    if EMBEDDED in (values.get("prompt"), values.get("negative_prompt")):
        raise ConfigError("a prompt was given as embeddings, which cannot be made from JSON; give it in words")
    return values


def of_picture(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `check`ed settings of a picture; what there was not yet when it was made is as if it were off.

    Raises:
        ConfigError: as `check`.
    """
    values = check(stored)
    return {**YOUNGER, **values} if "sync_adain" in values else values
