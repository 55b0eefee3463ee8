"""The gallery: what the bundled model makes of the examples' guides, each picture with the command that draws it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image

from docs.drawings.sheets import DOCS, QUALITY, control_map, guide, montage, scaled

FOLDER = DOCS / "gallery"
PAGE = DOCS / "gallery.md"
WIDTH = 1152  # px on the page: three quarters of the guides
INTRODUCTION = """# Gallery

What the bundled model makes of the [guides](../examples/guides) that come with it, with its own settings and seed 0;
above every picture the command that draws it. `python -m docs.drawings gallery` draws this page again.
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One picture of the gallery."""

    control: str
    prompt: str


GUIDES: Mapping[str, Sequence[Row]] = {
    "valley": (
        Row("depth", "a mountain valley at sunset"),
        Row("depth", "snowy mountains at dawn"),
        Row("canny", "alpine peaks on an overcast day"),
    ),
    "people": (
        Row("pose", "people on a meadow, noon"),
        Row("pose", "people in a desert at sunset"),
        Row("depth", "people in the snow at dawn"),
    ),
    "city": (
        Row("canny", "a city skyline at night"),
        Row("canny", "a city at sunset"),
        Row("depth", "a city on an overcast day"),
    ),
    "forest": (
        Row("depth", "a pine forest in the morning"),
        Row("depth", "a forest at sunset"),
        Row("canny", "a forest at night"),
    ),
    "desert": (
        Row("canny", "a desert at noon"),
        Row("canny", "a desert at night"),
        Row("depth", "sand dunes at sunset"),
    ),
    "lake": (Row("canny", "a mountain lake at dawn"), Row("depth", "a mountain lake at sunset")),
    "sea": (Row("depth", "the sea at sunset"), Row("canny", "the sea by day")),
    "shapes": (Row("canny", "green hills on a sunny day"), Row("canny", "a snowy landscape at dawn")),
    "photograph": (Row("depth", "alpine peaks at sunset"), Row("canny", "mountains at noon")),
    "ring": (Row("depth", "a landscape at noon"), Row("depth", "a landscape at sunset")),
}
RINGS = frozenset({"ring"})  # guides whose right edge continues at the left, and so do their pictures


def command(name: str, row: Row) -> str:
    """Returns what draws a picture of the gallery."""
    loop = " --loop" if name in RINGS else ""
    return f'synccontrol --control {row.control}{loop} --guide examples/guides/{name}.png --prompt "{row.prompt}"'


def file(name: str, part: str) -> str:
    """Returns the file of a picture, below the pages."""
    return f"gallery/{name}-{part}.jpg"


def page() -> str:
    """Returns the page's text: guide, then by control its map, and every command with its picture."""
    parts = [INTRODUCTION]
    for name, rows in GUIDES.items():
        parts.append(f"## {name.capitalize()}\n\n![The guide.]({file(name, 'guide')})\n")
        for control in dict.fromkeys(row.control for row in rows):
            parts.append(f"### {name.capitalize()}, {control}\n\n![Its control map.]({file(name, control)})\n")
            for place, row in enumerate(rows):
                if row.control == control:
                    shown = f"![{row.prompt}]({file(name, str(place + 1))})"
                    parts.append(f"```bash\n{command(name, row)}\n```\n\n{shown}\n")
    return "\n".join(parts)


def _save(picture: Image.Image, name: str, part: str) -> None:
    scaled(picture, WIDTH).save(DOCS / file(name, part), optimize=True, quality=QUALITY)


def draw() -> None:
    """Writes `docs/gallery.md` and its pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, rows in GUIDES.items():
        loop = name in RINGS
        _save(guide(name), name, "guide")
        for place, row in enumerate(rows):
            model, map_ = montage(row.control), control_map(row.control, name, loop)
            _save(map_, name, row.control)
            windows = replace(model.defaults.windows, loop=loop)
            _save(model(row.prompt, map_, windows=windows).image, name, str(place + 1))
    PAGE.write_text(page(), encoding="utf-8")
