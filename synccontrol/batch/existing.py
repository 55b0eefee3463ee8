"""Existing outputs: their differences from the requested images, free names, and the results log."""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from synccontrol.batch import model_request
from synccontrol.batch.job import Job, Outcome
from synccontrol.batch.model_request import ModelRequest
from synccontrol.errors import InputError, OutputError
from synccontrol.io import atomic_write, metadata, object_store, provenance
from synccontrol.models.loader import revision

NAME = "results.jsonl"
MADE, FAILED, EXISTING = "made", "failed", "kept"  # values of `status` in the log


def record(job: Job, outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Return the record of a finished or failed job.

    Args:
        job: the job.
        outcome: its outcome.
        folder: of all outputs; their paths are relative to it.
    """
    settings = dict(outcome.settings)
    machine: dict[str, Any] = {name: settings.pop(name) for name in provenance.KEYS if name in settings}
    return {
        "output": os.path.relpath(job.output, folder),
        "status": FAILED if outcome.error else MADE,
        "error": object_store.replace_mirror_paths(outcome.error),
        "notes": list(outcome.notes),
        "guide": None if job.guide is None else object_store.replace_mirror_paths(str(job.guide)),
        "control_maps": [None if path is None else str(path) for path in job.control_maps],
        "saved_maps": [os.path.relpath(path, folder) for path in job.map_outputs],
        "seed": job.seed,
        "prompt": job.prompt,
        "size": [settings.get(name) for name in ("width", "height")],
        "seconds": {name: round(seconds, 4) for name, seconds in outcome.seconds.items()},
        "memory": outcome.memory,
        "worker": outcome.worker,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **machine,
        "settings": settings,
    }


def existing_record(job: Job, folder: Path) -> dict[str, Any]:
    """Return the record of an output that existed before, with the settings of the image."""
    try:
        settings = metadata.read_settings(job.output)
    except InputError:
        settings = {}
    outcome = Outcome(output=str(job.output), settings=settings)
    return {**record(job, outcome, folder), "status": EXISTING}


def complete(folder: Path, jobs: Sequence[Job]) -> None:
    """Add a record of each existing output without one: its run was killed, or another program wrote it.

    Raises:
        OutputError: the log cannot be written.
    """
    logged_outputs = {values["output"] for values in read(folder)} if jobs else set()
    for job in jobs:
        if os.path.relpath(job.output, folder) not in logged_outputs:
            append(folder, existing_record(job, folder))


def append(folder: Path, values: Mapping[str, Any]) -> None:
    """Append a record to the log of a folder. Safe while several runs append, even if one is killed.

    Raises:
        OutputError: the log cannot be written.
    """
    line = json.dumps(values).encode() + b"\n"
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line  # a run was killed within its line
            file.write(line)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the last record of each output of a folder. Truncated lines are skipped."""
    records: dict[str, dict[str, Any]] = {}
    try:
        lines = (folder / NAME).read_text(encoding="ascii", errors="replace").split("\n")
    except OSError:
        return
    for line in lines:
        try:
            values = json.loads(line)
            records[values["output"]] = values
        except (ValueError, KeyError, TypeError):
            continue
    yield from records.values()


# Sizes follow from the guide, batch sizes change no image, and files are compared by their content.
UNCOMPARED = ("width", "height", "window_batch", "guide", "control_map", "ip_image", "region_map", "init_image", "mask")


def differences(job: Job) -> list[str]:
    """Return the names of settings in which a job's existing output differs from the job.

    Settings, hashes of files, the model's files, versions, device and dtype are compared, if the image records them. A
    file without settings differs in all of them.
    """
    try:
        recorded = metadata.read_settings(job.output)
        expected = job.spec(height=1, width=1).settings()
    except InputError:
        return ["all settings"]
    uncompared = (*UNCOMPARED, "anchor") if job.recipe.anchor is not None else UNCOMPARED
    compared = [name for name in expected if name in recorded and name not in uncompared]
    names = [name.removesuffix("_sha256") for name in compared if recorded[name] != expected[name]]
    sizes = {"width": job.width, "height": job.height}
    names += [name for name, size in sizes.items() if size not in (None, recorded.get(name))]
    return names + provenance.describe_changes(recorded, _machine(job.recipe.request), ())


def numbered(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs with free outputs: a.png, or the first of a-2.png, a-3.png, ...

    An existing image with the settings of the job keeps its name.
    """
    taken_paths: set[Path] = set()
    renamed = []
    for job in jobs:
        for path in atomic_write.numbered_names(job.output):
            candidate = _with_output(job, path)
            targets = (candidate.output, *candidate.map_outputs)
            if taken_paths.isdisjoint(targets) and (
                not any(map(os.path.lexists, candidate.outputs))
                or (all(map(os.path.lexists, targets)) and not differences(candidate))
            ):
                taken_paths.update(targets)
                renamed.append(candidate)
                break
    return renamed


def _with_output(job: Job, output: Path) -> Job:
    """Return a job with another output in the same folder, and with control maps named after the output."""
    stem = job.output.stem
    maps = tuple(path.with_name(output.stem + path.name.removeprefix(stem)) for path in job.map_outputs)
    return dataclasses.replace(job, output=output, map_outputs=maps)


@cache
def _machine(request: ModelRequest) -> Mapping[str, Any]:
    return provenance.runtime_settings(
        model_request.device_of(request),
        model_request.dtype_name(request),
        revision(request.model, request.controls, request.controlnets, request.adapters, request.offline),
    )
