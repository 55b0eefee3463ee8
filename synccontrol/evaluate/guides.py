"""Which control a montage followed, which guide, and what read the map off it."""

from collections.abc import Sequence
from pathlib import Path

import preprocess
from synccontrol.errors import ConfigError, InputError
from synccontrol.evaluate.measurement import Settings
from synccontrol.evaluate.pictures import Gallery, Montage, picture_files


def wanted_controls(gallery: Gallery, settings: Settings) -> dict[str, list[Montage]]:
    """Returns the control types to compare, each with the montages that followed it.

    Raises:
        ConfigError: a control type is not known, or neither the settings nor the montages name one.
    """
    if settings.controls:
        found = {control: list(gallery.montages) for control in settings.controls}
    else:
        found = {}
        for montage in gallery.montages:
            for control in montage.settings.get("control", ()):
                found.setdefault(control, []).append(montage)
    unknown = sorted(set(found) - set(preprocess.names()))
    if unknown or not found:
        what = f"there is no control {', '.join(unknown)}" if unknown else "the montages do not say their control"
        raise ConfigError(f"{what}; name it with --control ({', '.join(preprocess.names())})")
    return found


def guide_files(gallery: Gallery, settings: Settings) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """Returns the guide of each montage by control type and name of the montage, and the montages without one.

    It has the name of the montage, or of the guide that the montage's own settings name; ready maps may have the
    control type before their suffix (`valley.depth.png`).

    Raises:
        InputError: no montage has a guide.
        ConfigError: as `wanted_controls`.
    """
    assert settings.guides is not None
    folder = settings.guides
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in picture_files(folder)}
    found: dict[tuple[str, str], Path] = {}
    missing: dict[str, None] = {}
    for control, montages in wanted_controls(gallery, settings).items():
        for montage in montages:
            stems = [Path(montage.name).with_suffix("").as_posix(), Path(montage.settings.get("guide") or "").stem]
            keys = [key for stem in stems for key in ([f"{stem}.{control}"] if settings.ready_maps else []) + [stem]]
            key = next((key for key in keys if key in files), None)
            if key is None:
                missing[montage.name] = None
            else:
                found[control, montage.name] = files[key]
    if not found:
        name = next(iter(missing))
        raise InputError(
            f"there is no guide for {name} in {folder}, nor for another montage; put one there as "
            f"{Path(name).with_suffix('.png')}, or leave the guides out"
        )
    return found, list(missing)


def detector_of(control: str, montages: Sequence[Montage], settings: Settings) -> str | None:
    """Returns what reads the maps: as the settings say, else what made the montages' maps, else none, the default."""
    if settings.detectors:
        return dict(zip(settings.controls, settings.detectors, strict=True))[control]
    found = set()
    for montage in montages:
        own = montage.settings
        found |= {
            name for kind, name in zip(own.get("control", ()), own.get("detector", ()), strict=False) if kind == control
        }
    if len(found) > 1:
        raise ConfigError(
            f"the montages' {control} maps were made by several detectors ({', '.join(sorted(found))}); name one "
            "with --detector"
        )
    return next(iter(found), None)
