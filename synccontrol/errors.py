"""The exception tree. Every message is one line: what is wrong, why, and what would work."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class SyncControlError(Exception):
    """Base of every error that SyncControl raises on purpose."""


class ConfigError(SyncControlError, ValueError):
    """A setting is outside its range, or two settings contradict each other."""


class InputError(SyncControlError, ValueError):
    """A guide, control map or manifest cannot be read or does not fit the canvas."""


class ModelError(SyncControlError, RuntimeError):
    """A model, detector or objective cannot be found, loaded or used here."""


class MemoryLimitError(ModelError):
    """The device's memory does not suffice, however small the steps that the work is done in.

    `latents` is what was denoised, (1, c, h, w), where only decoding is left; else None.
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
    """Turns the errors of `preprocess` into those above: of its options, its detectors, and what it is given to read.

    Raises:
        ConfigError: a control type, detector or option is unknown, or a value out of range.
        ModelError: a detector or its weights cannot be had.
        InputError: a picture or file is not what it should be.
    """
    from preprocess import errors as preprocess  # here: it loads Pillow and NumPy

    try:
        yield
    except preprocess.OptionError as error:
        raise ConfigError(str(error)) from error
    except (preprocess.DetectorError, preprocess.HubError) as error:
        raise ModelError(str(error)) from error
    except preprocess.PreprocessError as error:
        raise InputError(str(error)) from error


def printable(text: str) -> str:
    """Returns a text as one line: what cannot be printed, as it may stand in a file's name, is written as its code."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def describe(error: Exception) -> str:
    """Returns an error as one line: our own as they are, others with their type."""
    if isinstance(error, SyncControlError):
        return printable(str(error))
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text} (python -X dev shows where)"
