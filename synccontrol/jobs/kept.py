"""Pictures that are there already: are they what would be made now?"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from synccontrol.errors import InputError
from synccontrol.files import metadata, provenance
from synccontrol.jobs import runtime
from synccontrol.jobs.job import Job
from synccontrol.jobs.runtime import Request
from synccontrol.models.revision import revision

# Sizes follow from the guide, batches change nothing, and of files the content counts, not the name.
UNCOMPARED = ("width", "height", "window_batch", "guide", "control_map", "ip_image")


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


@cache
def _machine(request: Request) -> Mapping[str, Any]:
    return provenance.made_with(
        runtime.device_of(request),
        runtime.dtype_name(request),
        revision(request.model, request.controls, request.controlnets, request.extras, request.offline),
    )
