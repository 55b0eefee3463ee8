"""Plots: every figure with its interval, and what coherence costs in fidelity and in seconds."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from synccontrol.evaluate.compare import Scored
from synccontrol.evaluate.measurement import Measurement
from synccontrol.evaluate.report import bounds, metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect

INK, SOFT = "#222222", "#8a8a8a"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#56a0d3", "#5c5c5c")  # told apart by all eyes
PANEL = (4.6, 3.3)  # inches
DPI = 130
METRICS = "metrics.png"  # every figure with its interval
COLUMNS = 3  # panels in a row
LABEL_STEP = 11  # points between labels that would cover each other
_STYLE: Any = {  # matplotlib's type lists every name it has
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}

Point = tuple[float, float, float]  # value, low, high
Named = tuple[float, float, str, str]  # x, y, what to write beside it, in which colour


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot that is ready to be shown."""

    file: str  # a name for it
    caption: str
    png: bytes


def all_of(folders: Sequence[Scored]) -> list[Plot]:
    """Returns the plots that the folders have figures for; those of costs only for several folders."""
    drawn = [
        (METRICS, "Every figure with its interval, and every montage", intervals(folders)),
        *(
            (
                ("fidelity.png", "Coherence against fidelity", coherence_against_fidelity(folders)),
                ("seconds.png", "Coherence against seconds", coherence_against_seconds(folders)),
            )
            if len(folders) > 1
            else ()
        ),
    ]
    return [Plot(file=file, caption=caption, png=png) for file, caption, png in drawn if png]


def intervals(folders: Sequence[Scored]) -> bytes:
    """Returns a PNG with a panel for every metric: its value and 95 % interval in every folder, montages as dots."""
    known = metrics(folders)
    height = 0.9 + 0.34 * len(folders)
    return _png(len(known), height, lambda axes, index: _interval_panel(axes, known[index], folders))


def coherence_against_fidelity(folders: Sequence[Scored]) -> bytes | None:
    """Returns a PNG with a panel for every coherence metric, fidelity on the x axis; None without both.

    Fidelity is KID where it was measured (with few pictures it is the one without bias), else the first there is.
    """
    fidelity = [metric for metric in metrics(folders) if metric.group == "fidelity"]
    chosen = next((metric for metric in fidelity if metric.metric.startswith("KID")), None) or next(
        iter(fidelity), None
    )
    if chosen is None:
        return None

    def across(folder: Scored) -> Point | None:
        return _point(folder.measurement(chosen.metric))

    return _frontiers(folders, _axis(chosen), across, chosen.better)


def coherence_against_seconds(folders: Sequence[Scored]) -> bytes | None:
    """Returns a PNG with a panel for every coherence metric, the median seconds of a montage on the x axis.

    The bar reaches from the fastest to the slowest montage. None where no folder has timings.
    """

    def across(folder: Scored) -> Point | None:
        taken = list(folder.seconds.values())
        return (statistics.median(taken), min(taken), max(taken)) if taken else None

    return _frontiers(folders, "seconds per montage (median; fastest to slowest)", across, "lower")


def frontier(points: Sequence[tuple[float, float]], better: tuple[str, str]) -> list[tuple[float, float]]:
    """Returns the points (x, y) that no other is better than, or as good as, in both, sorted by x.

    Args:
        points: their coordinates.
        better: "lower" or "higher", of x and of y.
    """
    signs = [1 if side == "lower" else -1 for side in better]

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            other != point and all(sign * o <= sign * p for sign, o, p in zip(signs, other, point, strict=True))
            for other in points
        )

    return sorted({point for point in points if not beaten(point)})


