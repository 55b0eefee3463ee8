"""Having an engine make the pictures of a run, and saying what becomes of them."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synccontrol.command.interrupt import Interrupt
from synccontrol.command.parser import RAY
from synccontrol.command.progress import Progress
from synccontrol.command.remote import Outputs
from synccontrol.errors import ConfigError, OutputError
from synccontrol.jobs import batch
from synccontrol.jobs.engine import AbstractEngine, LocalEngine
from synccontrol.jobs.outcome import Outcome
from synccontrol.terminal import BAD_INPUT, DONE, INTERRUPTED, ITEM_FAILED

if TYPE_CHECKING:
    from synccontrol.jobs.job import Job
    from synccontrol.result import Step


def make(
    jobs: Sequence["Job"],
    kept: int,
    args: argparse.Namespace,
    many: bool,
    begin: Sequence[str],
    again: str,
    remote: Outputs | None,
) -> int:
    """Returns the exit status of making pictures.

    Args:
        jobs: the pictures.
        kept: how many more are there already.
        args: the flags.
        many: there may be several, so that one that fails does not fail the run.
        begin: what to note once the model is loaded; not earlier, so that bad input is one line.
        again: the command that goes on with the run.
        remote: puts pictures where they belong, if that is not here.

    Raises:
        SyncControlError: what every picture needs is not to be had.
        KeyboardInterrupt: somebody wants an end, and there is one picture.
    """
    interrupt = Interrupt()

    def report(job: "Job", outcome: Outcome | None) -> None:
        progress.report(job, remote.publish(job, outcome) if remote and outcome else outcome)

    with Progress(len(jobs), args.output if many else None, args.quiet) as progress:
        engine = _engine(args, progress, interrupt)
        try:
            engine.ready(jobs[0].recipe.request)
            for text in begin:
                progress.note(text)
            with interrupt.deferred():
                for some in _in_turn(jobs):
                    batch.run(some, engine, report, interrupt.check)
        except KeyboardInterrupt:
            if not many:
                raise
            progress.interrupted(kept, again)
            return INTERRUPTED
        finally:
            engine.close()
    return _end_of_many(len(jobs), kept, progress) if many else _end_of_one(jobs[0], progress)


def _in_turn(jobs: Sequence["Job"]) -> list[Sequence["Job"]]:
    """Returns the pictures that others follow, and then all others; either of them only if there are any."""
    followed = {job.recipe.anchor for job in jobs}
    leading = [job for job in jobs if job.output in followed]
    return [some for some in (leading, [job for job in jobs if job.output not in followed]) if some]


def check(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for flags of engines that make no sense together."""
    if args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}; it must be 1 or more")
    if args.engine != RAY and (args.workers > 1 or args.address):
        flag = "workers" if args.workers > 1 else "address"
        raise ConfigError(
            f"--{flag} needs --engine ray; without Ray start the same command several times, they share the folder"
        )


def _engine(args: argparse.Namespace, progress: Progress, interrupt: Interrupt) -> AbstractEngine:
    if args.engine == RAY:
        from synccontrol.jobs.ray_engine import RayEngine

        return RayEngine(args.workers, args.address, interrupt.check)

    def on_step(job: "Job", step: "Step") -> None:
        progress.step(job, step)
        interrupt.check()

    return LocalEngine(on_step)


def _end_of_many(count: int, kept: int, progress: Progress) -> int:
    progress.note(progress.summary(kept))
    failed = len(progress.errors)
    if failed:
        print(f"error: {failed} of {count} pictures failed; the others are done", file=sys.stderr)
    return ITEM_FAILED if failed else DONE


def _end_of_one(job: "Job", progress: Progress) -> int:
    if not progress.made and not progress.errors:
        raise OutputError(f"{job.output} exists; name another --output, or allow --overwrite")
    for error in progress.errors:
        print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT if progress.errors else DONE
