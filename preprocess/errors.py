"""What can go wrong between a guide and its control map."""


class PreprocessError(Exception):
    """Any error of this package; its text is one line that says what, why and what would work."""


class OptionError(PreprocessError, ValueError):
    """A control type, detector or option that does not exist, or a value out of range."""


class DetectorError(PreprocessError, RuntimeError):
    """A detector that cannot be used here: its weights, its package or its device cannot be had."""


class FormatError(PreprocessError, ValueError):
    """A file that does not hold what it should."""


class PictureError(PreprocessError, ValueError):
    """A guide or control map that is no picture, or one whose values have no known meaning."""
