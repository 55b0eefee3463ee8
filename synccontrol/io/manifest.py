"""Manifests: a list of images to generate, as JSON Lines or CSV; a row can set any setting of its image."""

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
    present = [path for path in paths if path is not None]
    return bool(present) and all(_is_name(path) for path in present)


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
    """One image of a manifest; settings that the row does not name are None or absent."""

    where: str  # the file and line, for messages
    image: Path | None  # the guide
    control_maps: tuple[Path | None, ...]  # paths of control maps; None: detected from the guide
    output: PurePath | None  # relative to the output folder
    values: dict[str, Any]  # settings, by flag


def rows(manifest: Path) -> Iterator[Row]:
    """Yield the rows of a manifest; paths in it are relative to its folder.

    Raises:
        InputError: the file is not text, is empty, or a row is invalid; the message names the row and the valid values.
    """
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{manifest} cannot be read as UTF-8 text ({error}); write one JSON object per line, or CSV"
        ) from error
    parse = _parse_csv if manifest.suffix.lower() == CSV else _parse_jsonl
    is_empty = True
    for where, values in parse(text, manifest):
        is_empty = False
        yield _parse_row(values, manifest.parent, where)
    if is_empty:
        raise InputError(f"{manifest} is empty; write one JSON object per line, or CSV with a header")


def _parse_jsonl(text: str, manifest: Path) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines(): a prompt may contain U+2028
        if not line.strip():
            continue
        where = f"{manifest} line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON ({error})") from error


def _parse_csv(text: str, manifest: Path) -> Iterator[tuple[str, object]]:
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
            yield where, {name: _parse_cell(name, cell) for name, cell in zip(header, cells, strict=False) if cell}
    except csv.Error as error:
        raise InputError(f"{manifest} line {lines.line_num} is not CSV ({error})") from error


def _parse_cell(name: str, text: str) -> object:
    """Return the value of a cell: parsed as JSON if the column takes more than text, else the text itself."""
    is_list = text.startswith("[") and name in LISTS
    if name not in COLUMNS or (COLUMNS[name][1](text) and not is_list):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parse_row(values: object, folder: Path, where: str) -> Row:
    if not isinstance(values, dict):
        raise InputError(f'{where} needs "image", the path of a guide, and is no JSON object')
    values = today({name: value for name, value in values.items() if value is not None}, *ALL_CLASSES)
    for name, value in values.items():
        if name not in COLUMNS:
            suggestion = nearest(name, COLUMNS)
            hint = f"did you mean {suggestion}? " if suggestion else ""
            raise InputError(f"{where}: {name!r} is unknown; {hint}known: {', '.join(COLUMNS)}")
        words, fits = COLUMNS[name]
        if isinstance(value, str) and fits([value]) and name != MAP:
            values[name] = [value]  # a list of one value
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
        models = values[name]
        values[name] = (
            _resolve_model(models, folder)
            if isinstance(models, str)
            else [_resolve_model(model, folder) for model in models]
        )
    return Row(
        where=where,
        image=None if image is None else folder / image,
        control_maps=tuple(None if path is None else folder / path for path in maps),
        output=None if output is None else _check_output(output, where),
        values=values,
    )


def _resolve_model(name: str, folder: Path) -> str:
    """Return the path of a model file in the manifest's folder; any other name unchanged."""
    path, colon, _ = name.rpartition(":")  # without the weight of a LoRA
    bare = path if colon and (folder / path).exists() else name
    return str(folder / bare) + name[len(bare) :] if bare and (folder / bare).exists() else name


def _check_sources(image: str | None, maps: list[str | None], where: str) -> None:
    """Raise `InputError` unless a row has a guide or control maps; both only if some maps are detected."""
    detects = not maps or None in maps
    if (image is not None) != detects:
        raise InputError(
            f'{where} needs "image", the path of a guide, or "control_map", of a ready-made one; both only if the '
            "control_map is a list with null for what is detected from the image"
        )


def _check_output(output: str, where: str) -> PurePath:
    path = PurePath(output)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{where}: output {output} leads out of the folder of all outputs; name a file inside of it")
    if path.suffix.lower() != ".png":
        name = path.with_suffix(".png") if path.name else "a.png"
        raise InputError(f"{where}: images are written as PNG; name the output {name}")
    return path
