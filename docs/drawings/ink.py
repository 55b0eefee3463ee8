"""How the drawings look: no ground of their own, and inks that can be read on white and on black."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

GREY = "#7d8590"  # text, axes
INKS = ("#3d86e0", "#e0803a", "#35a374", "#9a6bd0", "#d9556b")
DPI = 100

STYLE: Any = {
    "font.size": 15,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.labelcolor": GREY,
    "legend.frameon": False,
}
mpl.rcParams.update(STYLE)


def figure(width: int, height: int) -> Figure:
    """Returns an empty figure of so many px."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def panel(whole: Figure, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
    """Returns axes without any lines, in a box in px from the upper left of a figure, a title above it."""
    across, down = whole.get_size_inches() * DPI
    axes = whole.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    if title:
        axes.set_title(title, loc="left", fontsize=15, color=GREY)
    return axes


def write(whole: Figure, left: float, top: float, text: str, ink: str = GREY) -> None:
    """Writes a line of text at a place in px from the upper left of a figure."""
    across, down = whole.get_size_inches() * DPI
    whole.text(left / across, 1 - top / down, text, fontsize=15, color=ink, va="top")


def show(axes: Axes, picture: Image.Image) -> None:
    """Shows a picture whose pixels are the units of the axes."""
    axes.imshow(np.asarray(picture), extent=(0, picture.width, picture.height, 0), interpolation="lanczos")
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)


def frame(axes: Axes, box: tuple[float, float, float, float], ink: str, fill: float = 0.0) -> None:
    """Draws a frame (left, top, width, height)."""
    left, top, width, height = box
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=ink, linewidth=2.5))
    if fill:
        axes.add_patch(Rectangle((left, top), width, height, color=ink, alpha=fill, linewidth=0))


def save(whole: Figure, path: Path) -> None:
    """Writes a figure as PNG, with a clear ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.savefig(path, transparent=True, dpi=DPI)
    with Image.open(path) as picture:
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
