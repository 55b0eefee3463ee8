"""All figures about a folder of montages."""

from collections.abc import Callable
from pathlib import Path

from synccontrol.evaluate import coherence, control, fidelity, seams
from synccontrol.evaluate.measurement import GROUPS, Measurement, Progress, Scores, Settings
from synccontrol.evaluate.networks import Eyes
from synccontrol.evaluate.pictures import Gallery, open_gallery
from synccontrol.models import devices


def score(folder: Path, settings: Settings, progress: Progress = lambda line: None) -> Scores:
    """Returns the figures of the montages in a folder, and what is left out or cannot be had here, with why.

    Args:
        folder: PNG, JPEG or WebP files, all of one size; searched through.
        settings: what to measure, and how.
        progress: is told in a line what is being measured.

    Raises:
        InputError: no pictures, montages too narrow for two windows, none with a guide, or too few windows for FID
            and KID.
        ConfigError: settings that contradict each other or the pictures.
        ModelError: the device is not there.
    """
    return of_gallery(open_gallery(folder, settings), settings, progress)


def of_gallery(gallery: Gallery, settings: Settings, progress: Progress) -> Scores:
    """Returns what `score` does, of montages that are opened already. Raises as `score`."""
    devices.check_device(settings.device)
    if "fidelity" in settings.groups:
        fidelity.check(gallery, settings)
    if "control" in settings.groups:
        control.check(gallery, settings)
    eyes = Eyes(gallery, settings)
    measure: dict[str, Callable[[], tuple[list[Measurement], list[tuple[str, str]]]]] = {
        "coherence": lambda: coherence.measure(gallery, eyes, settings, progress),
        "fidelity": lambda: fidelity.measure(gallery, eyes, settings, progress),
        "control": lambda: control.measure(gallery, settings, progress),
        "seams": lambda: seams.measure(gallery, settings, progress),
    }
    results = [measure[group]() for group in GROUPS if group in settings.groups]
    return Scores(
        measurements=tuple(measurement for measured, _ in results for measurement in measured),
        skipped=(*gallery.left_out, *(reason for _, skipped in results for reason in skipped)),
    )
