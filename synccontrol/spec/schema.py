"""How a setting is declared, once; whatever reads, writes, shows or checks settings iterates the declarations."""

import dataclasses
import difflib
import functools
import math
import numbers
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synccontrol.errors import ConfigError, UnknownArgumentError

TYPE_TEXTS = {  # what pydantic calls a wrong type -> what a value must be
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is declared of a setting beside its name, type and default."""

    help: str
    flag: str  # of the command line, without dashes in front; empty: the class's prefix and the field's name
    minimum: float | None  # of a number, or of each number of a tuple
    maximum: float
    above: bool  # the minimum itself is excluded
    choices: tuple[str, ...]
    old_flags: tuple[str, ...]  # earlier names, still understood
    old_values: Mapping[str, str]  # earlier values -> today's
    per_control: bool  # one value for all controls, or one for each
    shown_default: str  # in place of the default, where that follows from something else
    words: tuple[str, ...]  # of the command line that make up the value, where it is several
    group: str  # of --help
    random: bool  # the command line also takes the word random
    column: bool  # manifests have it as a column
    file: bool  # it names a file, whose hash is recorded beside it


@dataclasses.dataclass(frozen=True)
class Flag:
    """A setting as a flag of the command line, a key of JSON and PNG metadata, a manifest column and a form field."""

    name: str  # of the flag, without dashes in front
    field: str  # of its config class
    default: Any
    setting: Setting
    annotation: Any

    @functools.cached_property
    def key(self) -> str:
        """Return its name in JSON, manifests, metadata and forms."""
        return key_of(self.name)

    @functools.cached_property
    def old_keys(self) -> tuple[str, ...]:
        """Return its earlier names in JSON, manifests and metadata."""
        return tuple(key_of(flag) for flag in self.setting.old_flags)

    @functools.cached_property
    def is_anchor(self) -> bool:
        """Return whether it is a window's index, a name or a file."""
        return self.field == "anchor"

    @functools.cached_property
    def is_path(self) -> bool:
        """Return whether its value, or each of its values, is a path."""
        return Path in _types(self.annotation)

    @functools.cached_property
    def is_list(self) -> bool:
        """Return whether it is a list of texts or paths, one for each time that the flag is given."""
        return get_origin(self.annotation) is tuple

    @functools.cached_property
    def scalar(self) -> type:
        """Return the type of one value of it: bool, int, float or str."""
        types = _types(self.annotation)
        return next((kind for kind in (bool, float, int) if kind in types), str)

    @functools.cached_property
    def json_words(self) -> str:
        """Return what its JSON value must be, in words."""
        if self.is_anchor:
            return "'middle', a whole number or a file"
        if self.is_list:
            return "a list of texts"
        if self.setting.per_control:
            return "a number or a list of numbers"
        return {bool: "true or false", int: "a whole number", float: "a number"}.get(self.scalar, "text")

    def fits_json(self, value: Any) -> bool:
        """Return whether a JSON value is of its type."""
        if self.is_anchor:
            return _is(value, int) or _is(value, str)
        if self.is_list:
            return isinstance(value, list | tuple) and all(_is(item, str) for item in value)
        if self.setting.per_control and isinstance(value, list | tuple):
            return all(_is(item, float) for item in value)
        return _is(value, self.scalar)


def _is(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | float if kind is float else kind)


def _types(annotation: Any) -> set[Any]:
    """Return the types that an annotation is made of: those of a union and of a tuple's items."""
    parts = get_args(annotation)
    return set().union(*map(_types, parts)) if parts else {annotation}


def key_of(flag: str) -> str:
    """Return the key of a flag in JSON, manifests, metadata and forms: sync-weight is sync_weight."""
    return flag.replace("-", "_")


def flag_of(key: str) -> str:
    """Return the flag of a key: the inverse of `key_of`."""
    return key.replace("_", "-")


def words_of(name: str) -> str:
    """Return a flag, key or argument as words of a sentence: sync_weight is "sync weight"."""
    return name.replace("-", " ").replace("_", " ")


def setting(
    default: Any,
    help: str,
    *,
    flag: str = "",
    minimum: float | None = None,
    maximum: float = math.inf,
    above: bool = False,
    choices: Iterable[str] = (),
    old_flags: Iterable[str] = (),
    old_values: Mapping[str, str] | None = None,
    per_control: bool = False,
    shown_default: str = "",
    words: Iterable[str] = (),
    group: str = "",
    random: bool = False,
    column: bool = True,
    file: bool = False,
) -> Any:
    """Return the field of a `Settings` class. Arguments are those of `Setting`."""
    declared = Setting(
        help=help,
        flag=flag,
        minimum=minimum,
        maximum=maximum,
        above=above,
        choices=tuple(choices),
        old_flags=tuple(old_flags),
        old_values=old_values or {},
        per_control=per_control,
        shown_default=shown_default,
        words=tuple(words),
        group=group,
        random=random,
        column=column,
        file=file,
    )
    return Field(default=default, description=help, json_schema_extra={"setting": declared})  # type: ignore[dict-item]


class Settings(BaseModel):
    """Settings that belong together. They cannot be changed; `replace` returns others.

    Raises:
        ConfigError: a value has another type or lies outside its range, or values contradict each other.
        UnknownArgumentError: there is no setting of that name; it is a `TypeError` and a `ConfigError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, defer_build=True)

    prefix: ClassVar[str] = ""  # of flags
    renamed: ClassVar[Mapping[str, str]] = {}  # earlier names of fields -> today's

    def __init__(self, **values: Any) -> None:
        unknown = next((name for name in values if name not in type(self).model_fields), None)
        if unknown is not None:
            raise UnknownArgumentError(type(self).__name__, unknown, type(self).model_fields, self.renamed)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._plain(error) from None

    @classmethod
    def _plain(cls, error: ValidationError) -> ConfigError:
        """Return an error of pydantic as one line in our words."""
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            return cause
        field = str(first["loc"][0])
        kinds = {TYPE_TEXTS.get(one["type"], "") for one in error.errors() if str(one["loc"][0]) == field} - {""}
        if kinds == {"a number", "a list"}:
            kinds = {"a number or a list of numbers"}
        hint = " or ".join(sorted(kinds)) or first["msg"]
        value = first["input"]
        return ConfigError(f"{cls._words(field)} is {value!r}; it must be {hint}", field=field, value=value, hint=hint)

    @classmethod
    def _words(cls, field: str) -> str:
        """Return what a field is called in an error: its flag's words."""
        return words_of(flags(cls, by_field=True)[field].name)

    @model_validator(mode="before")
    @classmethod
    def _standard_types(cls, values: Any) -> Any:
        """Accept NumPy's numbers, lists for tuples, and earlier values."""
        if not isinstance(values, dict):
            return values
        return {name: _standard(value, _declared(cls, name)) for name, value in values.items()}

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for flag in flags(type(self)).values():
            check_value(words_of(flag.name), getattr(self, flag.field), flag.setting, flag.field)
        self.check()
        return self

    def check(self) -> None:
        """Raise `ConfigError` for values that contradict each other."""

    def replace(self, **changes: Any) -> Self:
        """Return the same settings with some changed. Raises as the class."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return type(self)(**{**own, **changes})

    def complete(self) -> Self:
        """Return the same settings, every one of them counted as given: nothing is left to a preset."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields})

    def overridden_by(self, partial: Self) -> Self:
        """Return these settings with those of `partial` that were given."""
        return self.replace(**{name: getattr(partial, name) for name in sorted(partial.model_fields_set)})


def _declared(cls: type[BaseModel], name: str) -> Setting | None:
    field = cls.model_fields.get(name)
    extra = field.json_schema_extra if field is not None else None
    declared = extra.get("setting") if isinstance(extra, dict) else None
    return declared if isinstance(declared, Setting) else None


def _standard(value: Any, declared: Setting | None) -> Any:
    """Return a value in Python's own types."""
    if isinstance(value, bool | int | float | str):
        old = declared.old_values if declared is not None else {}
        return old.get(value, value) if isinstance(value, str) else value
    if isinstance(value, list | tuple):
        return tuple(_standard(item, declared) for item in value)
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def check_value(name: str, value: Any, setting: Setting, field: str = "") -> None:
    """Raise `ConfigError` unless a value lies in the range, or among the choices, of its setting.

    Args:
        name: what the error calls it.
        value: of the right type.
        setting: what is declared of it.
        field: the argument that has it.
    """
    if setting.choices and isinstance(value, str):
        require_choice(name, value, setting.choices, field)
    if setting.minimum is not None:
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float):
                _check_number(name, number, setting, field)


