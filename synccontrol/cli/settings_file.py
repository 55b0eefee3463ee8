"""`--settings`: what decides a picture that is there, as flags; nothing else is read."""

import dataclasses
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from synccontrol.cli.parser import DEFAULTS, PUBLISHED
from synccontrol.errors import ConfigError, InputError
from synccontrol.io import metadata, provenance
from synccontrol.models.presets import PAPER
from synccontrol.spec import image_spec
from synccontrol.spec import settings as config
from synccontrol.spec.image_spec import ANCHOR, CONTROL_MAP, GUIDE, INIT_IMAGE, MASK, REGION_MAP, SINGLE, Source
from synccontrol.spec.settings import DRAWN, MIDDLE, UPSCALE, Adapters, Img2ImgConfig, UpscaleConfig

OF_THE_PICTURE = ("loop", "projection", "anchor")  # of those that presets say, what is the picture's and no model's
PER_CONTROL = ("controlnet", "detector", "control_map", "control_scale", "control_start", "control_end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """The settings of a picture."""

    path: Path  # the file that they were read from
    flags: Mapping[str, Any]  # as the parser returns them
    sources: tuple[Source, ...]  # of these flags, with the hashes that were recorded
    everything: Mapping[str, Any]

    @property
    def unused(self) -> list[str]:
        """Returns what else the file holds; what a PNG says about versions and machine is no setting."""
        return sorted(set(self.everything) - set(image_spec.KINDS) - set(provenance.KEYS))

    def notes(self, device: str, dtype: str) -> list[str]:
        """Returns what the user should know: what is left out, and why the same picture cannot be promised."""
        found = []
        if self.unused:
            found.append(f"{self.path}: {', '.join(self.unused)} do not decide a picture, and are left out")
        changes = provenance.changes(self.everything, provenance.made_with(device, dtype), self.sources)
        if changes:
            found.append(f"{self.path} was made otherwise ({'; '.join(changes)}): the picture may differ")
        return found


def read(path: Path, given: Container[str]) -> Stored:
    """Returns the settings of a PNG or JSON file.

    Files that it names are looked for from the current folder, then beside it.

    Args:
        path: the file.
        given: flags on the command line; what belongs to that which they replace is not read.

    Raises:
        InputError: the file has no settings, or one of them is wrong.
    """
    everything = metadata.read_settings(path)
    try:
        values = image_spec.of_picture(everything)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from error
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
    flags = {name: value for name, value in values.items() if not name.endswith("_sha256")}
    flags |= {name: Path(flags[name]) for name in SINGLE if name in flags and name != ANCHOR}
    flags[CONTROL_MAP] = list(flags.get(CONTROL_MAP, []))
    return Stored(path=path, flags={**flags}, sources=sources, everything=everything)


def merged(given: Mapping[str, Any]) -> tuple[dict[str, Any], Stored | None]:
    """Returns all flags: as given, else as stored, else their defaults; and what was stored.

    Flags of the configs are there if they were given or stored. Raises `InputError` as `read`.
    """
    stored = read(given["settings"], given) if "settings" in given else None
    return {**DEFAULTS, **(stored.flags if stored else {}), **given}, stored


def extras_of(given: Mapping[str, Any]) -> Adapters:
    """Returns what is loaded beside a model's own parts, of flags as given or stored."""
    values = {field.name: given.get(flag.replace("-", "_")) for flag, field in config.flags(Adapters).items()}
    return Adapters(**{name: value for name, value in values.items() if value is not None})


def compose_of(given: Mapping[str, Any]) -> Img2ImgConfig:
    """Returns how a picture starts from another one, of flags as given or stored.

    Raises:
        ConfigError: a value is outside its range, or there is nothing to start from.
    """
    named = {field.name: given.get(flag.replace("-", "_")) for flag, field in config.flags(Img2ImgConfig).items()}
    values: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if values and given[INIT_IMAGE] is None:
        name = next(iter(values))
        raise ConfigError(f"--{name.replace('_', '-')} does nothing without an --init-image; name one, or leave it out")
    if given[MASK] is not None and given[INIT_IMAGE] is None:
        raise ConfigError("--mask needs an --init-image, the picture that is repainted")
    made = Img2ImgConfig(**values)
    return made if given[INIT_IMAGE] is None else made.chosen(given[MASK] is not None)


def enlarge_of(given: Mapping[str, Any]) -> UpscaleConfig:
    """Returns what becomes of a finished picture, of flags as given or stored.

    A landscape higher than a window is drawn as one row and upscaled, unless it is to be as published, or as a picture
    that was made when there was no choice; such pictures have the colours that were drawn, too.
    """
    named = {field.name: given.get(flag.replace("-", "_")) for flag, field in config.flags(UpscaleConfig).items()}
    values: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if "tall" not in values and given["preset"] != PAPER and given["settings"] is None:
        values["tall"] = UPSCALE
    if given["settings"] is not None:
        values.setdefault("upscale_colours", DRAWN)
    return UpscaleConfig(**values)


def _replaced(values: Mapping[str, Any], given: Container[str]) -> list[str]:
    """Returns which settings fall with those that flags replace: of other controls, or of the other kind of source."""
    names = [GUIDE, "guide_sha256", "detector"] if CONTROL_MAP in given else []
    if GUIDE in given:
        names.append(CONTROL_MAP)
    if "region" in given:
        names += [REGION_MAP, f"{REGION_MAP}_sha256"]
    if INIT_IMAGE in given:
        names += [MASK, f"{MASK}_sha256", "extend", "strength", "colours"]
    if "preset" in given:
        names += [name for name in PUBLISHED if name not in OF_THE_PICTURE]
    if "control" in given:
        names += [name for name in PER_CONTROL if isinstance(values.get(name), list)]
    return names


def _find(name: str, folder: Path) -> str:
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def _find_lora(lora: str, folder: Path) -> str:
    ((name, _),) = Adapters(lora=(lora,)).loras
    return _find(name, folder) + lora[len(name) :]  # its weight
