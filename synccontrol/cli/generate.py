"""Generation: run the jobs of the flags, and report them."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synccontrol.batch import existing, runner
from synccontrol.batch.executor import AbstractExecutor, LocalExecutor
from synccontrol.batch.job import Outcome
from synccontrol.batch.worker import Listener
from synccontrol.cli import job_builder
from synccontrol.cli.progress import Interrupt, Progress
from synccontrol.cli.remote import Outputs
from synccontrol.cli.settings_file import Stored
from synccontrol.cli.terminal import BAD_INPUT, DONE, INTERRUPTED, ITEM_FAILED
from synccontrol.errors import ConfigError, OutputError
from synccontrol.evaluate.html_report import ContactSheetEntry, contact_sheet
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
    args: argparse.Namespace, stored: Stored | None, resume_command: Callable[[int], str], given: Collection[str] = ()
) -> int:
    """Run the flags and return the exit status.

    Args:
        args: all flags; those of the configs only if given or stored.
        stored: the settings of `--settings`.
        resume_command: returns the command that resumes the run, by its first seed.
        given: keys of the flags on the command line.
    """
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from synccontrol.cli.remote import mirrored

    with mirrored(args) as (local_args, remote):
        return _run(local_args, stored, resume_command, given, remote)


def _run(
    args: argparse.Namespace,
    stored: Stored | None,
    resume_command: Callable[[int], str],
    given: Collection[str],
    remote: "Outputs | None",
) -> int:
    """Run flags whose paths are all on this machine, and return the exit status."""
    from synccontrol.batch import dry_run, existing, planner, prepare, runner
    from synccontrol.batch.model_request import machine_of
    from synccontrol.models import loader, registry

    note: Note = (
        prepare.silent if args.quiet else lambda text: print(object_store.replace_mirror_paths(text), file=sys.stderr)
    )
    check(args)
    seeds = job_builder.seeds(vars(args))
    template = job_builder.template(vars(args), seeds[0])
    many = planner.gives_many(template, seeds)
    if args.report and not many:
        raise ConfigError("--report is a contact sheet of many images, and this is one; leave it out")
    planned = planner.plan(template, job_builder.changer(vars(args)), seeds, args.save_control_map)
    own_names = planner.has_default_output(template) and not args.overwrite
    if own_names:
        planned = existing.numbered(planned)
    if args.style_image == job_builder.FIRST:
        styled = job_builder.following_first(planned)
        planned = planned if args.dry_run else styled  # in a dry run the first image does not exist
    if not args.dry_run:
        runner.sweep(planned)
    jobs, finished = _split_existing(planned, args, many or own_names, note)
    if many and not args.dry_run:
        existing.complete(args.output, finished)
    if not jobs:
        if not many:
            print(object_store.replace_mirror_paths(str(finished[0].output)))
        _report(planned, args, note)
        return DONE
    remarks = [*_check_requests(jobs), *jobs[0].spec(1, 1, hashes=False).idle(given)]
    remarks += stored.notes(*machine_of(template.recipe.request)) if stored else []
    if args.dry_run:
        print("\n".join([*remarks, *_setting_lines(template.recipe), *dry_run.forecast(jobs, args.output)]))
        return DONE
    request = jobs[0].recipe.request
    if not many:
        prepare.check(jobs[0], loader.geometry(request.model, request.offline))
    notes = [f"{request.model}: {registry.about(request.model)}", *remarks]
    status = generate(jobs, len(finished), args, many, notes, resume_command(seeds[0]), remote)
    _report(planned, args, note)
    return status


def _split_existing(
    jobs: Sequence["Job"], args: argparse.Namespace, skips_existing: bool, note: "Note"
) -> tuple[list["Job"], list["Job"]]:
    """Return the jobs to run, and those whose output exists.

    Raises:
        OutputError: an output is an input, cannot be written, or exists and `skips_existing` is False.
    """
    from synccontrol.io import atomic_write

    images = {path for job in jobs for path in job.recipe.images.values()}
    if args.style_image == job_builder.FIRST:
        images -= {jobs[0].output}
    inputs = [path for path in (args.settings, args.guide, *images) if path is not None]
    atomic_write.check_not_inputs(_outputs(jobs), [*inputs, *(path for job in jobs for path in job.inputs)])
    finished = [job for job in jobs if not job.overwrite and os.path.lexists(job.output)]
    if finished and not skips_existing:
        atomic_write.check_free([jobs[0].output])
    if finished:
        _report_existing(finished, note)
    skipped = set(map(id, finished))
    remaining = [job for job in jobs if id(job) not in skipped]
    if remaining:
        atomic_write.check_folder(remaining[0].output)
    return remaining, finished


def _check_requests(jobs: Sequence["Job"]) -> list[str]:
    """Return lines about detectors, and about flags that do nothing.

    Raises:
        SyncControlError: a device, dtype, control or detector is not available.
    """
    from synccontrol.batch import model_request

    lines: dict[str, None] = {}
    for request, detected in dict.fromkeys((job.recipe.request, job.detected) for job in jobs):
        model_request.machine_of(request)
        model_request.detector_names(request, detected)
        model_request.check_detectors(request, detected)
        lines |= dict.fromkeys(model_request.remarks(request, detected))
    if all(job.recipe.request.adapters.tiny_vae and not job.recipe.sync.perceptual for job in jobs):
        lines[IDLE] = None
    return list(lines)


def _outputs(jobs: Iterable["Job"]) -> Iterable[Path]:
    return (path for job in jobs for path in job.outputs)


def _setting_lines(recipe: "Recipe") -> list[str]:
    """Return the settings in lines, by flag."""
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


def _report_existing(jobs: Sequence["Job"], note: "Note") -> None:
    """Report existing outputs, and which of them have other settings than requested."""
    from synccontrol.batch.existing import differences

    changed = {job.output: names for job in jobs if (names := differences(job))}
    finished = len(jobs) - len(changed)
    if len(jobs) == 1 and finished:
        note(f"{jobs[0].output} exists with these settings and is skipped; another --seed generates another image")
    elif finished:
        note(f"{finished} outputs exist with these settings and are skipped; --overwrite generates them again")
    if changed:  # printed by quiet runs, too: these images are not the requested ones
        names = sorted({name for names in changed.values() for name in names})
        line = (
            f"{len(changed)} of the existing outputs were generated with another {', '.join(names)} "
            f"({next(iter(changed))}); name another --output, or allow --overwrite"
        )
        print(object_store.replace_mirror_paths(line), file=sys.stderr)


def _report(jobs: Sequence["Job"], args: argparse.Namespace, note: "Note") -> None:
    if args.report and not args.dry_run:
        note(f"the contact sheet is {write_contact_sheet(jobs, args.output)}")


def generate(
    jobs: Sequence["Job"],
    existing_count: int,
    args: argparse.Namespace,
    many: bool,
    notes: Sequence[str],
    resume_command: str,
    remote: Outputs | None,
) -> int:
    """Generate images and return the exit status.

    Args:
        jobs: the images.
        existing_count: number of images that exist.
        args: the flags.
        many: the run may have several images, so that one failure does not fail the run.
        notes: printed once the model is loaded, and not earlier, so that bad input is one line.
        resume_command: the command that resumes the run.
        remote: the store of the outputs; None: they are local.

    Raises:
        SyncControlError: something that every image needs is not available.
        KeyboardInterrupt: a signal ended a run of one image.
    """
    interrupt = Interrupt()

    def report(job: "Job", outcome: Outcome | None) -> None:
        progress.report(job, remote.publish(job, outcome) if remote and outcome else outcome)

    with Progress(len(jobs), args.output if many else None, args.quiet) as progress:
        executor, listener = _executor(args), _Listener(progress, interrupt)
        try:
            executor.ready(jobs[0].recipe.request)
            for text in notes:
                progress.note(text)
            with interrupt.deferred():
                for turn in _turns(jobs):
                    runner.run(turn, executor, report, listener)
        except KeyboardInterrupt:
            if not many:
                raise
            progress.interrupted(existing_count, resume_command)
            return INTERRUPTED
        finally:
            executor.close()
    return _end_of_many(len(jobs), existing_count, progress) if many else _end_of_one(jobs[0], progress)


def _turns(jobs: Sequence["Job"]) -> list[Sequence["Job"]]:
    """Return the jobs whose images are anchors of others, then all others; empty groups are left out."""
    anchors = {job.recipe.anchor for job in jobs}
    leading = [job for job in jobs if job.output in anchors]
    return [turn for turn in (leading, [job for job in jobs if job.output not in anchors]) if turn]


def check(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for flags of engines that contradict each other."""
    if args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}; it must be 1 or more")
    if args.engine != RAY and (args.workers > 1 or args.address):
        flag = "workers" if args.workers > 1 else "address"
        raise ConfigError(
            f"--{flag} needs --engine ray; without Ray start the same command several times, they share the folder"
        )


