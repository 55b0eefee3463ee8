"""How a setting is declared, once; whatever reads, writes, shows or checks settings iterates the declarations."""

import dataclasses
import difflib
import functools
import math
import numbers
import sys
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
    least: float  # the smallest number that is allowed
    most: float  # the largest, which is finite
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
    key: str  # its name in JSON, manifests, metadata and forms
    old_keys: tuple[str, ...]  # its earlier names there
    words: str  # its name in a sentence
    scalar: type  # of one value of it: bool, int, float or str
    is_list: bool  # a list of texts or paths, one for each time that the flag is given
    is_path: bool  # its value, or each of its values, is a path
    is_anchor: bool  # a window's index, a name or a file
    json_words: str  # what its JSON value must be, in words

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


def flag_of(key: str) -> str:
    """Return the flag of a key: sync_weight is sync-weight."""
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
        least=-math.inf if minimum is None else math.nextafter(minimum, math.inf) if above else minimum,
        most=min(maximum, sys.float_info.max),
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
        except ValidationError:
            declared = flags(type(self), by_field=True)
            standard = {name: _standard(value, declared.get(name)) for name, value in values.items()}
            try:
                super().__init__(**standard)
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
        kinds = {TYPE_TEXTS.get(item["type"], "") for item in error.errors() if str(item["loc"][0]) == field} - {""}
        if kinds == {"a number", "a list"}:
            kinds = {"a number or a list of numbers"}
        hint = " or ".join(sorted(kinds)) or first["msg"]
        value = first["input"]
        return ConfigError(f"{cls._words(field)} is {value!r}; it must be {hint}", field=field, value=value, hint=hint)

    @classmethod
    def _words(cls, field: str) -> str:
        """Return what a field is called in an error: its flag's words."""
        return flags(cls, by_field=True)[field].words

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for flag in _limited(type(self)):
            value, declared = getattr(self, flag.field), flag.setting
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, str):
                    if declared.choices and item not in declared.choices:
                        require_choice(flag.words, item, declared.choices, flag.field)
                elif isinstance(item, int | float) and not declared.least <= item <= declared.most:
                    raise _out_of_range(flag, item)
        self.check()
        return self

    def check(self) -> None:
        """Raise `ConfigError` for values that contradict each other."""

    def replace(self, **changes: Any) -> Self:
        """Return the same settings with some changed. Raises as the class."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**own, **changes})

    def complete(self) -> Self:
        """Return the same settings, every one of them counted as given: nothing is left to a preset."""
        fields = set(type(self).model_fields)
        return self.model_construct(fields, **{name: getattr(self, name) for name in fields})

    def overridden_by(self, partial: Self) -> Self:
        """Return these settings with those of `partial` that were given. Raises as `check`."""
        if not partial.model_fields_set:
            return self
        own = {name: getattr(self, name) for name in type(self).model_fields}
        changes = {name: getattr(partial, name) for name in partial.model_fields_set}
        both = self.model_construct(self.model_fields_set | partial.model_fields_set, **{**own, **changes})
        both.check()
        return both


def _standard(value: Any, flag: Flag | None) -> Any:
    """Return a value in Python's own types, for NumPy's numbers and lists, and today's value for an earlier one."""
    if isinstance(value, str):
        return flag.setting.old_values.get(value, value) if flag is not None else value
    if isinstance(value, list | tuple):
        return tuple(_standard(item, flag) for item in value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _out_of_range(flag: Flag, number: float) -> ConfigError:
    low, high = flag.setting.minimum, flag.setting.maximum
    if flag.setting.above:
        hint = f"above {low:g}" + ("" if high == math.inf else f", up to {high:g}")
    else:
        hint = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    text = f"{flag.words} is {number}; it must be {hint}"
    return ConfigError(text, field=flag.field, value=number, hint=hint)


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
    declared: dict[str, Flag] = {}
    for field, info in cls.model_fields.items():
        own = info.json_schema_extra["setting"] if isinstance(info.json_schema_extra, dict) else None
        if not isinstance(own, Setting):
            continue
        name = own.flag or (cls.prefix + field).replace("_", "-")
        types, parts = set(), [info.annotation]  # those of a union and of a tuple's items
        while parts:
            part = parts.pop()
            parts += get_args(part)
            types.add(part)
        scalar = next((kind for kind in (bool, float, int) if kind in types), str)
        is_list, is_anchor = get_origin(info.annotation) is tuple, field == "anchor"
        words = {bool: "true or false", int: "a whole number", float: "a number"}.get(scalar, "text")
        if is_anchor:
            words = "'middle', a whole number or a file"
        elif is_list:
            words = "a list of texts"
        elif own.per_control:
            words = "a number or a list of numbers"
        flag = Flag(
            name,
            field,
            info.default,
            own,
            info.annotation,
            key=name.replace("-", "_"),
            old_keys=tuple(old.replace("-", "_") for old in own.old_flags),
            words=name.replace("-", " "),
            scalar=scalar,
            is_list=is_list,
            is_path=Path in types,
            is_anchor=is_anchor,
            json_words=words,
        )
        declared[field if by_field else name] = flag
    return declared


@functools.cache
def _limited(cls: type[Settings]) -> tuple[Flag, ...]:
    """Return the settings of a class that have a range or choices."""
    return tuple(flag for flag in flags(cls).values() if flag.setting.choices or flag.setting.minimum is not None)


def record(*configs: Any) -> dict[str, Any]:
    """Return configs as JSON values by key; what has no JSON value is named by its own name or its class."""
    values = {flag.key: getattr(config, flag.field) for config in configs for flag in flags(config).values()}
    return {key: value if isinstance(value, int | float | str) else json_value(value) for key, value in values.items()}


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


def out_of_order(name: str, start: float, end: float) -> ConfigError:
    """Return the error for an interval whose start does not come before its end."""
    return ConfigError(f"{name} start is {start:g} and {name} end {end:g}; the start must come before the end")
