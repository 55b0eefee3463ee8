"""Pictures that are there already: are they what would be made now, and which names are left?"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from synccontrol.batch import model_request
from synccontrol.batch.job import Job
from synccontrol.batch.model_request import ModelRequest
from synccontrol.errors import InputError
from synccontrol.io import atomic_write, metadata, provenance
from synccontrol.models.loader import revision

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
