"""Where a picture comes from: the files, versions and machine it is made with, and what has changed since."""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import synccontrol
from synccontrol.errors import InputError
from synccontrol.io import object_store
from synccontrol.spec.image_spec import Source

VERSIONS, DEVICE, DTYPE, REVISION = KEYS = ("versions", "device", "dtype", "model_revision")
LIBRARIES = ("torch", "diffusers")


def source(role: str, path: Path) -> Source:
    """Returns a file as a picture's source. Raises `InputError` if it cannot be read."""
    if path.exists() and not path.is_file():  # to open a pipe would wait for who fills it
        raise InputError(f"{path} is no file; give one")
    try:
        with path.open("rb") as file:
            return Source(
                role=role, path=object_store.told(str(path)), sha256=hashlib.file_digest(file, "sha256").hexdigest()
            )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file") from error


def made_with(device: str, dtype: str, revision: str = "") -> dict[str, Any]:
    """Returns what beside a `ImageSpec` its pixels depend on, as JSON values.

    Args:
        device: 'cpu', 'cuda:0', 'cuda:0,cuda:1', ...
        dtype: 'float32', ...
        revision: which files the model is; empty: not known.
    """
    versions = {"synccontrol": synccontrol.__version__, **{name: version(name) for name in LIBRARIES}}
    known = {REVISION: revision} if revision else {}
    return {VERSIONS: versions, DEVICE: device, DTYPE: dtype, **known}


def changes(settings: Mapping[str, Any], now: Mapping[str, Any], sources: Iterable[Source]) -> list[str]:
    """Returns what keeps a picture from coming out the same again, in a few words each.

    Args:
        settings: what was read from a picture; what it does not say is not compared.
        now: `made_with` of this machine.
        sources: the picture's files as they are recorded.
    """
    then = settings.get(VERSIONS)
    said: dict[str, Any] = dict(then) if isinstance(then, Mapping) else {}
    said |= {name: settings.get(name) for name in (DEVICE, DTYPE)}
    here = {**now[VERSIONS], DEVICE: now[DEVICE], DTYPE: now[DTYPE]}
    found = [
        f"{name} {said[name]}, here {here[name]}"
        for name in here
        if said.get(name) is not None and _kind(said[name]) != _kind(here[name])
    ]
    if REVISION in now and settings.get(REVISION) not in (None, now[REVISION]):
        found.append("other files of the model")
    for recorded in sources:
        path = Path(recorded.path)
        if recorded.sha256 and path.is_file() and source(recorded.role, path).sha256 != recorded.sha256:
            found.append(f"another {path}")
    return found


def _kind(value: Any) -> str:
    """Returns the kind of a device, or of several, and anything else as it is."""
    return str(value).partition(",")[0].partition(":")[0]
