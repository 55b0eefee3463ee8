"""One run: from flags to pictures on disk."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synccontrol.command import wanted
from synccontrol.command.parser import CONFIGS
from synccontrol.command.settings import Stored
from synccontrol.config import record
from synccontrol.errors import ConfigError
from synccontrol.files import stores
from synccontrol.terminal import DONE

if TYPE_CHECKING:
    from synccontrol.command.remote import Outputs
    from synccontrol.jobs.job import Job
    from synccontrol.jobs.maps import Note
    from synccontrol.jobs.recipe import Recipe

IDLE = "--tiny-vae does nothing here: no objective is at work (sync-weight 0), and the command line shows no previews"


def run(args: argparse.Namespace, stored: Stored | None, again: Callable[[int], str]) -> int:
    """Returns the exit status of one run.

    Args:
        args: all flags; those of the configs where they were given or stored.
        stored: what `--settings` holds.
        again: returns the command that goes on with the run, by its first seed.
    """
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from synccontrol.command.remote import mirrored

    with mirrored(args) as (here, remote):
        return _run(here, stored, again, remote)


def _run(args: argparse.Namespace, stored: Stored | None, again: Callable[[int], str], remote: "Outputs | None") -> int:
    """Returns the exit status of one run among files of this machine, finished ones of which go on elsewhere."""
    from synccontrol.command import making
    from synccontrol.jobs import batch, forecast, maps, plan, records
    from synccontrol.jobs import kept as there
    from synccontrol.jobs.runtime import machine_of
    from synccontrol.models import hub, presets

    note: Note = maps.silent if args.quiet else lambda text: print(stores.told(text), file=sys.stderr)
    making.check(args)
    seeds = wanted.seeds(vars(args))
    template = wanted.template(vars(args), seeds[0])
    many = plan.gives_many(template, seeds)
    if args.report and not many:
        raise ConfigError("--report is a sheet of many pictures, and this is one; leave it out")
    planned = plan.plan(template, wanted.changer(vars(args)), seeds, args.save_control_map)
    own_names = plan.names_itself(template) and not args.overwrite
    if own_names:
        planned = there.numbered(planned)
    if args.style_image == wanted.FIRST:
        planned = wanted.following_first(planned)
    if not args.dry_run:
        batch.sweep(planned)
    jobs, kept = _to_make(planned, args, many or own_names, note)
    if many and not args.dry_run:
        records.complete(args.output, kept)
    if not jobs:
        if not many:
            print(stores.told(str(kept[0].output)))
        _report(planned, args, note)
        return DONE
    remarks = _check_requests(jobs)
    remarks += stored.notes(*machine_of(template.recipe.request)) if stored else []
    if args.dry_run:
        print("\n".join([*remarks, *_described(template.recipe), *forecast.forecast(jobs)]))
        return DONE
    request = jobs[0].recipe.request
    if not many:
        maps.check(jobs[0], hub.geometry(request.model, request.offline))
    begin = [f"{request.model}: {presets.about(request.model)}", *remarks]
    status = making.make(jobs, len(kept), args, many, begin, again(seeds[0]), remote)
    _report(planned, args, note)
    return status


def _to_make(
    jobs: Sequence["Job"], args: argparse.Namespace, keeps: bool, note: "Note"
) -> tuple[list["Job"], list["Job"]]:
    """Returns the pictures that are to be made, and those that are there and kept; `keeps`: some may be.

    Raises:
        OutputError: an output is an input, cannot be written, or exists where none may be kept.
    """
    from synccontrol.files import outputs

    shown = {path for job in jobs for path in job.recipe.shown.values()}
    if args.style_image == wanted.FIRST:
        shown -= {jobs[0].output}
    inputs = [path for path in (args.settings, args.guide, *shown) if path is not None]
    outputs.check_apart(_outputs(jobs), [*inputs, *(path for job in jobs for path in job.inputs)])
    kept = [job for job in jobs if not job.overwrite and os.path.lexists(job.output)]
    if kept and not keeps:
        outputs.check_free([jobs[0].output])
    if kept:
        _say_kept(kept, note)
    left = set(map(id, kept))
    found = [job for job in jobs if id(job) not in left]
    if found:
        outputs.check_folder(found[0].output)
    return found, kept


def _check_requests(jobs: Sequence["Job"]) -> list[str]:
    """Returns what the user should know of detectors, and of what does nothing.

    Raises:
        SyncControlError: a device, dtype, control or detectors are not to be had.
    """
    from synccontrol.jobs import runtime

    found: dict[str, None] = {}
    for request, detected in dict.fromkeys((job.recipe.request, job.detected) for job in jobs):
        runtime.machine_of(request)
        runtime.detector_names(request, detected)
        for place in detected:
            runtime.check_control(request.followed[place])
        found |= dict.fromkeys(runtime.remarks(request, detected))
    if all(job.recipe.request.extras.tiny_vae and not job.recipe.sync.perceptual for job in jobs):
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
        values = record(recipe.compose)
        lines.append(f"start    init-image {recipe.init_image}, " + ", ".join(f"{k} {v}" for k, v in values.items()))
    return [*lines, *(f"region   {region}" for region in recipe.regions)]


def _say_kept(kept: Sequence["Job"], note: "Note") -> None:
    """Says what is kept, and what of it is not what was asked for."""
    from synccontrol.jobs.kept import differences

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
        print(stores.told(said), file=sys.stderr)


def _report(jobs: Sequence["Job"], args: argparse.Namespace, note: "Note") -> None:
    if args.report and not args.dry_run:
        from synccontrol.command import report

        note(f"the sheet of all pictures is {report.write(jobs, args.output)}")
