"""One run: from flags to pictures on disk."""

import argparse
import dataclasses
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synccontrol.command.parser import CONFIGS
from synccontrol.command.settings import Stored, extras_of
from synccontrol.config import MIDDLE, check_seed, flags, record
from synccontrol.errors import ConfigError, SyncControlError
from synccontrol.terminal import DONE, describe

if TYPE_CHECKING:
    from synccontrol.jobs.batch import Note
    from synccontrol.jobs.plan import Job
    from synccontrol.jobs.recipe import Recipe
    from synccontrol.jobs.runtime import Request
    from synccontrol.montage import Montage

ITEM_FAILED = 1  # the other statuses are those of `terminal`


def run(args: argparse.Namespace, stored: Stored | None) -> int:
    """Returns the exit status of one run.

    Args:
        args: all flags; those of the configs where they were given or stored.
        stored: what `--settings` holds.
    """
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from synccontrol.jobs import batch, forecast, plan, runtime
    from synccontrol.jobs.recipe import check_settings
    from synccontrol.models import hub, presets

    _check(args)
    note: Note = batch.silent if args.quiet else lambda text: print(text, file=sys.stderr)
    request, many = _request(args), plan.gives_many(args.guide)
    recipe = _recipe(args, request)
    jobs = _jobs(args, recipe, many, note)
    if not jobs:
        return DONE
    hub.controlnet_sources(
        args.model, args.control, args.controlnet, args.offline
    )  # fails before detectors are downloaded
    geometry = hub.geometry(args.model, args.offline)
    check_settings(recipe, geometry)
    guided = any(not job.control_maps for job in jobs if job.guide is not None)
    if guided:
        runtime.check_controls(request)
    remarks = runtime.remarks(request) if guided else []
    remarks += stored.notes(runtime.device_of(request), runtime.dtype_name(request)) if stored else []
    if args.dry_run:
        print("\n".join([*remarks, *_described(recipe), *forecast.forecast(request, jobs, recipe)]))
        return DONE
    if guided:
        recipe = dataclasses.replace(recipe, detectors=runtime.detectors(request, recipe.windows.closed))
    if not many:
        batch.check(jobs[0], recipe, geometry)
    montage = runtime.load(request)
    note(f"{args.model}: {presets.about(args.model)}")  # not earlier: bad input is one line
    for text in remarks:
        note(text)
    return _draw(montage, jobs, recipe, many, args.quiet)


def _request(args: argparse.Namespace) -> "Request":
    from synccontrol.jobs import runtime

    return runtime.Request(
        model=args.model,
        controls=tuple(args.control),
        controlnets=tuple(args.controlnet),
        detectors=tuple(args.detector) or runtime.own_detectors(args.model, args.control),
        extras=extras_of(vars(args)),
        device=args.device,
        dtype=args.dtype,
        offload=args.offload,
        offline=args.offline,
    )


def _jobs(args: argparse.Namespace, recipe: "Recipe", many: bool, note: "Note") -> list["Job"]:
    """Returns the pictures that are to be made; of many guides those that are not there yet.

    Raises:
        SyncControlError: a guide or a manifest is wrong, an output is an input, exists, or cannot be written.
    """
    from synccontrol.files import outputs
    from synccontrol.jobs import plan

    jobs = plan.plan(_wanted(args), args.control if args.save_control_map else ())
    inputs = [path for path in (args.settings, recipe.anchor, recipe.ip_image) if path is not None]
    outputs.check_apart(_outputs(jobs), [*inputs, *(path for job in jobs for path in job.inputs)])
    if many:
        jobs = _missing(jobs, recipe, note)
    elif not args.overwrite:
        outputs.check_free(jobs[0].outputs)
    if jobs:
        outputs.check_folder(jobs[0].output)
    return jobs


