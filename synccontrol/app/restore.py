"""A picture of ours that is handed over: its settings, by the allow-list, and never a file that it names."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from synccontrol import settings
from synccontrol.app import beside
from synccontrol.app.wish import NAMES
from synccontrol.config import MIDDLE
from synccontrol.extras import Extras
from synccontrol.files import metadata, provenance

FILES = ("guide", "control_map", "ip_image", "region_map", "init_image", "mask")  # which a visitor hands over anew


def restored(
    path: Path, models: Collection[str], detectors: Collection[str], extras: Extras = Extras()
) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings of a picture or of JSON by the names of the page, and what is said of the others.

    Args:
        path: what was handed over.
        models: those on offer.
        detectors: by name; a folder or hub id is none.
        extras: what is loaded into the model on offer.

    Raises:
        InputError: it has no settings, or one of them is wrong.
    """
    everything = metadata.read_settings(path)
    values = settings.of_picture(everything)
    notes = []
    for name in (name for name in FILES if values.get(name)):
        found = values[name] if isinstance(values[name], list) else [values[name]]
        named = ", ".join(Path(one).name for one in found if one)
        if named:
            notes.append(f"{name.replace('_', ' ')} {named}: files are not opened by their name; hand it over again")
    if "model" in values and values["model"] not in models:
        notes.append(f"model {values.pop('model')} is not on offer here: the one that is chosen stays")
    unknown = [name for name in values.get("detector", ()) if name not in detectors]
    if unknown:
        notes.append(f"detector {', '.join(unknown)} is not on offer here: the default is used")
        del values["detector"]
    anchor = values.get("anchor", MIDDLE)
    if isinstance(anchor, str) and anchor != MIDDLE:
        notes.append("the anchor was a file, which is not opened by its name: the middle window is followed")
        values["anchor"] = MIDDLE
    strong, left = beside.restored(values, extras)
    if left:
        notes.append(f"{', '.join(left)}: this page loads none of them, so the picture will differ")
    unused = sorted(set(everything) - set(settings.KINDS) - set(provenance.KEYS))
    if unused:
        notes.append(f"{', '.join(unused)}: no settings of a picture, and left out")
    return {name: values[name] for name in NAMES if name in values} | strong, notes
