"""Reading maps and people off montages and their guides, to hold the one against the other."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import preprocess
from preprocess.controls import pose
from synccontrol.errors import InputError, translated
from synccontrol.evaluate.guides import detector_of
from synccontrol.evaluate.measurement import Progress, Settings
from synccontrol.evaluate.pictures import Gallery, Montage
from synccontrol.files import fitting, images

Array = npt.NDArray[np.float32]  # a map (H, W) in 0..255, or people (n, 18, 3): x px, y px, confidence
Reader = Callable[[Image.Image], Array]


def reader(control: str, detector: str | None, settings: Settings, loop: bool = False) -> Reader:
    """Returns the function from a picture, or with `loop` from a ring, to its map or people.

    Raises:
        ConfigError: no such control type or detector.
        ModelError: its weights cannot be had.
    """
    with translated():
        detect = translated()(
            preprocess.load(control, detector, device=settings.device, offline=settings.offline, loop=loop)
        )
    if control == "pose":
        return lambda picture: _people(detect(picture))
    return lambda picture: np.asarray(detect(picture).convert("L"), np.float32)


def _people(pose_map: Image.Image) -> Array:
    found = pose.poses_of(pose_map)
    assert found is not None  # detectors draw what they find
    return found.people


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """What was read off a montage, off its guide, and off the guide of another montage (none if there is no other)."""

    found: Array
    wanted: Array
    other: Array | None


def _readers(control: str, montages: Sequence[Montage], settings: Settings) -> dict[bool, Reader]:
    """Returns what reads pictures, and what reads rings, where there are any of either."""
    detector = detector_of(control, montages, settings)
    kinds = {montage.is_ring(settings) for montage in montages}
    return {loop: reader(control, detector, settings, loop) for loop in kinds}


def read_pairs(
    control: str,
    montages: Sequence[Montage],
    files: Mapping[str, Path],  # guides by montage
    gallery: Gallery,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, Pair], list[tuple[str, str]]]:
    """Returns what there is to compare, by montage, and what cannot be read, with why.

    Of a guide that was padded, only the part that it shows. Rings, and their guides, are read as rings.

    Raises:
        ConfigError, ModelError: as `reader`.
    """
    readers = _readers(control, montages, settings)
    wanted: dict[tuple[Path, bool], tuple[fitting.Fitting, Array]] = {}
    keys: dict[str, tuple[Path, bool]] = {}
    broken = []
    for montage in montages:
        key = files[montage.name], montage.is_ring(settings)
        try:
            if key not in wanted:
                progress(f"{control}: guide {key[0].name}")
                wanted[key] = _guide(montage, key[0], readers[key[1]], gallery, settings)
            keys[montage.name] = key
        except InputError as error:
            broken.append((f"control of {montage.name}", str(error)))
    distinct, pairs = list(wanted), {}
    for number, montage in enumerate([one for one in montages if one.name in keys], 1):
        progress(f"{control}: {montage.name} ({number} of {len(keys)})")
        own = keys[montage.name]
        following = distinct[(distinct.index(own) + 1) % len(distinct)]
        fit, map_ = wanted[own]
        other_fit, other_map = wanted[following]
        pairs[montage.name] = Pair(
            found=readers[own[1]](montage.read().crop(fit.inside)),
            wanted=map_,
            other=other_map if following != own and other_fit.inside == fit.inside else None,
        )
    return pairs, broken


def _guide(
    montage: Montage, path: Path, read: Reader, gallery: Gallery, settings: Settings
) -> tuple[fitting.Fitting, Array]:
    """Returns how a montage's guide lies on it, and its map. Raises `InputError` if it cannot be read, or not lie."""
    guide = images.open_image(path)
    how = str(montage.settings.get("fit", fitting.EXACT))
    fit = fitting.plan(guide, gallery.height, gallery.width, f"guide {path.name}", how, loop=montage.is_ring(settings))
    shown = fit.show(guide)
    return fit, np.asarray(shown.convert("L"), np.float32) if settings.ready_maps else read(shown)
