"""Existing outputs: whether they are what would be made, which names are free, and the results log beside them."""

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
MADE, FAILED, KEPT = "made", "failed", "kept"


def record(job: Job, outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Returns what is written down of a job that was made, or failed.

    Args:
        job: the job.
        outcome: what became of it.
        folder: of all outputs; paths of outputs are relative to it.
    """
    settings = dict(outcome.settings)
    machine: dict[str, Any] = {name: settings.pop(name) for name in provenance.KEYS if name in settings}
    return {
        "output": os.path.relpath(job.output, folder),
        "status": FAILED if outcome.error else MADE,
        "error": object_store.told(outcome.error),
        "notes": list(outcome.notes),
        "guide": None if job.guide is None else object_store.told(str(job.guide)),
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


def of_kept(job: Job, folder: Path) -> dict[str, Any]:
    """Returns what is written down of a picture that was there before, its settings as it records them."""
    try:
        settings = metadata.read_settings(job.output)
    except InputError:
        settings = {}
    outcome = Outcome(output=str(job.output), settings=settings)
    return {**record(job, outcome, folder), "status": KEPT}


def complete(folder: Path, kept: Sequence[Job]) -> None:
    """Adds a record of each picture that is there and has none: its run was killed, or another program made it.

    Raises:
        OutputError: it cannot be written.
    """
    known = {values["output"] for values in read(folder)} if kept else set()
    for job in kept:
        if os.path.relpath(job.output, folder) not in known:
            append(folder, of_kept(job, folder))


def append(folder: Path, values: Mapping[str, Any]) -> None:
    """Adds a record to those of a folder, whole: several runs may do so at once, and be killed while they do.

    Raises:
        OutputError: it cannot be written.
    """
    line = json.dumps(values).encode() + b"\n"
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line  # another was killed within its line
            file.write(line)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a folder, the last one of each output; a line that was cut short is left out."""
    last: dict[str, dict[str, Any]] = {}
    try:
        lines = (folder / NAME).read_text(encoding="ascii", errors="replace").split("\n")
    except OSError:
        return
    for line in lines:
        try:
            values = json.loads(line)
            last[values["output"]] = values
        except (ValueError, KeyError, TypeError):
            continue
    yield from last.values()


# Sizes follow from the guide, batches change nothing, and of files the content counts, not the name.
UNCOMPARED = ("width", "height", "window_batch", "guide", "control_map", "ip_image", "region_map", "init_image", "mask")


def differences(job: Job) -> list[str]:
    """Returns in what the picture at a job's output differs from what would be made, as names of settings.

    Compared are settings, the hashes of files, the model's files, versions, device and dtype; what an older picture
    does not say is not compared. A file without settings differs in all of them.
    """
    try:
        stored = metadata.read_settings(job.output)
        wanted = job.picture(height=1, width=1).settings()
    except InputError:
        return ["all settings"]
    uncompared = (*UNCOMPARED, "anchor") if job.recipe.anchor is not None else UNCOMPARED
    compared = [name for name in wanted if name in stored and name not in uncompared]
    found = [name.removesuffix("_sha256") for name in compared if stored[name] != wanted[name]]
    sizes = {"width": job.width, "height": job.height}
    found += [name for name, size in sizes.items() if size not in (None, stored.get(name))]
    return found + provenance.changes(stored, _machine(job.recipe.request), ())


def numbered(jobs: Sequence[Job]) -> list[Job]:
    """Returns jobs under names of which nothing is lost: a.png, or the first of a-2.png, a-3.png, ... that is free.

    A picture that is there and is the very one that would be made keeps its name.
    """
    taken: set[Path] = set()
    found = []
    for job in jobs:
        for place in atomic_write.numbered(job.output):
            one = _moved(job, place)
            wanted = (one.output, *one.map_outputs)
            if taken.isdisjoint(wanted) and (
                not any(map(os.path.lexists, one.outputs))
                or (all(map(os.path.lexists, wanted)) and not differences(one))
            ):
                taken.update(wanted)
                found.append(one)
                break
    return found


def _moved(job: Job, output: Path) -> Job:
    """Returns a job with another output in the same folder, its maps named after it."""
    stem = job.output.stem
    maps = tuple(path.with_name(output.stem + path.name.removeprefix(stem)) for path in job.map_outputs)
    return dataclasses.replace(job, output=output, map_outputs=maps)


@cache
def _machine(request: ModelRequest) -> Mapping[str, Any]:
    return provenance.made_with(
        model_request.device_of(request),
        model_request.dtype_name(request),
        revision(request.model, request.controls, request.controlnets, request.adapters, request.offline),
    )
