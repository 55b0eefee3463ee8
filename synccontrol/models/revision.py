"""Which files a model is: a text that changes when they do."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from synccontrol.models import hub
from synccontrol.models.hub import CONTROLNET_FOLDER, Source

SAMPLE = 2**20  # bytes of a file that are read at either end: weights are gigabytes
DIGITS = 16  # of a hash


def revision(model: str, controls: Sequence[str], controlnets: Sequence[str], offline: bool = False) -> str:
    """Returns which files a model and its ControlNets are: a hash, the same for the same files.

    Of a hub id the commit counts; of files in a folder their names, sizes, and first and last MiB. An empty text: it is
    not known, because nothing has been downloaded yet.

    Raises:
        ModelError, ConfigError: there is no such model, or no such ControlNet.
    """
    return _revision((hub.base_of(model), *hub.controlnet_sources(model, controls, controlnets, offline)))


@cache
def _revision(sources: tuple[Source, ...]) -> str:
    found = [_one(source) for source in sources]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:DIGITS] if all(found) else ""


def _one(source: Source) -> str:
    place, inside = (source, "") if isinstance(source, str) else source
    path = Path(place)
    if not path.exists():
        return f"{_commit(place)}/{inside}" if _commit(place) else ""
    return _files(path / inside)


def _commit(repository: str) -> str:
    """Returns the commit of a repository that was downloaded last, or an empty text."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return (Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "refs" / "main").read_text()
    except OSError:
        return ""


def _files(place: Path) -> str:
    """Returns a hash of a file, or of a folder without the ControlNets that lie in it."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    nets = CONTROLNET_FOLDER.format(control="")
    digest = hashlib.sha256()
    for path in files:
        below = path.relative_to(place)
        if below.parts and (
            below.parts[0].startswith(nets) or any(part.startswith((".", "__")) for part in below.parts)
        ):
            continue
        size = path.stat().st_size
        digest.update(f"{below} {size}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            file.seek(max(size - SAMPLE, 0))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()
