"""One run: from flags to pictures on disk."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synccontrol.batch import existing, runner
from synccontrol.batch.executor import AbstractEngine, LocalEngine
from synccontrol.batch.job import Outcome
from synccontrol.cli import job_builder
from synccontrol.cli.progress import Interrupt, Progress
from synccontrol.cli.remote import Outputs
from synccontrol.cli.settings_file import Stored
from synccontrol.cli.terminal import BAD_INPUT, DONE, INTERRUPTED, ITEM_FAILED
from synccontrol.errors import ConfigError, OutputError
from synccontrol.evaluate.html_report import Entry, contact_sheet
from synccontrol.io import atomic_write, object_store
from synccontrol.spec.image_settings import CONFIGS, RAY
from synccontrol.spec.settings import record

if TYPE_CHECKING:
    from synccontrol.batch.job import Job, Recipe
    from synccontrol.batch.prepare import Note
    from synccontrol.cli.remote import Outputs
    from synccontrol.pipeline.output import Step


IDLE = "--tiny-vae does nothing here: no objective is at work (sync-weight 0), and the command line shows no previews"


def run(
    args: argparse.Namespace, stored: Stored | None, again: Callable[[int], str], given: Collection[str] = ()
) -> int:
    """Returns the exit status of one run.

    Args:
        args: all flags; those of the configs where they were given or stored.
        stored: what `--settings` holds.
        again: returns the command that goes on with the run, by its first seed.
        given: the flags that the command itself has, by key.
    """
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from synccontrol.cli.remote import mirrored

    with mirrored(args) as (here, remote):
        return _run(here, stored, again, given, remote)


def _run(
    args: argparse.Namespace,
    stored: Stored | None,
    again: Callable[[int], str],
    given: Collection[str],
    remote: "Outputs | None",
) -> int:
    """Returns the exit status of one run among files of this machine, finished ones of which go on elsewhere."""
    from synccontrol.batch import dry_run, existing, planner, prepare, runner
    from synccontrol.batch import existing as there
    from synccontrol.batch.model_request import machine_of
    from synccontrol.models import loader, registry

    note: Note = prepare.silent if args.quiet else lambda text: print(object_store.told(text), file=sys.stderr)
    check(args)
    seeds = job_builder.seeds(vars(args))
    template = job_builder.template(vars(args), seeds[0])
    many = planner.gives_many(template, seeds)
    if args.report and not many:
        raise ConfigError("--report is a sheet of many pictures, and this is one; leave it out")
    planned = planner.plan(template, job_builder.changer(vars(args)), seeds, args.save_control_map)
    own_names = planner.names_itself(template) and not args.overwrite
    if own_names:
        planned = there.numbered(planned)
    if args.style_image == job_builder.FIRST:
        following = job_builder.following_first(planned)
        planned = planned if args.dry_run else following  # there is no first image yet whose style could be read
    if not args.dry_run:
        runner.sweep(planned)
    jobs, kept = _to_make(planned, args, many or own_names, note)
    if many and not args.dry_run:
        existing.complete(args.output, kept)
    if not jobs:
        if not many:
            print(object_store.told(str(kept[0].output)))
        _report(planned, args, note)
        return DONE
    remarks = [*_check_requests(jobs), *jobs[0].picture(1, 1, hashes=False).idle(given)]
    remarks += stored.notes(*machine_of(template.recipe.request)) if stored else []
    if args.dry_run:
        print("\n".join([*remarks, *_described(template.recipe), *dry_run.forecast(jobs, args.output)]))
        return DONE
    request = jobs[0].recipe.request
    if not many:
        prepare.check(jobs[0], loader.geometry(request.model, request.offline))
    begin = [f"{request.model}: {registry.about(request.model)}", *remarks]
    status = make(jobs, len(kept), args, many, begin, again(seeds[0]), remote)
    _report(planned, args, note)
    return status


def _to_make(
    jobs: Sequence["Job"], args: argparse.Namespace, keeps: bool, note: "Note"
) -> tuple[list["Job"], list["Job"]]:
    """Returns the pictures that are to be made, and those that are there and kept; `keeps`: some may be.

    Raises:
        OutputError: an output is an input, cannot be written, or exists where none may be kept.
    """
    from synccontrol.io import atomic_write

    shown = {path for job in jobs for path in job.recipe.shown.values()}
    if args.style_image == job_builder.FIRST:
        shown -= {jobs[0].output}
    inputs = [path for path in (args.settings, args.guide, *shown) if path is not None]
    atomic_write.check_apart(_outputs(jobs), [*inputs, *(path for job in jobs for path in job.inputs)])
    kept = [job for job in jobs if not job.overwrite and os.path.lexists(job.output)]
    if kept and not keeps:
        atomic_write.check_free([jobs[0].output])
    if kept:
        _say_kept(kept, note)
    left = set(map(id, kept))
    found = [job for job in jobs if id(job) not in left]
    if found:
        atomic_write.check_folder(found[0].output)
    return found, kept


def _check_requests(jobs: Sequence["Job"]) -> list[str]:
    """Returns what the user should know of detectors, and of what does nothing.

    Raises:
        SyncControlError: a device, dtype, control or detectors are not to be had.
    """
    from synccontrol.batch import model_request

    found: dict[str, None] = {}
    for request, detected in dict.fromkeys((job.recipe.request, job.detected) for job in jobs):
        model_request.machine_of(request)
        model_request.detector_names(request, detected)
        model_request.check_detectors(request, detected)
        found |= dict.fromkeys(model_request.remarks(request, detected))
    if all(job.recipe.request.adapters.tiny_vae and not job.recipe.sync.perceptual for job in jobs):
        found[IDLE] = None
    return list(found)


def _outputs(jobs: Iterable["Job"]) -> Iterable[Path]:
    return (path for job in jobs for path in job.outputs)


def _described(recipe: "Recipe") -> list[str]:
    """Returns all settings in lines, by flag."""
    lines = []
    for kind in CONFIGS:
        values = record(getattr(recipe, kind))
        if kind == "sync" and recipe.anchor is not None:
            values["anchor"] = recipe.anchor
        lines.append(f"{kind:8} " + ", ".join(f"{name.replace('_', '-')} {value}" for name, value in values.items()))
    if recipe.init_image is not None:
        values = record(recipe.img2img)
        lines.append(f"start    init-image {recipe.init_image}, " + ", ".join(f"{k} {v}" for k, v in values.items()))
    return [*lines, *(f"region   {region}" for region in recipe.regions)]


def _say_kept(kept: Sequence["Job"], note: "Note") -> None:
    """Says what is kept, and what of it is not what was asked for."""
    from synccontrol.batch.existing import differences

    other = {job.output: found for job in kept if (found := differences(job))}
    finished = len(kept) - len(other)
    if finished:
        one = f"{kept[0].output} is that picture already, and is kept; another --seed draws another"
        several = f"{finished} outputs exist, are finished and are kept; --overwrite makes them again"
        note(one if len(kept) == 1 else several)
    if other:  # said even when notes are not wanted: what was asked for is not what is there
        names = sorted({name for found in other.values() for name in found})
        said = (
            f"{len(other)} of the outputs that are kept were made with another {', '.join(names)} "
            f"({next(iter(other))}); name another --output, or allow --overwrite"
        )
        print(object_store.told(said), file=sys.stderr)


def _report(jobs: Sequence["Job"], args: argparse.Namespace, note: "Note") -> None:
    if args.report and not args.dry_run:
        note(f"the sheet of all pictures is {write(jobs, args.output)}")


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
                    runner.run(some, engine, report, interrupt.check)
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
        from synccontrol.batch.executor import RayEngine

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


NAME = "sheet.html"


def write(jobs: Sequence["Job"], folder: Path) -> Path:
    """Writes the sheet of a batch beside its pictures, and returns where. Raises `OutputError` if that cannot be."""
    known = {values["output"]: values for values in existing.read(folder)}
    entries = [_entry(job, folder, known.get(os.path.relpath(job.output, folder), {})) for job in jobs]
    made = sum(job.output.exists() for job in jobs)
    path = folder / NAME
    content = contact_sheet(f"{made} of {len(jobs)} pictures in {folder}", entries, folder).encode("utf-8", "replace")
    atomic_write.publish(path, lambda file: file.write(content), overwrite=True)
    return path


def _entry(job: "Job", folder: Path, values: dict[str, Any]) -> Entry:
    controls = job.recipe.request.followed
    maps = job.map_outputs or job.control_maps
    named = [("guide", job.guide), *zip(controls, maps, strict=False), ("picture", job.output)]
    seconds = values.get("seconds") or {}
    said = [job.prompt, f"seed {job.seed}", *([f"{sum(seconds.values()):.1f} s"] if seconds else [])]
    return Entry(
        title=os.path.relpath(job.output, folder),
        said=" · ".join(text for text in said if text),
        error="" if job.output.exists() else str(values.get("error", "")),
        shown=tuple((label, path) for label, path in named if path is not None and path.is_file()),
    )
