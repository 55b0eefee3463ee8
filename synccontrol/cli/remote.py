"""Guides and outputs in object stores: files of this machine while a run goes on."""

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

PNG, RECORDS = ".png", "results.jsonl"


class Outputs:
    """A folder of this machine whose finished files go to a store.

    Args:
        store: where they go.
        folder: where they are made.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder

    def publish(self, job: "Job", outcome: "Outcome") -> "Outcome":
        """Returns what became of a job, its files put into the store, the picture last."""
        if outcome.error:
            return outcome
        first, *others = job.outputs
        try:
            for path in (*others, first):
                if path.exists():
                    self._store.put(path.read_bytes(), path.relative_to(self._folder).as_posix(), job.overwrite)
        except OutputError as error:
            return dataclasses.replace(outcome, error=str(error))
        return outcome

    def close(self) -> None:
        """Puts the records of the run into the store, under a name of its own. Raises `OutputError`."""
        path = self._folder / RECORDS
        if path.exists():
            run = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
            self._store.put(path.read_bytes(), f"results-{run}.jsonl")


@contextmanager
def mirrored(args: argparse.Namespace) -> Iterator[tuple[argparse.Namespace, Outputs | None]]:
    """Yields flags in which every path is one of this machine, and what puts outputs where they belong; None: here.

    Guides are fetched first. Of pictures that are in the output's folder their beginning is, in which stands what they
    are: so they are kept as files would be.

    Raises:
        SyncControlError: a store cannot be used; any error from inside, with URLs for what lies in one.
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
            error.args = tuple(object_store.told(str(part)) for part in error.args)
            raise


def _check(args: argparse.Namespace, guide: str, output: str) -> None:
    """Raises `ConfigError` for what stores cannot do."""
    url = guide or output
    if args.address:
        raise ConfigError(
            f"{url} is fetched by this machine alone, and --address has others draw; mount the store there"
        )
    if output and args.report:
        raise ConfigError("--report links files of this machine; leave it out, or name a folder as --output")
    folders = [f"{one.rstrip('/')}/" for one in (guide, output)]
    if guide and output and (folders[0].startswith(folders[1]) or folders[1].startswith(folders[0])):
        raise ConfigError(
            f"pictures cannot go to {output}, which holds the guides or lies in them; name another --output"
        )
    if guide and guide.lower().endswith((".jsonl", ".csv")):
        raise ConfigError(f"{guide} is a manifest in a store; copy it, and what it names, to this machine")


def _fetched(store: Store, place: Path) -> Path:
    """Returns where the guides of a store, or the one that it is, lie on this machine."""
    names = store.names()
    if names == [""]:
        parent, _, name = store.url.rpartition("/")
        store.fetch(names, object_store.mirror(place, parent) / name)
        return object_store.mirror(place, parent) / name
    folder = object_store.mirror(place, store.url)
    store.fetch([name for name in names if not name or name.lower().endswith(SUFFIXES)], folder)
    return folder


def _opened(store: Store, place: Path, args: argparse.Namespace) -> Outputs:
    """Returns the outputs of a run; the flags' output is a folder, or a file in it, of this machine from now on."""
    single = store.url.lower().endswith(PNG)
    if single:
        url, _, name = store.url.rpartition("/")
        store = Store(url)
    folder = object_store.mirror(place, store.url)
    folder.mkdir(parents=True)
    if not args.overwrite:
        store.fetch([one for one in store.names() if one.endswith(PNG)], folder, object_store.HEAD)
    args.output = folder / name if single else folder
    return Outputs(store, folder)
