"""`Picture`: everything that decides one picture, as plain data that JSON and pickle carry."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from synccontrol.config import (
    FITS,
    MIDDLE,
    OBJECTIVES,
    SamplingConfig,
    SyncConfig,
    WindowConfig,
    check_seed,
    flags,
    record,
)
from synccontrol.errors import ConfigError

GUIDE, CONTROL_MAP, ANCHOR = ROLES = ("guide", "control_map", "anchor")
NO_FILE = "<picture>"  # an anchor that was given as a picture, in settings

Config = TypeVar("Config", SamplingConfig, WindowConfig, SyncConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file that a picture is made from."""

    role: str  # one of `ROLES`
    path: str
    sha256: str = ""  # of the file, hexadecimal; empty: not known

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"unknown role {self.role!r} of {self.path}; known: {', '.join(ROLES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """Everything that decides one picture; the machine and the versions it is made with stand beside it.

    Raises:
        ConfigError: a value outside its range.
    """

    prompt: str
    negative_prompt: str = ""
    height: int  # px
    width: int  # px
    seed: int = 0
    sampling: SamplingConfig = SamplingConfig()
    windows: WindowConfig = WindowConfig()
    sync: SyncConfig = SyncConfig()
    sources: tuple[Source, ...] = ()  # the guide, then control maps in the order of the controls, then the anchor
    model: str = ""  # a preset, folder or hub id; empty: a pipeline that was loaded elsewhere
    controls: tuple[str, ...] = ()  # control types
    controlnets: tuple[str, ...] = ()  # folders or hub ids, where they are not the model's own
    detectors: tuple[str, ...] = ()  # by name, where they are not the default
    fit: str = "exact"  # how a guide or control map of another aspect comes onto the canvas, one of `FITS`

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("prompt", "negative_prompt"):
            if not _is_text(getattr(self, name)):
                raise ConfigError(f"the {name.replace('_', ' ')} is not UTF-8 text; write it anew")
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; known: {', '.join(FITS)}")
        roles = [source.role for source in self.sources]
        if roles != sorted(roles, key=ROLES.index) or roles.count(GUIDE) > 1 or roles.count(ANCHOR) > 1:
            raise ConfigError("sources are one guide at most, then control maps, then one anchor at most")

    def of(self, role: str) -> tuple[Source, ...]:
        """Returns the sources of a role."""
        return tuple(source for source in self.sources if source.role == role)

    def settings(self) -> dict[str, Any]:
        """Returns the picture as JSON values by the names of the command line's flags.

        An objective that is a function is named, and an anchor without a file is `NO_FILE`: neither can be read back.
        """
        settings = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "width": self.width,
            "height": self.height,
            "seed": self.seed,
            **record(self.sampling, self.windows, self.sync),
            "model": self.model,
            "control": list(self.controls),
            "controlnet": list(self.controlnets),
            "detector": list(self.detectors),
            "fit": self.fit,
            "guide": None,
            "control_map": [source.path for source in self.of(CONTROL_MAP)],
            "guide_sha256": None,
            "control_map_sha256": [source.sha256 for source in self.of(CONTROL_MAP)],
            "anchor_sha256": None,
        }
        if not isinstance(self.sync.anchor, int | str):
            settings["anchor"] = NO_FILE
        for source in (*self.of(GUIDE), *self.of(ANCHOR)):
            settings[source.role] = source.path
            settings[f"{source.role}_sha256"] = source.sha256
        return settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Picture":
        """Returns the picture of some settings: the inverse of `settings`.

        What is absent has its default; keys that are none of a picture's own (see `check`) are left out of account.

        Raises:
            ConfigError: a value is of the wrong type or outside its range, there is no prompt, width or height, or
                something cannot be made from JSON: an objective that was a function, an anchor that was no file.
        """
        values = check(settings)
        missing = [name for name in ("prompt", "width", "height") if name not in values]
        if missing:
            raise ConfigError(f"the settings of a picture have no {', '.join(missing)}; give them")
        anchor = values.get(ANCHOR, MIDDLE)
        if isinstance(anchor, str) and anchor != MIDDLE:
            del values[ANCHOR]  # a file, and so a source
        plain: dict[str, Any] = {name: values[name] for name in _PLAIN if name in values}
        plain |= {field: tuple(values.get(name, ())) for field, name in _LISTS.items()}
        return cls(
            sampling=_config(SamplingConfig, values),
            windows=_config(WindowConfig, values),
            sync=_config(SyncConfig, values),
            sources=sources({**values, ANCHOR: anchor}),
            **plain,
        )


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
    if values.get(ANCHOR) == NO_FILE:
        raise ConfigError(
            "the anchor was a picture in another program's memory, which cannot be made from JSON; name an anchor"
        )
    return values


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    fields = {flag.replace("-", "_"): field.name for flag, field in flags(kind).items()}
    given = {field: values[name] for name, field in fields.items() if name in values}
    build: Callable[..., Config] = kind
    return build(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def sources(values: Mapping[str, Any]) -> tuple[Source, ...]:
    """Returns the files that checked settings name."""
    paths = values.get(CONTROL_MAP, [])
    hashes = values.get("control_map_sha256", [])
    if len(hashes) != len(paths):
        hashes = [""] * len(paths)  # of other control maps, or written by hand
    maps = [Source(role=CONTROL_MAP, path=path, sha256=sha256) for path, sha256 in zip(paths, hashes, strict=True)]
    guides, anchors = (
        [Source(role=role, path=values[role], sha256=values.get(f"{role}_sha256", ""))]
        if isinstance(values.get(role), str) and values[role] != MIDDLE
        else []
        for role in (GUIDE, ANCHOR)
    )
    return (*guides, *maps, *anchors)


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
}


def _kind(field: dataclasses.Field[Any]) -> Kind:
    if field.name == ANCHOR:
        return _ANCHOR
    return _NUMBERS if field.name.startswith("control_") else _BY_TYPE[type(field.default)]


_PLAIN = ("prompt", "negative_prompt", "width", "height", "seed", "model", "fit")
_LISTS = {"controls": "control", "controlnets": "controlnet", "detectors": "detector"}
KINDS: Mapping[str, Kind] = {  # the allow-list: all that decides a picture, and of what kind it is in JSON
    **dict.fromkeys(("prompt", "negative_prompt", "model", "fit", "guide", "guide_sha256", "anchor_sha256"), _TEXT),
    **dict.fromkeys(("width", "height", "seed"), _WHOLE),
    **dict.fromkeys((*_LISTS.values(), "control_map", "control_map_sha256"), _TEXTS),
    **{
        flag.replace("-", "_"): _kind(field)
        for config in (SamplingConfig, WindowConfig, SyncConfig)
        for flag, field in flags(config).items()
    },
}
