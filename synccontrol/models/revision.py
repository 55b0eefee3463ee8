"""Which files a model is: a text that changes when they do."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from synccontrol.extras import Extras
from synccontrol.families.sources import Source, parts, pinned, source
from synccontrol.models import hub, single_file, tiny_vae
from synccontrol.models.hub import CONTROLNET_FOLDER

SAMPLE = 2**20  # bytes of a file that are read at either end: weights are gigabytes
DIGITS = 16  # of a hash


def revision(
    model: str, controls: Sequence[str], controlnets: Sequence[str], extras: Extras = Extras(), offline: bool = False
) -> str:
    """Returns which files a model, its ControlNets and its extras are: a hash, the same for the same files.

    Of a hub id the commit counts; of files in a folder their names, sizes, and first and last MiB. An empty text: it is
    not known, because nothing has been downloaded yet.

    Raises:
        ModelError, ConfigError: there is no such model, or no such ControlNet.
    """
    nets = hub.controlnet_sources(model, controls, controlnets, offline)
    own = [model] if single_file.is_one(model) else []
    others = [
        *own,
        *(name for name, _ in extras.loras),
        extras.ip_adapter,
        extras.vae,
        tiny_vae.source_of(model, extras),
    ]
    return _revision((hub.base_of(model), *nets, *(source(name) for name in others if name)))


@cache
def _revision(sources: tuple[Source, ...]) -> str:
    found = [_one(source) for source in sources]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:DIGITS] if all(found) else ""


def _one(found: Source) -> str:
    name, inside = parts(found)
    repository, pin = pinned(name)
    path = Path(repository)
    if path.exists():
        return _files(path / inside)
    commit = _commit(repository, pin.get("revision", "main"))
    return f"{commit}/{inside}" if commit else ""


def _commit(repository: str, reference: str) -> str:
    """Returns the commit of a hub repository that a branch or tag was when it was downloaded, or an empty text."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    if (folder / "snapshots" / reference).is_dir():
        return reference  # a commit itself
    try:
        return (folder / "refs" / reference).read_text(encoding="ascii")
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