class _Listener(Listener):
    """Shows steps on the terminal, and ends the run on Ctrl-C."""

    def __init__(self, progress: Progress, interrupt: Interrupt) -> None:
        self._progress, self._interrupt = progress, interrupt

    def check(self) -> None:
        self._interrupt.check()

    def step(self, job: "Job", step: "Step") -> None:
        self._progress.step(job, step)
        self._interrupt.check()


def _executor(args: argparse.Namespace) -> AbstractExecutor:
    if args.engine != RAY:
        return LocalExecutor()
    from synccontrol.batch.executor import RayExecutor

    return RayExecutor(args.workers, args.address)


def _end_of_many(count: int, existing_count: int, progress: Progress) -> int:
    progress.note(progress.summary(existing_count))
    failed = len(progress.errors)
    if failed:
        print(f"error: {failed} of {count} images failed; the others are done", file=sys.stderr)
    return ITEM_FAILED if failed else DONE


def _end_of_one(job: "Job", progress: Progress) -> int:
    if not progress.generated and not progress.errors:
        raise OutputError(f"{job.output} exists; name another --output, or allow --overwrite")
    for error in progress.errors:
        print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT if progress.errors else DONE


CONTACT_SHEET = "sheet.html"


def write_contact_sheet(jobs: Sequence["Job"], folder: Path) -> Path:
    """Write the contact sheet of a batch beside its images, and return its path. Raises `OutputError`."""
    records = {values["output"]: values for values in existing.read(folder)}
    entries = [_entry(job, folder, records.get(os.path.relpath(job.output, folder), {})) for job in jobs]
    count = sum(job.output.exists() for job in jobs)
    path = folder / CONTACT_SHEET
    content = contact_sheet(f"{count} of {len(jobs)} images in {folder}", entries, folder).encode("utf-8", "replace")
    atomic_write.publish(path, lambda file: file.write(content), overwrite=True)
    return path


def _entry(job: "Job", folder: Path, values: dict[str, Any]) -> ContactSheetEntry:
    controls = job.recipe.request.mapped_controls
    maps = job.map_outputs or job.control_maps
    named = [("guide", job.guide), *zip(controls, maps, strict=False), ("image", job.output)]
    seconds = values.get("seconds") or {}
    caption = [job.prompt, f"seed {job.seed}", *([f"{sum(seconds.values()):.1f} s"] if seconds else [])]
    return ContactSheetEntry(
        title=os.path.relpath(job.output, folder),
        caption=" · ".join(text for text in caption if text),
        error="" if job.output.exists() else str(values.get("error", "")),
        images=tuple((label, path) for label, path in named if path is not None and path.is_file()),
    )
