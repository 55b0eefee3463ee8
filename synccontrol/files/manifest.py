"""Manifests: a list of pictures to make, one JSON object a line."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from synccontrol.config import check_seed
from synccontrol.errors import ConfigError, InputError

SUFFIX = ".jsonl"


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_paths(value: object) -> bool:
    paths = value if isinstance(value, list) else [value]
    return bool(paths) and all(isinstance(path, str) and path for path in paths)


KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "image": ("the path of a guide", lambda value: isinstance(value, str) and bool(value)),
    "control_map": ("the path of a control map, or a list of one per control", _are_paths),
    "prompt": ("text", lambda value: isinstance(value, str)),
    "negative_prompt": ("text", lambda value: isinstance(value, str)),
    "seed": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "width": ("pixels", _is_side),
    "height": ("pixels", _is_side),
    "output": ("a PNG's name inside of --output", lambda value: isinstance(value, str) and bool(value)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One picture of a manifest; what it does not say is None or absent."""

    image: Path | None  # the guide
    control_maps: tuple[Path, ...]  # ready-made, instead of a guide
    output: PurePath | None  # inside of the output folder
    values: dict[str, Any]  # prompt, negative_prompt, seed, width, height


def rows(manifest: Path) -> Iterator[Row]:
    """Yields the pictures of a manifest; paths in it are relative to its folder.

    Raises:
        InputError: it is no text, is empty, or a line is wrong; the message says which, and what a line may hold.
    """
    try:
        lines = manifest.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest} cannot be read as text ({error}); write one JSON object per line") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{manifest} is empty; write one JSON object per line")
    for number, line in numbered:
        yield _row(line, manifest, f"{manifest} line {number}")


def _row(line: str, manifest: Path, where: str) -> Row:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error})") from error
    if not isinstance(values, dict) or ("image" in values) == ("control_map" in values):
        raise InputError(f'{where} needs "image", the path of a guide, or "control_map", of a ready-made one')
    for key, value in values.items():
        if key not in KINDS:
            raise InputError(f"{where}: {key!r} is unknown; known: {', '.join(KINDS)}")
        words, fits = KINDS[key]
        if not fits(value):
            raise InputError(f"{where}: {key} is {value!r}; it must be {words}")
    try:
        check_seed(values.get("seed", 0))
    except ConfigError as error:
        raise InputError(f"{where}: {error}") from error
    maps = values.pop("control_map", [])
    image, output = values.pop("image", None), values.pop("output", None)
    return Row(
        image=None if image is None else manifest.parent / image,
        control_maps=tuple(manifest.parent / path for path in ([maps] if isinstance(maps, str) else maps)),
        output=None if output is None else _inside(output, where),
        values=values,
    )


def _inside(output: str, where: str) -> PurePath:
    path = PurePath(output)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{where}: output {output} leads out of the folder of all outputs; name a file inside of it")
    if path.suffix.lower() != ".png":
        raise InputError(f"{where}: pictures are written as PNG; name the output {path.with_suffix('.png')}")
    return path
