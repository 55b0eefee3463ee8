"""`--report`: the sheet of a batch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synccontrol.evaluate.sheet import Entry, sheet
from synccontrol.files import outputs
from synccontrol.jobs import records

if TYPE_CHECKING:
    from synccontrol.jobs.job import Job

NAME = "sheet.html"


def write(jobs: Sequence["Job"], folder: Path) -> Path:
    """Writes the sheet of a batch beside its pictures, and returns where. Raises `OutputError` if that cannot be."""
    known = {values["output"]: values for values in records.read(folder)}
    entries = [_entry(job, folder, known.get(os.path.relpath(job.output, folder), {})) for job in jobs]
    made = sum(job.output.exists() for job in jobs)
    path = folder / NAME
    content = sheet(f"{made} of {len(jobs)} pictures in {folder}", entries, folder).encode("utf-8", "replace")
    outputs.publish(path, lambda file: file.write(content), overwrite=True)
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