def _frontiers(
    folders: Sequence[Scored], label: str, across: Callable[[Scored], Point | None], better: str
) -> bytes | None:
    """Returns a PNG with a panel for every coherence metric over `across`, of the folders that have a value there."""
    shown = [folder for folder in folders if across(folder)]
    panels = [metric for metric in metrics(shown) if metric.group == "coherence"]
    if not shown or not panels:
        return None

    def draw(axes: "Axes", index: int) -> list[Named]:
        points: list[Named] = []
        for folder, colour in zip(shown, itertools.cycle(PALETTE), strict=False):
            x, y = across(folder), _point(folder.measurement(panels[index].metric))
            if x is None or y is None:
                continue
            axes.errorbar(x[0], y[0], xerr=_bar(x), yerr=_bar(y), fmt="none", ecolor=colour, elinewidth=1)
            axes.plot(x[0], y[0], "o", color=colour, zorder=5)  # above the names
            points.append((x[0], y[0], folder.label, colour))
        line = frontier([(x, y) for x, y, _, _ in points], (better, panels[index].better))
        axes.plot([x for x, _ in line], [y for _, y in line], color=SOFT, linewidth=0.8, linestyle="--", zorder=0)
        axes.set_xlabel(label)
        axes.set_ylabel(_axis(panels[index]))
        axes.margins(0.15)
        return points

    return _png(len(panels), PANEL[1], draw)


def _label(axes: "Axes", points: Sequence[Named]) -> None:
    """Writes a name beside every point, pushed up where it would cover the one below."""
    from matplotlib import patheffects

    taken: list[tuple[float, float, float]] = []  # left, right, bottom in points of the page
    scale = 72 / axes.figure.dpi
    halo: list[AbstractPathEffect] = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    for x, y, name, colour in sorted(points, key=lambda point: (point[1], point[0])):
        left, bottom = (scale * value for value in axes.transData.transform((x, y)))
        right, lifted = left + 5.2 * len(name), bottom + 3
        for other_left, other_right, other in sorted(taken, key=lambda box: box[2]):
            if left < other_right and other_left < right and abs(lifted - other) < LABEL_STEP:
                lifted = other + LABEL_STEP
        taken.append((left, right, lifted))
        text = axes.annotate(name, (x, y), (4, lifted - bottom), textcoords="offset points", fontsize=8, color=colour)
        text.set_path_effects(halo)


def _interval_panel(axes: "Axes", metric: Measurement, folders: Sequence[Scored]) -> list[Named]:
    for row, folder in enumerate(folders):
        found = folder.measurement(metric.metric)
        if found is None:
            continue
        dots = list(found.values.values())
        axes.plot(dots, [row] * len(dots), "|", color=SOFT, markersize=7, zorder=1)
        point = _point(found)
        if point:
            axes.errorbar(point[0], row, xerr=_bar(point), fmt="o", color=PALETTE[0], elinewidth=2, capsize=3, zorder=2)
        for colour, (what, bound) in zip(PALETTE[1:], found.bounds.items(), strict=False):
            axes.plot([bound] * 2, [row - 0.35, row + 0.35], color=colour, linewidth=1.5, label=what if not row else "")
    axes.set_yticks(range(len(folders)), [folder.label for folder in folders])
    axes.set_ylim(len(folders) - 0.4, -0.6)
    axes.set_title(_axis(metric), fontsize=9, loc="left")
    if bounds(metric):
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18 - 0.12 / len(folders)), ncols=2)
    return []


def _axis(metric: Measurement) -> str:
    return f"{metric.metric} ({'best at 1' if metric.better == '1' else f'{metric.better} is better'})"


def _point(found: Measurement | None) -> Point | None:
    return None if found is None or math.isnan(found.value) else (found.value, found.low, found.high)


def _bar(point: Point) -> list[list[float]] | None:
    """Returns how far an interval reaches below and above its value, as matplotlib wants it; None without one."""
    value, low, high = point
    return None if math.isnan(low) else [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _png(panels: int, height: float, draw: Callable[["Axes", int], list[Named]]) -> bytes:
    """Returns a PNG of panels in rows of `COLUMNS`, each drawn by `draw(axes, index)`, which returns what to label."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(PANEL[0] * columns, height * rows), dpi=DPI, layout="constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        named = [(axes, draw(axes, index)) for index, axes in enumerate(grid[:panels])]
        for axes in grid[panels:]:
            axes.set_visible(False)
        figure.draw_without_rendering()  # lays out: only now it is known where on the page points are
        for axes, points in named:
            _label(axes, points)
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
