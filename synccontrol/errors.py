"""The exception tree. Every message is one line: what is wrong, why, and what would work."""


class SyncControlError(Exception):
    """Base of every error that SyncControl raises on purpose."""


class ConfigError(SyncControlError, ValueError):
    """A setting is outside its range, or two settings contradict each other."""


class InputError(SyncControlError, ValueError):
    """A guide, control map or manifest cannot be read or does not fit the canvas."""


class ModelError(SyncControlError, RuntimeError):
    """A model, detector or objective cannot be found, loaded or used here."""


class ResourceError(SyncControlError, RuntimeError):
    """A picture needs more memory than there is."""


class OutputError(SyncControlError, OSError):
    """A result cannot be written."""


class NonFiniteError(SyncControlError, ArithmeticError):
    """NaN or infinity appeared while sampling."""
