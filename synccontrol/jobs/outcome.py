"""What became of a job, as plain data."""

import dataclasses
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from synccontrol.errors import MemoryLimitError, ModelError, SyncControlError
from synccontrol.terminal import describe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job. Pure data: it can be pickled and written as JSON."""

    output: str  # the picture's path
    error: str = ""  # one line; empty: the picture is made
    fatal: bool = False  # every picture would meet this error
    traceback: str = ""  # of an error that is none of ours
    notes: tuple[str, ...] = ()  # what the user should know
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # as the picture records them
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by stage
    memory: int = 0  # bytes: the most that a device, or else the process, has held so far
    worker: str = ""  # host and process


class Work:
    """A job on its way through the stages of a worker; a stage that fails is the last one.

    Attributes:
        error: what went wrong.
        seconds: by stage.
        notes: what the user should know.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, and keeps its error, whatever it is."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.error = error
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def fatal(self) -> bool:
        """Returns whether every picture would meet the error."""
        return isinstance(self.error, ModelError) and not isinstance(self.error, MemoryLimitError)

    @property
    def said(self) -> str:
        """Returns the error in one line, or an empty text."""
        return "" if self.error is None else describe(self.error)

    @property
    def traceback(self) -> str:
        """Returns where an error came from that is none of ours, or an empty text."""
        if self.error is None or isinstance(self.error, SyncControlError):
            return ""
        return "".join(traceback.format_exception(self.error))
