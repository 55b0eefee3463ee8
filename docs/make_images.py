"""Draws the pictures of the README with the bundled model: python -m docs.make_images"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import preprocess
from synccontrol import Montage, SyncConfig
from synccontrol.files import images

ROOT = Path(__file__).parent.parent
GAP = 8  # px between stacked pictures


def stack(pictures: Sequence[Image.Image], path: Path) -> None:
    """Writes pictures one below the other."""
    height = sum(picture.height for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + GAP
    sheet.save(path, optimize=True)


def controlled(control: str, guide: str, prompts: Sequence[str]) -> list[Image.Image]:
    """Returns the guide, its control map, and a picture for every prompt."""
    picture = images.open_image(ROOT / "examples" / "guides" / f"{guide}.png")
    control_map = preprocess.load(control)(picture)
    montage = Montage.from_pretrained("tiny", controls=[control])
    return [picture, control_map, *(montage(prompt, control_map).image for prompt in prompts)]


def main() -> None:
    """Writes `docs/images/*.png`."""
    folder = ROOT / "docs" / "images"
    guide, _, picture = controlled("depth", "valley", ["a mountain valley at sunset"])
    stack([guide, picture], folder / "demo.png")
    prompts = ["a mountain valley at night", "a snowy mountain valley at dawn"]
    stack(controlled("depth", "valley", prompts)[1:], folder / "depth.png")
    stack(controlled("canny", "desert", ["a desert at noon", "a desert at sunset"])[1:], folder / "canny.png")
    stack(
        controlled("pose", "people", ["people on a meadow, noon", "people in the snow at dawn"])[1:],
        folder / "pose.png",
    )
    montage = Montage.from_pretrained("tiny")
    sync = montage.defaults.sync
    settings = [SyncConfig(weight=0.0), sync]
    wide = [montage("a landscape", height=256, width=1536, seed=5, sync=setting).image for setting in settings]
    stack(wide, folder / "sync.png")


if __name__ == "__main__":
    main()
