"""The gallery: images that the bundled model generates from the examples' guides, each with its command."""

import dataclasses
from collections.abc import Mapping, Sequence

from PIL import Image

from docs.drawings.sheets import DOCS, QUALITY, control_map, guide, montage, scaled

FOLDER = DOCS / "gallery"
PAGE = DOCS / "gallery.md"
WIDTH = 1152  # px on the page: three quarters of the guides
INTRODUCTION = """# Gallery

This page shows images of the bundled model, generated with its own settings and seed 0. Each section begins with one of
the [guides](../examples/guides), followed by its control maps. The command above an image generates that image.

`python -m docs.drawings gallery` generates this page again. The bundled model knows one illustrated world; see
[limits](limits.md).
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One image of the gallery."""

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
RINGS = frozenset({"ring"})  # guides of cylindrical panoramas: the right edge continues at the left


def command(name: str, row: Row) -> str:
    """Return the command that generates an image of the gallery."""
    loop = " --loop" if name in RINGS else ""
    return f'synccontrol --control {row.control}{loop} --guide examples/guides/{name}.png --prompt "{row.prompt}"'


def file(name: str, part: str) -> str:
    """Return the path of an image, relative to `docs`."""
    return f"gallery/{name}-{part}.jpg"


def page() -> str:
    """Return the page's text: each guide, its control maps, and every command with its image."""
    parts = [INTRODUCTION]
    for name, rows in GUIDES.items():
        parts.append(f"## {name.capitalize()}\n\n![The guide.]({file(name, 'guide')})\n")
        for control in dict.fromkeys(row.control for row in rows):
            parts.append(f"### {name.capitalize()}, {control}\n\n![The control map.]({file(name, control)})\n")
            for place, row in enumerate(rows):
                if row.control == control:
                    image = f"![{row.prompt}]({file(name, str(place + 1))})"
                    parts.append(f"```bash\n{command(name, row)}\n```\n\n{image}\n")
    return "\n".join(parts)


def _save(image: Image.Image, name: str, part: str) -> None:
    scaled(image, WIDTH).save(DOCS / file(name, part), optimize=True, quality=QUALITY)


def draw() -> None:
    """Write `docs/gallery.md` and its images."""
    FOLDER.mkdir(exist_ok=True)
    for name, rows in GUIDES.items():
        loop = name in RINGS
        _save(guide(name), name, "guide")
        for place, row in enumerate(rows):
            model, map_ = montage(row.control), control_map(row.control, name, loop)
            _save(map_, name, row.control)
            windows = model.defaults.windows.replace(loop=loop)
            _save(model(row.prompt, map_, windows=windows).image, name, str(place + 1))
    PAGE.write_text(page(), encoding="utf-8")
