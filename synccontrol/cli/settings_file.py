"""`--settings`: read the settings of an existing image as flags. Only settings of the schema are read."""

import dataclasses
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from synccontrol.cli.parser import PUBLISHED
from synccontrol.errors import ConfigError, InputError
from synccontrol.io import metadata, provenance
from synccontrol.spec import image_spec
from synccontrol.spec.image_settings import PAPER, defaults, image_flags
from synccontrol.spec.image_spec import ANCHOR, CONTROL_MAP, GUIDE, INIT_IMAGE, MASK, REGION_MAP, SINGLE, Source
from synccontrol.spec.schema import flags, read_config
from synccontrol.spec.settings import MATCH_NONE, MIDDLE, UPSCALE, Adapters, Img2ImgConfig, UpscaleConfig

IMAGE_KEYS = ("loop", "projection", "anchor")  # settings of presets that belong to the image, not to the model
PER_CONTROL = ("controlnet", "detector", "control_map", *(f.key for f in image_flags() if f.setting.per_control))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """The settings that a file holds."""

    path: Path
    flags: Mapping[str, Any]  # as the parser returns them
    sources: tuple[Source, ...]  # files of these flags, with their recorded hashes
    everything: Mapping[str, Any]  # all values of the file

    @property
    def unused(self) -> list[str]:
        """Return the keys that are neither settings nor the versions and the machine of a PNG."""
        return sorted(set(self.everything) - image_spec.recorded_keys() - set(provenance.KEYS))

    def notes(self, device: str, dtype: str) -> list[str]:
        """Return lines for the user: which keys are ignored, and why the image may differ."""
        notes = []
        if self.unused:
            notes.append(f"{self.path}: {', '.join(self.unused)} do not decide an image, and are left out")
        changes = provenance.describe_changes(self.everything, provenance.runtime_settings(device, dtype), self.sources)
        if changes:
            notes.append(f"{self.path} was generated otherwise ({'; '.join(changes)}): the image may differ")
        return notes


def read(path: Path, given: Container[str]) -> Stored:
    """Return the settings of a PNG or JSON file.

    Files that it names are searched for from the current folder, then beside it.

    Args:
        path: the file.
        given: flags on the command line; settings that they replace are not read.

    Raises:
        InputError: the file has no settings, or one of them is wrong.
    """
    everything = metadata.read_settings(path)
    try:
        values = image_spec.recorded_settings(everything)
    except ConfigError as error:
        raise InputError(f"{path}: {error.message}") from error
    for name in _replaced(values, given):
        values.pop(name, None)
    for name in SINGLE:
        if isinstance(values.get(name), str) and values[name] != MIDDLE:
            values[name] = _find(values[name], path.parent)
    values |= {name: _find(values[name], path.parent) for name in ("ip_adapter", "vae", "tiny_vae") if name in values}
    if "lora" in values:
        values["lora"] = [_find_lora(name, path.parent) for name in values["lora"]]
    if CONTROL_MAP in values:
        values[CONTROL_MAP] = [_find(name, path.parent) for name in values[CONTROL_MAP]]
    sources = image_spec.sources({name: value for name, value in values.items() if name not in given})
    given_flags = {name: value for name, value in values.items() if not name.endswith(image_spec.SHA256)}
    given_flags |= {name: Path(given_flags[name]) for name in SINGLE if name in given_flags and name != ANCHOR}
    given_flags[CONTROL_MAP] = list(given_flags.get(CONTROL_MAP, []))
    return Stored(path=path, flags={**given_flags}, sources=sources, everything=everything)


def merged(given: Mapping[str, Any]) -> tuple[dict[str, Any], Stored | None]:
    """Return all flags: as given, else as stored, else their defaults; and the stored settings.

    Flags of the configs are present only if given or stored. Raises `InputError` as `read`.
    """
    stored = read(given["settings"], given) if "settings" in given else None
    return {**defaults(), **(stored.flags if stored else {}), **given}, stored


def adapters_of(given: Mapping[str, Any]) -> Adapters:
    """Return the adapters of flags as given or stored."""
    return Adapters(**read_config(Adapters, given))


def img2img_of(given: Mapping[str, Any]) -> Img2ImgConfig:
    """Return how an image starts from another one, of flags as given or stored.

    Raises:
        ConfigError: a value is outside its range, or there is nothing to start from.
    """
    values = read_config(Img2ImgConfig, given)
    if values and given[INIT_IMAGE] is None:
        name = flags(Img2ImgConfig, by_field=True)[next(iter(values))].name
        raise ConfigError(f"--{name} does nothing without an --init-image; name one, or leave it out")
    if given[MASK] is not None and given[INIT_IMAGE] is None:
        raise ConfigError("--mask needs an --init-image, the image that is inpainted")
    config = Img2ImgConfig(**values).complete()
    return config if given[INIT_IMAGE] is None else config.with_strength(given[MASK] is not None)


def upscale_of(given: Mapping[str, Any]) -> UpscaleConfig:
    """Return how a finished image is upscaled, of flags as given or stored.

    A landscape higher than a window is generated as one row and upscaled, unless the preset is `paper` or the settings
    are those of an existing image, which may be older than this choice; likewise the colours of that image.
    """
    values = read_config(UpscaleConfig, given)
    if "tall_canvas" not in values and given["preset"] != PAPER and given["settings"] is None:
        values["tall_canvas"] = UPSCALE
    if given["settings"] is not None:
        values.setdefault("upscale_color_match", MATCH_NONE)
    return UpscaleConfig(**values).complete()


def _replaced(values: Mapping[str, Any], given: Container[str]) -> list[str]:
    """Return the stored settings that given flags make void: those of other controls, or of another kind of source."""
    names = [GUIDE, GUIDE + image_spec.SHA256, "detector"] if CONTROL_MAP in given else []
    if GUIDE in given:
        names.append(CONTROL_MAP)
    if "region" in given:
        names += [REGION_MAP, REGION_MAP + image_spec.SHA256]
    if INIT_IMAGE in given:
        names += [
            MASK,
            MASK + image_spec.SHA256,
            *(flag.key for flag in flags(Img2ImgConfig).values() if flag.field != "mask_feather"),
        ]
    if "preset" in given:
        names += [name for name in PUBLISHED if name not in IMAGE_KEYS]
    if "control" in given:
        names += [name for name in PER_CONTROL if isinstance(values.get(name), list)]
    return names


def _find(name: str, folder: Path) -> str:
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def _find_lora(lora: str, folder: Path) -> str:
    ((name, _),) = Adapters(lora=(lora,)).loras
    return _find(name, folder) + lora[len(name) :]  # its weight
