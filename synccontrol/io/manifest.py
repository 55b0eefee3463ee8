"""Manifests: a list of pictures to make, as JSON Lines or CSV; a row holds any setting of its picture."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from synccontrol.errors import ConfigError, InputError
from synccontrol.spec.image_settings import ALL_CLASSES, column_flags, renamed_flags
from synccontrol.spec.image_spec import GUIDE, SINGLE
from synccontrol.spec.schema import nearest, today
from synccontrol.spec.settings import MIDDLE, check_seed

JSONL, CSV = SUFFIXES = (".jsonl", ".csv")
IMAGE, MAP, OUTPUT = "image", "control_map", "output"
LONGEST_CELL = 2**24  # characters


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _are_paths(value: object) -> bool:
    paths = value if isinstance(value, list) else [value]
    named = [path for path in paths if path is not None]
    return bool(named) and all(_is_name(path) for path in named)


_MODELS = {"model", "controlnet", "detector", "lora", "ip_adapter", "vae", "tiny_vae"}
COLUMNS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    IMAGE: ("the path of a guide", _is_name),
    MAP: ("the path of a control map, or a list of one per control (null: detected from the image)", _are_paths),
    OUTPUT: ("a PNG's name inside of --output", _is_name),
    **{flag.key: (flag.json_words, flag.fits_json) for flag in column_flags() if flag.key not in (GUIDE, MAP)},
    "width": ("pixels", _is_side),
    "height": ("pixels", _is_side),
}
LISTS = (MAP, *(flag.key for flag in column_flags() if flag.is_list or flag.setting.per_control))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One picture of a manifest; what it does not say is None or absent."""

    where: str  # which row, for messages
    image: Path | None  # the guide
    control_maps: tuple[Path | None, ...]  # ready-made; None: detected from the guide
    output: PurePath | None  # inside of the output folder
    values: dict[str, Any]  # settings, by flag


def rows(manifest: Path) -> Iterator[Row]:
    """Yields the pictures of a manifest; paths in it are relative to its folder.

    Raises:
        InputError: it is no text, is empty, or a row is wrong; the message says which, and what a row may hold.
    """
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{manifest} cannot be read as UTF-8 text ({error}); write one JSON object per line, or CSV"
        ) from error
    read = _of_csv if manifest.suffix.lower() == CSV else _of_jsonl
    empty = True
    for where, values in read(text, manifest):
        empty = False
        yield _row(values, manifest.parent, where)
    if empty:
        raise InputError(f"{manifest} is empty; write one JSON object per line, or CSV with a header")


def _of_jsonl(text: str, manifest: Path) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), 1):  # no other line ends: a prompt may hold U+2028
        if not line.strip():
            continue
        where = f"{manifest} line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON ({error})") from error


def _of_csv(text: str, manifest: Path) -> Iterator[tuple[str, object]]:
    csv.field_size_limit(LONGEST_CELL)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        renamed = {old.replace("-", "_"): new.replace("-", "_") for old, new in renamed_flags().items()}
        header = [renamed.get(name.strip(), name.strip()) for name in next(lines, [])]
        if len(set(header)) < len(header):
            raise InputError(f"{manifest} names a column twice; name each once")
        for cells in lines:
            where = f"{manifest} line {lines.line_num}"
            if not any(cells):
                continue
            if len(cells) > len(header):
                raise InputError(f"{where} has {len(cells)} cells for {len(header)} columns; quote what holds a comma")
            named = zip(header, cells, strict=False)
            yield where, {name: _cell(name, cell) for name, cell in named if cell}
    except csv.Error as error:
        raise InputError(f"{manifest} line {lines.line_num} is not CSV ({error})") from error


def _cell(name: str, text: str) -> object:
    """Returns what a cell says: JSON where the column is no text and it reads so, else the text itself."""
    listed = text.startswith("[") and name in LISTS
    if name not in COLUMNS or (COLUMNS[name][1](text) and not listed):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _row(values: object, folder: Path, where: str) -> Row:
    if not isinstance(values, dict):
        raise InputError(f'{where} needs "image", the path of a guide, and is no JSON object')
    values = today({name: value for name, value in values.items() if value is not None}, *ALL_CLASSES)
    for name, value in values.items():
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            guess = f"did you mean {near}? " if near else ""
            raise InputError(f"{where}: {name!r} is unknown; {guess}known: {', '.join(COLUMNS)}")
        words, fits = COLUMNS[name]
        if isinstance(value, str) and fits([value]) and name != MAP:
            values[name] = [value]  # one of a list
        elif not fits(value):
            raise InputError(f"{where}: {name} is {value!r}; it must be {words}")
    maps = values.pop(MAP, [])
    maps = maps if isinstance(maps, list) else [maps]
    image, output = values.pop(IMAGE, None), values.pop(OUTPUT, None)
    _check_sources(image, maps, where)
    try:
        check_seed(values.get("seed", 0))
    except ConfigError as error:
        raise InputError(f"{where}: {error.message}") from error
    for name in SINGLE:
        if isinstance(values.get(name), str) and values[name] != MIDDLE:
            values[name] = str(folder / values[name])
    for name in _MODELS & values.keys():
        named = values[name]
        values[name] = _beside(named, folder) if isinstance(named, str) else [_beside(one, folder) for one in named]
    return Row(
        where=where,
        image=None if image is None else folder / image,
        control_maps=tuple(None if path is None else folder / path for path in maps),
        output=None if output is None else _inside(output, where),
        values=values,
    )


def _beside(name: str, folder: Path) -> str:
    """Returns a name of a model, or of a part of one, that is a file beside the manifest, as its path from here."""
    path, colon, _ = name.rpartition(":")  # before the weight of a LoRA
    bare = path if colon and (folder / path).exists() else name
    return str(folder / bare) + name[len(bare) :] if bare and (folder / bare).exists() else name


def _check_sources(image: str | None, maps: list[str | None], where: str) -> None:
    """Raises `InputError` unless a row has a guide or ready-made maps, and both only where maps are left to detect."""
    detects = not maps or None in maps
    if (image is not None) != detects:
        raise InputError(
            f'{where} needs "image", the path of a guide, or "control_map", of a ready-made one; both only if the '
            "control_map is a list with null for what is detected from the image"
        )


def _inside(output: str, where: str) -> PurePath:
    path = PurePath(output)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{where}: output {output} leads out of the folder of all outputs; name a file inside of it")
    if path.suffix.lower() != ".png":
        name = path.with_suffix(".png") if path.name else "a.png"
        raise InputError(f"{where}: pictures are written as PNG; name the output {name}")
    return path