def _check_number(name: str, number: float, setting: Setting, field: str) -> None:
    low, high = setting.minimum, setting.maximum
    assert low is not None
    if math.isfinite(number) and (low < number if setting.above else low <= number) and number <= high:
        return
    if setting.above:
        hint = f"above {low:g}" + ("" if high == math.inf else f", up to {high:g}")
    else:
        hint = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    raise ConfigError(f"{name} is {number}; it must be {hint}", field=field, value=number, hint=hint)


BEGINNING = 4  # letters that a mistyped name and a longer one share at least


def flags(config: "Settings | type[Settings]", by_field: bool = False) -> Mapping[str, Flag]:
    """Return the settings of a class or object by the names of their flags, or of their fields.

    Args:
        config: a `Settings` class, or an object of one.
        by_field: whether names are those of fields.
    """
    return _flags(config if isinstance(config, type) else type(config), by_field)


@functools.cache
def _flags(cls: type[Settings], by_field: bool) -> Mapping[str, Flag]:
    declared = {}
    for name, field in cls.model_fields.items():
        own = _declared(cls, name)
        if own is not None:
            flag = Flag(own.flag or flag_of(cls.prefix + name), name, field.default, own, field.annotation)
            declared[name if by_field else flag.name] = flag
    return declared


def record(*configs: Any) -> dict[str, Any]:
    """Return configs as JSON values by key; what has no JSON value is named by its own name or its class."""
    return {flag.key: json_value(getattr(config, flag.field)) for config in configs for flag in flags(config).values()}


