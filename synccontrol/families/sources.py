"""Where models are found: a folder, a file, a hub id, or a file on the hub; and how diffusers reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch._subclasses.fake_tensor import unset_fake_temporarily

SUFFIX = ".safetensors"
REVISION = "@"  # stands between a hub id and a branch, tag or commit
READING = ("dtype", "local_files_only", "use_safetensors")  # options that hold for every source

Source: TypeAlias = str | tuple[str, str]  # a folder, file or hub id, or a folder or hub id and what is meant inside it


def source(name: str) -> Source:
    """Returns the source of a name: of a file on the hub, its repository and its path there."""
    owner, *rest = name.split("/")
    if Path(name).exists() or not name.endswith(SUFFIX) or len(rest) < 2:
        return name
    return f"{owner}/{rest[0]}", "/".join(rest[1:])


def parts(found: Source) -> tuple[str, str]:
    """Returns the folder, file or hub id of a source, and what is meant inside it; empty: all."""
    return (found, "") if isinstance(found, str) else found


def pinned(name: str) -> tuple[str, dict[str, str]]:
    """Returns a folder, file or hub id without its revision, and the option that names that (owner/name@revision)."""
    repository, _, revision = name.partition(REVISION)
    return (repository, {"revision": revision}) if revision and not Path(name).exists() else (name, {})


def place(found: Source) -> str:
    """Returns the folder, file or hub id of a source, without its revision."""
    return pinned(parts(found)[0])[0]


def reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those options that hold for every source; others are the base model's alone."""
    return {key: options[key] for key in READING if key in options}


def weights(kind: Any, found: Source, **options: Any) -> Any:
    """Returns what a diffusers class makes of a source; options of `from_pretrained`."""
    name, inside = parts(found)
    repository, revision = pinned(name)
    inner = {"subfolder": inside} if inside else {}
    return kind.from_pretrained(repository, **inner, **revision, **options)


def config(kind: Any, found: Source, **options: Any) -> dict[str, Any]:
    """Returns the configuration that a source holds for a diffusers class; options of `load_config`."""
    name, inside = parts(found)
    repository, revision = pinned(name)
    settings: dict[str, Any] = kind.load_config(repository, subfolder=inside or None, **revision, **options)
    return settings


def scheduler(kind: Any, found: Source, **options: Any) -> Any:
    """Returns the scheduler that a source describes; its levels are numbers, also where networks are made of fakes."""
    with unset_fake_temporarily():
        return kind.from_config(config(kind, found, **options))
