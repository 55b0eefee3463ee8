"""The exceptions of the preprocessors."""

import difflib
from collections.abc import Iterable

LONGEST_REASON = 200  # characters of a message from another package


class PreprocessError(Exception):
    """Base of all errors of this package; the text is one line: what is wrong, why, and what works."""


class OptionError(PreprocessError, ValueError):
    """A control type, detector or option does not exist, or a value is out of range."""


class DetectorError(PreprocessError, RuntimeError):
    """A detector cannot be used, because its weights, package or device is not available."""


class HubError(PreprocessError, RuntimeError):
    """A model is neither on this machine nor available from the hub, or it has an unexpected type."""


class FormatError(PreprocessError, ValueError):
    """A file does not have the expected format."""


class PictureError(PreprocessError, ValueError):
    """A guide or control map is not an image, or its values have no known meaning."""


def reason(error: Exception) -> str:
    """Return the first line of the message of another package's error, or its type if the message is empty."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:LONGEST_REASON].rstrip(". ")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the beginning of a hint with the known name closest to a mistyped one; empty if there is none."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"did you mean {near[0]}? " if near else ""
