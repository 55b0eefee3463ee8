"""What the drawings share: places, guides, and sheets of pictures."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from synccontrol import Montage, preprocess
from synccontrol.io import images

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
GAP = 8  # px between stacked pictures
QUALITY = 88  # of JPEG


def stack(pictures: Sequence[Image.Image], path: Path) -> None:
    """Writes pictures one below the other."""
    height = sum(picture.height for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True, quality=QUALITY)


def row(pictures: Sequence[Image.Image], path: Path) -> None:
    """Writes pictures of one height side by side."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet, left = Image.new("RGB", (width, pictures[0].height), "white"), 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True, quality=QUALITY)


def scaled(picture: Image.Image, width: int) -> Image.Image:
    """Returns a picture at another width, px."""
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


@cache
def guide(name: str) -> Image.Image:
    """Returns one of the examples' guides."""
    return images.open_image(ROOT / "examples" / "guides" / f"{name}.png")


@cache
def control_map(control: str, name: str, loop: bool = False) -> Image.Image:
    """Returns the control map of one of the examples' guides."""
    return preprocess.load(control, loop=loop)(guide(name))


@cache
def montage(*controls: str) -> Montage:
    """Returns the bundled model with ControlNets."""
    return Montage.from_pretrained("tiny", controls=controls)
