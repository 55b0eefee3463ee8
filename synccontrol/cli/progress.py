"""Ctrl-C, and SIGTERM: the current step is finished first; a second one ends at once."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from synccontrol.batch import existing
from synccontrol.errors import printable
from synccontrol.io import object_store

if TYPE_CHECKING:
    from synccontrol.batch.job import Job, Outcome
    from synccontrol.pipeline.output import Step


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether somebody wants an end."""

    def __init__(self) -> None:
        self._wanted = False

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if somebody wants an end; called between two steps."""
        if self._wanted:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds signals back until `check` is called, or a second one comes. In other threads it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._wanted:
            raise KeyboardInterrupt
        self._wanted = True


# Of a picture: how much of its work is done. Steps of a rough picture are cheaper than those of the canvas.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """Says what becomes of the pictures of a run, on the terminal and in the records beside them.

    Use it as a context. Paths of pictures go to stdout, all else to stderr.

    Args:
        count: how many pictures there are to make.
        folder: of all outputs, where the records lie; None: there are no records.
        quiet: no bars and no notes.

    Attributes:
        made: how many pictures.
        kept: how many pictures other runs have made meanwhile.
        errors: of those that failed.
    """

    def __init__(self, count: int, folder: Path | None, quiet: bool) -> None:
        self.made = self.kept = 0
        self.errors: list[str] = []
        self._folder, self._quiet, self._start = folder, quiet, time.monotonic()
        self._all = tqdm(total=count, unit="picture", desc="all", disable=quiet or folder is None, leave=False)
        self._one: tqdm[NoReturn] | None = None  # the steps of the picture that is drawn here

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._one is not None:
            self._one.close()
        self._all.close()

    def step(self, job: "Job", step: "Step") -> None:
        """Shows a denoising step."""
        if self._one is None:
            place = 0 if self._all.disable else 1
            self._one = tqdm(total=1, bar_format=BAR, disable=self._quiet, leave=False, position=place)
        if step.index == 0:
            self._one.reset()
            self._one.set_description_str(job.output.name)
        self._one.set_postfix_str(f"{step.index + 1}/{step.steps} steps", refresh=False)
        self._one.update(step.done - self._one.n)

    def report(self, job: "Job", outcome: "Outcome | None") -> None:
        """Says what became of a picture; None: another run has made it."""
        self._all.update()
        if outcome is None:
            self.kept += 1
            self.note(f"{job.output} was made by another run meanwhile, and is kept")
            return
        if self._folder is not None:
            existing.append(self._folder, existing.record(job, outcome, self._folder))
        for text in outcome.notes:
            self.note(f"{job.output}: {text}")
        if outcome.error:
            self._failed(job, outcome)
        else:
            self.made += 1
            self._print(str(job.output), to_stdout=True)

    def _failed(self, job: "Job", outcome: "Outcome") -> None:
        self.errors.append(outcome.error)
        if self._folder is None:  # there is one picture, and its error is the run's
            return
        if sys.flags.dev_mode and outcome.traceback:
            self._print(outcome.traceback)
        name = printable(str(job.inputs[0] if job.inputs else job.output))
        text = outcome.error if outcome.error.startswith(name) else f"{name}: {outcome.error}"
        self._print(f"error: {text}")

    def note(self, text: str) -> None:
        """Says what the user should know, if notes are wanted."""
        if not self._quiet:
            self._print(text)

    def summary(self, kept: int) -> str:
        """Returns in a line what has been done; `kept` pictures were there before."""
        seconds = time.monotonic() - self._start
        counts = {"made": self.made, "kept": kept + self.kept, "failed": len(self.errors)}
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "made")
        rate = f", {seconds / self.made:.1f} s a picture" if self.made else ""
        where = f"; records are in {self._folder / existing.NAME}" if self._folder else ""
        return f"{said} in {seconds:.0f} s{rate}{where}"

    def interrupted(self, kept: int, again: str) -> None:
        """Says what has been done by the time of an interruption, and which command goes on."""
        self._print(f"error: interrupted; {self.summary(kept)}; this goes on: {again}")

    def _print(self, text: str, to_stdout: bool = False) -> None:
        with tqdm.external_write_mode(file=sys.stdout if to_stdout else sys.stderr):
            print(object_store.told(text), file=sys.stdout if to_stdout else sys.stderr, flush=True)
