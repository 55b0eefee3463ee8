"""Draws the gallery, what the bundled model makes of guides: python -m docs.make_gallery"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image

import preprocess
from docs.make_images import ROOT, stack
from synccontrol import Montage
from synccontrol.files import images

FOLDER = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
WIDTH = 1152  # px on the page: three quarters of the guides
INTRODUCTION = """# Gallery

What the bundled model makes of guides in [`examples/guides/`](../examples/guides), with its own settings, seed 0.
Each sheet shows the guide; then, for every control, the control map and the pictures that follow it, in the order of
the prompts below it; the ring's are rings too. `python -m docs.make_gallery` draws this page again.
"""
Takes = Mapping[str, Sequence[str]]  # control -> prompts
GUIDES: Mapping[str, Takes] = {
    "valley": {
        "depth": ("a mountain valley at sunset", "snowy mountains at dawn"),
        "canny": ("alpine peaks on an overcast day",),
    },
    "people": {
        "pose": ("people on a meadow, noon", "people in a desert at sunset"),
        "depth": ("people in the snow at dawn",),
    },
    "city": {"canny": ("a city skyline at night", "a city at sunset"), "depth": ("a city on an overcast day",)},
    "forest": {"depth": ("a pine forest in the morning", "a forest at sunset"), "canny": ("a forest at night",)},
    "desert": {"canny": ("a desert at noon", "a desert at night"), "depth": ("sand dunes at sunset",)},
    "lake": {"canny": ("a mountain lake at dawn",), "depth": ("a mountain lake at sunset",)},
    "sea": {"depth": ("the sea at sunset",), "canny": ("the sea by day",)},
    "shapes": {"canny": ("green hills on a sunny day", "a snowy landscape at dawn")},
    "photograph": {"depth": ("alpine peaks at sunset",), "canny": ("mountains at noon",)},
    "ring": {"depth": ("a landscape at noon", "a landscape at sunset")},
}
RINGS = frozenset({"ring"})  # guides whose right edge continues at the left, and so do their pictures


def sheet(guide: str, takes: Takes, montages: Mapping[str, Montage]) -> list[Image.Image]:
    """Returns a guide and, for every control, its map and a picture for every prompt."""
    picture, loop = images.open_image(ROOT / "examples" / "guides" / f"{guide}.png"), guide in RINGS
    rows = [picture]
    for control, prompts in takes.items():
        montage, control_map = montages[control], preprocess.load(control, loop=loop)(picture)
        windows = replace(montage.defaults.windows, loop=loop)
        rows += [control_map, *(montage(prompt, control_map, windows=windows).image for prompt in prompts)]
    return rows


def page() -> str:
    """Returns the page's text."""
    parts = [INTRODUCTION]
    for guide, takes in GUIDES.items():
        listed = "; ".join(f"{control}: " + ", ".join(f'"{p}"' for p in prompts) for control, prompts in takes.items())
        parts.append(f"## {guide.capitalize()}\n\n![{listed}](gallery/{guide}.jpg)\n\n{listed}.\n")
    return "\n".join(parts)


def main() -> None:
    """Writes `docs/gallery.md` and its pictures."""
    FOLDER.mkdir(exist_ok=True)
    montages = {control: Montage.from_pretrained("tiny", controls=[control]) for control in ("depth", "canny", "pose")}
    for guide, takes in GUIDES.items():
        rows = sheet(guide, takes, montages)
        small = [row.resize((WIDTH, round(row.height * WIDTH / row.width)), Image.Resampling.LANCZOS) for row in rows]
        stack(small, FOLDER / f"{guide}.jpg")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
