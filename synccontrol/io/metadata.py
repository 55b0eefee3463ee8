"""What is written into pictures: the AUTOMATIC1111 `parameters` text, and settings that make the picture again."""

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
XMP = "XML:com.adobe.xmp"  # the keyword of XMP in PNG


def parameters(settings: Mapping[str, Any]) -> str:
    """Returns settings (by flag, as `Result.config`) in the form that AUTOMATIC1111 and its readers use."""
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


def photo_sphere(width: int, height: int) -> str:
    """Returns the XMP packet that tells viewers of a whole sphere (GPano, Google's photo sphere metadata)."""
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
    image: Image.Image, path: Path, settings: Mapping[str, Any], overwrite: bool = False, same: bool = False
) -> None:
    """Writes a PNG with its settings, and GPano metadata if it shows a sphere; whole or not at all.

    Args:
        image: the picture.
        path: its name.
        settings: by flag, as `Result.config`.
        overwrite: replace what is there.
        same: a file of the very same bytes may be there already.

    Raises:
        OutputError: the file cannot be written, or there is one and it is not to be overwritten.
    """
    info = PngInfo()
    info.add_itxt(PARAMETERS, parameters(settings).encode("utf-8", "backslashreplace"))
    info.add_itxt(SETTINGS, json.dumps(settings))  # in ASCII, so that file names of any bytes can be kept
    if settings.get("projection") == EQUIRECTANGULAR:
        info.add_itxt(XMP, photo_sphere(*image.size))
    atomic_write.publish(path, lambda file: image.save(file, "PNG", pnginfo=info), overwrite, same)


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings in a PNG that `save_png` wrote, or in a JSON file of the same content.

    Raises:
        InputError: the file has none.
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for who fills it
            raise OSError("it is no file")
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
