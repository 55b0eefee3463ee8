"""What a run writes down of its pictures: a record each, as JSON Lines beside them."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.batch.job import Job, Outcome
from synccontrol.errors import InputError, OutputError
from synccontrol.io import metadata, object_store, provenance

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
