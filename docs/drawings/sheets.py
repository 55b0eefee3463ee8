"""Paths, guides, control maps and contact sheets that the drawings share."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from synccontrol import Montage, preprocess
from synccontrol.io import images

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
GAP = 8  # px between images of a contact sheet
QUALITY = 88  # of JPEG


def stack(panels: Sequence[Image.Image], path: Path) -> None:
    """Write a contact sheet of images, one below the other."""
    height = sum(panel.height for panel in panels) + GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (max(panel.width for panel in panels), height), "white")
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True, quality=QUALITY)


def row(panels: Sequence[Image.Image], path: Path) -> None:
    """Write a contact sheet of images of one height, side by side."""
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    sheet, left = Image.new("RGB", (width, panels[0].height), "white"), 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True, quality=QUALITY)


def scaled(image: Image.Image, width: int) -> Image.Image:
    """Return an image resized to a width, px."""
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


@cache
def guide(name: str) -> Image.Image:
    """Return a guide of the examples."""
    return images.open_image(ROOT / "examples" / "guides" / f"{name}.png")


@cache
def control_map(control: str, name: str, loop: bool = False) -> Image.Image:
    """Return the control map of a guide of the examples."""
    return preprocess.load(control, loop=loop)(guide(name))


@cache
def montage(*controls: str) -> Montage:
    """Return the bundled model with ControlNets."""
    return Montage.from_pretrained("tiny", controls=controls)
