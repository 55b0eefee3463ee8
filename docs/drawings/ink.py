"""The style of the drawings: a transparent background, and colours that are legible on white and on black."""

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
    """Return an empty figure of a size in px."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def panel(whole: Figure, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
    """Return axes without lines, in a box in px from the upper left of a figure, with a title above."""
    across, down = whole.get_size_inches() * DPI
    axes = whole.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    if title:
        axes.set_title(title, loc="left", fontsize=15, color=GREY)
    return axes


def write(whole: Figure, left: float, top: float, text: str, ink: str = GREY) -> None:
    """Write a line of text at a position in px from the upper left of a figure."""
    across, down = whole.get_size_inches() * DPI
    whole.text(left / across, 1 - top / down, text, fontsize=15, color=ink, va="top")


def show(axes: Axes, image: Image.Image) -> None:
    """Show an image; one pixel is one unit of the axes."""
    axes.imshow(np.asarray(image), extent=(0, image.width, image.height, 0), interpolation="lanczos")
    axes.set_xlim(0, image.width)
    axes.set_ylim(image.height, 0)


def frame(axes: Axes, box: tuple[float, float, float, float], ink: str, fill: float = 0.0) -> None:
    """Draw a frame (left, top, width, height)."""
    left, top, width, height = box
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=ink, linewidth=2.5))
    if fill:
        axes.add_patch(Rectangle((left, top), width, height, color=ink, alpha=fill, linewidth=0))


def save(whole: Figure, path: Path) -> None:
    """Write a figure as PNG with a transparent background."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.savefig(path, transparent=True, dpi=DPI)
    with Image.open(path) as image:
        image.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