def _check(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for flags that make no sense together."""
    check_seed(args.seed)
    if args.guide is not None and not args.control:
        import preprocess

        raise ConfigError(f"--guide needs --control, one of {', '.join(preprocess.names())}")
    if args.control and args.guide is None and not args.control_map:
        raise ConfigError("--control needs a --guide to follow, or a ready-made --control-map")
    if args.control_map:
        for flag, given in (("guide", args.guide is not None), ("detector", bool(args.detector))):
            if given:
                raise ConfigError(f"--{flag} and --control-map exclude each other: a ready-made map needs neither")
    if (args.ip_image is None) == bool(extras_of(vars(args)).ip_adapter):
        raise ConfigError("--ip-adapter and --ip-image belong together: what it is, and what it is shown; give both")
    for flag in ("detector", "control_map"):
        count = len(getattr(args, flag))
        if count and count != len(args.control):
            raise ConfigError(
                f"{count} --{flag.replace('_', '-')} for {len(args.control)} --control; give one for each"
            )


def _wanted(args: argparse.Namespace) -> "Job":
    """Returns what all pictures of the run have in common."""
    from synccontrol.jobs.plan import Job

    return Job(
        guide=args.guide,
        control_maps=tuple(args.control_map),
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        seed=args.seed,
        width=args.width,
        height=args.height,
        output=args.output,
    )


def _recipe(args: argparse.Namespace, request: "Request") -> "Recipe":
    """Returns the recipe of the run, its detectors not loaded: the model's defaults, changed by flags."""
    from synccontrol.jobs import runtime
    from synccontrol.jobs.recipe import Recipe
    from synccontrol.models import hub

    defaults = hub.defaults(args.model, args.preset, args.offline)
    values = vars(args)
    anchor = values.get("anchor")
    return Recipe(
        request=request,
        detectors=(),
        outside=runtime.outside(request),
        fit=args.fit,
        anchor=Path(anchor) if isinstance(anchor, str) and anchor != MIDDLE else None,
        ip_image=args.ip_image,
        overwrite=args.overwrite,
        **{kind: _config(kind, getattr(defaults, kind), values) for kind in CONFIGS},
    )


def _config(kind: str, default: Any, values: dict[str, Any]) -> Any:
    """Returns a config: the model's default, changed by the flags that were given."""
    changes = {}
    for flag, field in flags(CONFIGS[kind]).items():
        value = values.get(flag.replace("-", "_"))
        if value is None:
            continue
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else tuple(value)
        if flag == "anchor" and isinstance(value, str) and value != MIDDLE:
            from synccontrol.files.images import open_image

            value = open_image(Path(value))
        changes[field.name] = value
    return dataclasses.replace(default, **changes)


def _described(recipe: "Recipe") -> list[str]:
    """Returns all settings in lines, by flag."""
    lines = []
    for kind in CONFIGS:
        values = record(getattr(recipe, kind))
        if kind == "sync" and recipe.anchor is not None:
            values["anchor"] = recipe.anchor
        lines.append(f"{kind:8} " + ", ".join(f"{name.replace('_', '-')} {value}" for name, value in values.items()))
    return lines


def _outputs(jobs: Iterable["Job"]) -> Iterable[Path]:
    return (path for job in jobs for path in job.outputs)


def _missing(jobs: Sequence["Job"], recipe: "Recipe", note: "Note") -> list["Job"]:
    """Returns the jobs whose pictures are not there yet, or are to be made again; says what is kept."""
    from synccontrol.jobs import kept

    if recipe.overwrite:
        return list(jobs)
    there = [job for job in jobs if job.output.exists()]
    if there:
        note(f"{len(there)} outputs exist and are kept; --overwrite makes them again")
    other = {job.output: found for job in there if (found := kept.differences(job, recipe))}
    if other:  # said even when notes are not wanted: what was asked for is not what is there
        names = sorted({name for found in other.values() for name in found})
        print(
            f"{len(other)} of the outputs that are kept were made with another {', '.join(names)} "
            f"({next(iter(other))}); name another --output, or allow --overwrite",
            file=sys.stderr,
        )
    return [job for job in jobs if job not in there]


def _draw(montage: "Montage", jobs: Sequence["Job"], recipe: "Recipe", many: bool, quiet: bool) -> int:
    from tqdm import tqdm

    from synccontrol.jobs import batch

    def make_one(job: "Job") -> None:
        with tqdm(total=recipe.sampling.steps, desc=job.output.name, disable=quiet, leave=False) as bar:
            note = batch.silent if quiet else lambda text: bar.write(f"{job.output}: {text}", file=sys.stderr)
            batch.make(montage, job, recipe, lambda _: bar.update(), note)
        print(job.output, flush=True)

    def report(job: "Job", error: Exception) -> None:
        if sys.flags.dev_mode and not isinstance(error, SyncControlError):
            traceback.print_exception(error)
        name, text = str(job.inputs[0]), describe(error)
        print(f"error: {text}" if text.startswith(name) else f"error: {name}: {text}", file=sys.stderr)

    if not many:
        make_one(jobs[0])
        return DONE
    failed = batch.run(jobs, make_one, report)
    if failed:
        print(f"error: {failed} of {len(jobs)} pictures failed; the others are done", file=sys.stderr)
    return ITEM_FAILED if failed else DONE
