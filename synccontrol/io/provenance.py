"""The provenance of an image: its source files, library versions and device, and what has changed since."""

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
    """Return the record of a source file, with its hash. Raises `InputError` if it cannot be read."""
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise InputError(f"{path} is not a file; give a file")
    try:
        with path.open("rb") as file:
            return Source(
                role=role,
                path=object_store.replace_mirror_paths(str(path)),
                sha256=hashlib.file_digest(file, "sha256").hexdigest(),
            )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file") from error


def runtime_settings(device: str, dtype: str, revision: str = "") -> dict[str, Any]:
    """Return the settings that affect an image besides its `ImageSpec`, as JSON values.

    Args:
        device: 'cpu', 'cuda:0', 'cuda:0,cuda:1', ...
        dtype: 'float32', ...
        revision: the revision of the model's files; empty if it is not known.
    """
    versions = {"synccontrol": synccontrol.__version__, **{name: version(name) for name in LIBRARIES}}
    model = {REVISION: revision} if revision else {}
    return {VERSIONS: versions, DEVICE: device, DTYPE: dtype, **model}


def describe_changes(settings: Mapping[str, Any], now: Mapping[str, Any], sources: Iterable[Source]) -> list[str]:
    """Return the changes that keep an image from being reproduced exactly, in a few words each.

    Args:
        settings: the settings from the image's metadata; missing ones are not compared.
        now: `runtime_settings` of this machine.
        sources: the image's source files, as recorded.
    """
    versions = settings.get(VERSIONS)
    before: dict[str, Any] = dict(versions) if isinstance(versions, Mapping) else {}
    before |= {name: settings.get(name) for name in (DEVICE, DTYPE)}
    current = {**now[VERSIONS], DEVICE: now[DEVICE], DTYPE: now[DTYPE]}
    changes = [
        f"{name} {before[name]}, here {current[name]}"
        for name in current
        if before.get(name) is not None and _device_type(before[name]) != _device_type(current[name])
    ]
    if REVISION in now and settings.get(REVISION) not in (None, now[REVISION]):
        changes.append("other files of the model")
    for recorded in sources:
        path = Path(recorded.path)
        if recorded.sha256 and path.is_file() and source(recorded.role, path).sha256 != recorded.sha256:
            changes.append(f"another {path}")
    return changes


def _device_type(value: Any) -> str:
    """Return the type of a device, such as 'cuda' for 'cuda:0,cuda:1', and any other value as text."""
    return str(value).partition(",")[0].partition(":")[0]
