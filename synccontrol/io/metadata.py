"""PNG metadata: the AUTOMATIC1111 `parameters` text, and the settings that reproduce the image."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synccontrol.errors import InputError
from synccontrol.io import atomic_write
from synccontrol.io.images import open_lazily
from synccontrol.spec.image_settings import IMAGE_CLASSES
from synccontrol.spec.schema import today
from synccontrol.spec.settings import EQUIRECTANGULAR, SCHEDULERS

PARAMETERS = "parameters"
SETTINGS = "synccontrol"
XMP = "XML:com.adobe.xmp"  # keyword of the XMP text chunk


def format_parameters(settings: Mapping[str, Any]) -> str:
    """Return settings (keyed by flag, as in `Result.config`) as the parameters text of AUTOMATIC1111."""
    fields = {
        "Steps": settings["steps"],
        "Sampler": SCHEDULERS[settings["scheduler"]].automatic1111,
        "CFG scale": settings["guidance_scale"],
        "Seed": settings["seed"],
        "Size": f"{settings['width']}x{settings['height']}",
        **({"Clip skip": settings["clip_skip"] + 1} if settings.get("clip_skip") else {}),
        **({"Model": settings["model"]} if settings.get("model") else {}),
        "Version": "SyncControl",
    }
    lines = [settings["prompt"]]
    if settings["negative_prompt"]:
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in fields.items())])


def format_gpano(width: int, height: int) -> str:
    """Return the XMP packet of an equirectangular panorama (GPano, Google's photo sphere metadata)."""
    fields = {
        "ProjectionType": "equirectangular",
        "UsePanoramaViewer": "True",
        "CroppedAreaImageWidthPixels": width,
        "CroppedAreaImageHeightPixels": height,
        "FullPanoWidthPixels": width,
        "FullPanoHeightPixels": height,
        "CroppedAreaLeftPixels": 0,
        "CroppedAreaTopPixels": 0,
    }
    attributes = " ".join(f'GPano:{name}="{value}"' for name, value in fields.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {attributes}/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def save_png(
    image: Image.Image, path: Path, settings: Mapping[str, Any], overwrite: bool = False, allow_identical: bool = False
) -> None:
    """Write a PNG with its settings, atomically; an equirectangular panorama also gets GPano metadata.

    Args:
        image: the image.
        path: the file name.
        settings: keyed by flag, as in `Result.config`.
        overwrite: replace an existing file.
        allow_identical: accept an existing file of the same bytes instead of raising an error.

    Raises:
        OutputError: the file cannot be written, or it exists and `overwrite` is off.
    """
    info = PngInfo()
    info.add_itxt(PARAMETERS, format_parameters(settings).encode("utf-8", "backslashreplace"))
    info.add_itxt(SETTINGS, json.dumps(settings))  # in ASCII, which preserves file names of any bytes
    if settings.get("projection") == EQUIRECTANGULAR:
        info.add_itxt(XMP, format_gpano(*image.size))
    atomic_write.publish(path, lambda file: image.save(file, "PNG", pnginfo=info), overwrite, allow_identical)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings from a PNG written by `save_png`, or from a JSON file of the same content.

    Raises:
        InputError: the file contains no settings.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise OSError("it is not a file")
        if path.suffix.lower() == ".json":
            text = path.read_text(encoding="utf-8-sig")
        else:
            with open_lazily(path) as image:
                text = image.info[SETTINGS]
        settings = json.loads(text)
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} holds no settings; give a PNG made by SyncControl, or a JSON file") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds no settings, which are a JSON object")
    return today(settings, *IMAGE_CLASSES)