def json_value(value: Any) -> Any:
    """Return a setting's value as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int | float | str):
        return value
    return getattr(value, "__name__", type(value).__name__)  # a function or an image


def read_config(cls: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a class that JSON values by key name; earlier names are understood."""
    fields = {}
    for flag in flags(cls).values():
        for key in (flag.key, *flag.old_keys):
            if values.get(key) is not None:
                fields[flag.field] = values[key]
                break
    return fields


def today(values: Mapping[str, Any], *classes: type[Settings]) -> dict[str, Any]:
    """Return values by key with earlier keys and values replaced by today's."""
    renamed, current = _names(classes)
    result: dict[str, Any] = {}
    for name, value in values.items():
        key = renamed[name].key if name in renamed and renamed[name].key not in values else name
        old_values = current[key].setting.old_values if key in current else {}
        result[key] = old_values.get(value, value) if isinstance(value, str) else value
    return result


@functools.cache
def _names(classes: tuple[type[Settings], ...]) -> tuple[Mapping[str, Flag], Mapping[str, Flag]]:
    """Return the settings of some classes by their earlier keys, and by today's."""
    every = [flag for cls in classes for flag in flags(cls).values()]
    return {old: flag for flag in every for old in flag.old_keys}, {flag.key: flag for flag in every}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like a mistyped one; an empty text if none is."""
    names = list(known)
    alike = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    begin = [other for other in names if len(name) >= BEGINNING and other[:BEGINNING] == name[:BEGINNING]]
    return (alike or begin or [""])[0]


def require(condition: bool, message: str, field: str = "") -> None:
    """Raise `ConfigError` with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message, field=field)


def require_number(name: str, value: object, minimum: float, maximum: float = math.inf) -> None:
    """Raise `ConfigError` unless a value is a finite number in a range."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    limit = f"at least {minimum:g}" if maximum == math.inf else f"between {minimum:g} and {maximum:g}"
    inside = finite and isinstance(value, int | float) and minimum <= value <= maximum
    require(inside, f"{name} is {value}; it must be {limit}")


def require_choice(name: str, value: object, choices: Collection[str], field: str = "") -> None:
    """Raise `ConfigError`, which names the nearest choice, unless a value is one of the choices."""
    if value not in choices:
        near = nearest(str(value), choices)
        hint = f"one of {', '.join(choices)}"
        text = (
            f"unknown {name} {value!r}; " + (f"did you mean {near}? " if near else "") + f"known: {', '.join(choices)}"
        )
        raise ConfigError(text, field=field, value=value, hint=hint)


def require_before(name: str, starts: float | tuple[float, ...], ends: float | tuple[float, ...]) -> None:
    """Raise `ConfigError` unless every start comes before its end; a single one stands for all."""
    first, last = (value if isinstance(value, tuple) else (value,) for value in (starts, ends))
    count = max(len(first), len(last))
    pairs = zip(*(values * count if len(values) == 1 else values for values in (first, last)), strict=False)
    for start, end in pairs:
        require(start < end, f"{name} start is {start:g} and {name} end {end:g}; the start must come before the end")
