"""The exception tree. Every message is one line: what is wrong, why, and what would work.

Messages name settings by their flags, `--sync-shrink`. `str` of an error has the library's names for them,
`describe` those of the command line, and `for_page` those of the page.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")
ARGUMENTS: dict[str, str] = {}  # flags without dashes -> what the library calls them; `spec` and `evaluate` fill it


def for_library(message: str) -> str:
    """Return a message with the library's arguments in place of flags."""
    return FLAG.sub(lambda match: ARGUMENTS.get(match[1], match[0]), message)


def for_page(message: str) -> str:
    """Return a message with the page's field names in place of flags."""
    return FLAG.sub(lambda match: match[1].replace("-", " ") if match[1] in ARGUMENTS else match[0], message)


class SyncControlError(Exception):
    """Base of every error that SyncControl raises on purpose.

    Args:
        message: one line: what is wrong, which value, what would work. It names settings by their flags.
        field: the argument or setting that is wrong; empty if it is no single one.
        value: its value.
        hint: what would work.
    """

    def __init__(self, message: str = "", *, field: str = "", value: object = None, hint: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.value = value
        self.hint = hint

    @property
    def message(self) -> str:
        """Return the message, with settings named by their flags."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return for_library(self.message)


class ConfigError(SyncControlError, ValueError):
    """A setting is outside its range, or two settings contradict each other."""


class UnknownArgumentError(ConfigError, TypeError):
    """There is no argument or setting of that name.

    Args:
        owner: the class or function that was called.
        name: the unknown name.
        known: the names that it has.
        moved: names of earlier versions or other libraries -> what to write here.
    """

    def __init__(self, owner: str, name: str, known: Iterable[str], moved: Mapping[str, str] | None = None) -> None:
        known = list(known)
        near = (moved or {}).get(name) or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")
        hint = f"use {near}" if near else f"it has {', '.join(known)}"
        super().__init__(f"{owner} has no argument {name}; {hint}", field=name, hint=hint)


class InputError(SyncControlError, ValueError):
    """A guide, control map or manifest cannot be read or does not fit the canvas."""


class ModelError(SyncControlError, RuntimeError):
    """A model, detector or objective cannot be found, loaded or used here."""


class MemoryLimitError(ModelError):
    """The device's memory does not suffice, even for the smallest batch or tile.

    `latents` are the finished latents (1, c, h, w) if only decoding failed, else None.
    """

    def __init__(self, message: str, latents: "Tensor | None" = None) -> None:
        super().__init__(message)
        self.latents = latents


class OutputError(SyncControlError, OSError):
    """A result cannot be written."""


class NonFiniteError(SyncControlError, ArithmeticError):
    """NaN or infinity appeared while sampling."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of `preprocess` as errors of this module.

    Raises:
        ConfigError: a control type, detector or option is unknown, or a value out of range.
        ModelError: a detector or its weights are not available.
        InputError: an image or file cannot be read.
    """
    from synccontrol.preprocess import errors as preprocess  # here: it loads Pillow and NumPy

    try:
        yield
    except preprocess.OptionError as error:
        raise ConfigError(str(error)) from error
    except (preprocess.DetectorError, preprocess.HubError) as error:
        raise ModelError(str(error)) from error
    except preprocess.PreprocessError as error:
        raise InputError(str(error)) from error


def printable(text: str) -> str:
    """Return a text as one line, with escape codes in place of characters that cannot be printed."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def describe(error: Exception) -> str:
    """Return an error as one line for the command line; an unexpected error is shown with its type."""
    if isinstance(error, SyncControlError):
        return printable(error.message)
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text} (python -X dev shows where)"
