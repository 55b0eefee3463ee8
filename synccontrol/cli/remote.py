"""Guides and outputs in object stores, mirrored to this machine for a run."""

import argparse
import dataclasses
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from synccontrol.errors import ConfigError, OutputError, SyncControlError
from synccontrol.io import object_store
from synccontrol.io.images import SUFFIXES
from synccontrol.io.object_store import Store

if TYPE_CHECKING:
    from synccontrol.batch.job import Job, Outcome

PNG = ".png"
RESULTS_LOG = "results.jsonl"


class Outputs:
    """A folder of this machine whose finished files are put into a store.

    Args:
        store: the store.
        folder: the folder in which the run writes.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder

    def publish(self, job: "Job", outcome: "Outcome") -> "Outcome":
        """Put a job's files into the store, the image last, and return the outcome."""
        if outcome.error:
            return outcome
        image, *maps = job.outputs
        try:
            for path in (*maps, image):
                if path.exists():
                    self._store.put(path.read_bytes(), path.relative_to(self._folder).as_posix(), job.overwrite)
        except OutputError as error:
            return dataclasses.replace(outcome, error=error.message)
        return outcome

    def close(self) -> None:
        """Put the run's results log into the store, under a unique name. Raises `OutputError`."""
        path = self._folder / RESULTS_LOG
        if path.exists():
            run = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
            self._store.put(path.read_bytes(), f"results-{run}.jsonl")


@contextmanager
def mirrored(args: argparse.Namespace) -> Iterator[tuple[argparse.Namespace, Outputs | None]]:
    """Yield flags whose paths are all on this machine, and the outputs of a store; None: the outputs are local.

    Guides are fetched first. Of existing images in the output store the beginning is fetched, which holds their
    settings: so they are skipped as local files would be.

    Raises:
        SyncControlError: a store cannot be used; also any error of the run, with URLs in place of mirrored paths.
    """
    guide, output = (object_store.url_of(path) if path is not None else "" for path in (args.guide, args.output))
    local = f"{object_store.FILE}://"
    changes = {
        name: Path("/", url.removeprefix(local))
        for name, url in (("guide", guide), ("output", output))
        if url.startswith(local)
    }
    guide, output = ("" if url.startswith(local) else url for url in (guide, output))
    args = argparse.Namespace(**{**vars(args), **changes})
    if not guide and not output:
        yield args, None
        return
    _check(args, guide, output)
    with tempfile.TemporaryDirectory(prefix="synccontrol-") as name:
        place = Path(name)
        try:
            if guide:
                args.guide = _fetched(Store(guide), place / "in")
            outputs = _opened(Store(output), place / "out", args) if output else None
            try:
                yield args, outputs
            finally:
                if outputs is not None:
                    outputs.close()
        except SyncControlError as error:
            error.args = tuple(object_store.replace_mirror_paths(str(part)) for part in error.args)
            raise


def _check(args: argparse.Namespace, guide: str, output: str) -> None:
    """Raise `ConfigError` for flags that stores do not support."""
    url = guide or output
    if args.address:
        raise ConfigError(
            f"{url} is fetched by this machine alone, and --address uses other machines; mount the store there"
        )
    if output and args.report:
        raise ConfigError("--report links files of this machine; leave it out, or name a folder as --output")
    folders = [f"{url.rstrip('/')}/" for url in (guide, output)]
    if guide and output and (folders[0].startswith(folders[1]) or folders[1].startswith(folders[0])):
        raise ConfigError(
            f"images cannot go to {output}, which holds the guides or lies in them; name another --output"
        )
    if guide and guide.lower().endswith((".jsonl", ".csv")):
        raise ConfigError(f"{guide} is a manifest in a store; copy it and its files to this machine")


def _fetched(store: Store, place: Path) -> Path:
    """Fetch the guides of a store, or a single one, and return their place on this machine."""
    names = store.names()
    if names == [""]:
        parent, _, name = store.url.rpartition("/")
        store.fetch(names, object_store.mirror_folder(place, parent) / name)
        return object_store.mirror_folder(place, parent) / name
    folder = object_store.mirror_folder(place, store.url)
    store.fetch([name for name in names if not name or name.lower().endswith(SUFFIXES)], folder)
    return folder


def _opened(store: Store, place: Path, args: argparse.Namespace) -> Outputs:
    """Return the outputs of a run; `args.output` becomes their folder on this machine, or a file in it."""
    single = store.url.lower().endswith(PNG)
    if single:
        url, _, name = store.url.rpartition("/")
        store = Store(url)
    folder = object_store.mirror_folder(place, store.url)
    folder.mkdir(parents=True)
    if not args.overwrite:
        store.fetch([name for name in store.names() if name.endswith(PNG)], folder, object_store.HEAD_BYTES)
    args.output = folder / name if single else folder
    return Outputs(store, folder)
