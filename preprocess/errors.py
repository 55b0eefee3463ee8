"""What can go wrong between a guide and its control map."""

import difflib
from collections.abc import Iterable

LONGEST_REASON = 200  # characters of another package's message


class PreprocessError(Exception):
    """Any error of this package; its text is one line that says what, why and what would work."""


class OptionError(PreprocessError, ValueError):
    """A control type, detector or option that does not exist, or a value out of range."""


class DetectorError(PreprocessError, RuntimeError):
    """A detector that cannot be used here: its weights, its package or its device cannot be had."""


class HubError(PreprocessError, RuntimeError):
    """A model that is not on this machine and not to be had from the hub, or is of another kind than it should be."""


class FormatError(PreprocessError, ValueError):
    """A file that does not hold what it should."""


class PictureError(PreprocessError, ValueError):
    """A guide or control map that is no picture, or one whose values have no known meaning."""


def reason(error: Exception) -> str:
    """Returns the first line of what another package's error says, or its kind if it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:LONGEST_REASON].rstrip(". ")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the beginning of a hint that names what is most like a mistyped name; an empty text if nothing is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"did you mean {near[0]}? " if near else ""
