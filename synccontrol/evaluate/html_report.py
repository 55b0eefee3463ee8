"""How HTML pages look."""

import base64
import dataclasses
import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image

from synccontrol.errors import InputError
from synccontrol.evaluate.dataset import Gallery, guide_files
from synccontrol.evaluate.measurement import Measurement, Settings
from synccontrol.evaluate.report import (
    DASH,
    QUESTIONS,
    best,
    bounds,
    metrics,
    number,
    verdict,
    with_interval,
)
from synccontrol.evaluate.scoring import Difference, Scored
from synccontrol.io import images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 68rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd; }
th { font-weight: 600; } td.figure { white-space: nowrap; font-variant-numeric: tabular-nums; }
small { color: #666; display: block; max-width: 42rem; }
.better { color: #00694b; font-weight: 600; } .worse { color: #a33b00; font-weight: 600; }
figure { margin: 0 0 .6rem; } figcaption { font-size: .85rem; color: #444; }
img { max-width: 100%; height: auto; display: block; }
"""


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


LONGEST_SIDE = 1024  # px of a picture in the page; a file of 100 wide montages stays small enough for a mail
QUALITY = 80  # of their JPEG


def html_page(
    folders: Sequence[Scored],
    differences: Sequence[Difference],
    plots: Sequence[Plot],
    shown: Mapping[str, Mapping[str, Path]],
) -> str:
    """Returns the report.

    Args:
        folders: their figures stand side by side.
        differences: of the others from the first.
        plots: shown in their order.
        shown: by montage name, the pictures below each other by what to call them, as `pictures` returns them.
    """
    names = " and ".join(folder.label for folder in folders)
    parts = [
        f"<h1>Montages of {escape(names)}</h1>",
        "<p>Every figure is a mean over montages with its 95 % bootstrap interval; n is how many there are. "
        "Coherence alone says little: one crop repeated is perfectly coherent, so read fidelity beside it.</p>",
        *(_section(folders, group) for group in QUESTIONS),
        *(_difference_section(differences, other) for other in dict.fromkeys(found.other for found in differences)),
        _missing(folders),
        *(f"<h2>{escape(plot.caption)}</h2>{_inline(plot.png, 'png', plot.caption)}" for plot in plots),
        "<h2>Pictures</h2>",
        *(_pictures(montage, files, folders) for montage, files in shown.items()),
    ]
    head = f'<meta charset="utf-8"><title>Montages of {escape(names)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def montage_files(
    folders: Sequence[Scored], galleries: Sequence[Gallery], settings: Settings
) -> dict[str, dict[str, Path]]:
    """Returns what to show: by montage name, its guides and then its file in every folder, by what to call them.

    Args:
        folders: the folders.
        galleries: their montages.
        settings: how they were scored.
    """
    shown: dict[str, dict[str, Path]] = {}
    for folder, gallery in zip(folders, galleries, strict=True):
        if settings.guides is not None and "control" in settings.groups:
            for (control, name), path in guide_files(gallery, settings)[0].items():
                shown.setdefault(name, {})[f"guide ({control})"] = path
        for montage in gallery.montages:
            shown.setdefault(montage.name, {})[folder.label] = montage.path
    return dict(sorted(shown.items()))


def _section(folders: Sequence[Scored], group: str) -> str:
    """Returns a group's table; nothing if no folder has a figure of the group."""
    rows = []
    for metric in metrics(folders):
        if metric.group != group:
            continue
        about = f"{escape(metric.what)} {escape(metric.source)}."
        cells = []
        for folder in folders:
            found = folder.measurement(metric.metric)
            against = f"<small>{escape(bounds(found))}</small>" if found else ""
            cells.append(f"{with_interval(found)}, n {found.n}{against}" if found else DASH)
        rows.append([f"{escape(metric.metric)}<small>{about}</small>", best(metric), *cells])
    head = ["metric", "better is", *(escape(folder.label) for folder in folders)]
    return f"<h2>{group.capitalize()}: {QUESTIONS[group]}</h2>{_table(head, rows)}" if rows else ""


def _difference_section(differences: Sequence[Difference], other: str) -> str:
    shown = [found for found in differences if found.other == other]
    title = escape(f"{other} minus {shown[0].baseline}, montage by montage of the same name")
    rows = []
    for found in shown:
        words = f'<span class="{found.verdict}">{escape(verdict(found))}</span>'
        rows.append([escape(found.metric), with_interval(found), str(found.n), words])
    return f"<h2>{title}</h2>{_table(['metric', 'difference', 'pairs', f'{escape(other)} is'], rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td{_kind(place)}>{cell}</td>" for place, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def _kind(place: int) -> str:
    return ' class="figure"' if place else ""


def _missing(folders: Sequence[Scored]) -> str:
    pairs = dict.fromkeys(pair for folder in folders for pair in folder.scores.skipped)
    items = "".join(f"<li>{escape(metric)}: {escape(why)}</li>" for metric, why in pairs)
    return f"<h2>Not measured</h2><ul>{items}</ul>" if items else ""


def _pictures(montage: str, files: Mapping[str, Path], folders: Sequence[Scored]) -> str:
    by_label = {folder.label: folder for folder in folders}
    figures = []
    for label, path in files.items():
        said = [label, *(_said(by_label[label], montage) if label in by_label else ())]
        caption = escape(" · ".join(said))
        try:
            shown = _inline(_jpeg(path), "jpeg", f"{montage}, {label}")
        except InputError as error:  # a guide; montages have been read
            shown = f"<p>{escape(str(error))}</p>"
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    return f"<h3>{escape(montage)}</h3>{''.join(figures)}"


def _said(folder: Scored, montage: str) -> list[str]:
    """Returns what is known about one montage: its figures of coherence and control, and its seconds."""
    known = [found for found in folder.scores.measurements if found.group in ("coherence", "control")]
    said = [f"{found.metric} {number(found.values[montage])}" for found in known if montage in found.values]
    return [*said, *([f"{number(folder.seconds[montage])} s"] if montage in folder.seconds else [])]


def _jpeg(path: Path) -> bytes:
    picture = images.open_image(path)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _inline(data: bytes, kind: str, text: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{encoded}">'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of a batch."""

    title: str
    said: str  # what is known of it: prompt, seed, seconds
    error: str = ""
    shown: tuple[tuple[str, Path], ...]  # what to call each picture, and its file


def contact_sheet(title: str, entries: Sequence[Entry], folder: Path) -> str:
    """Returns the sheet. Pictures are linked, not held, so that it stays small however many there are.

    Args:
        title: of the whole.
        entries: in their order.
        folder: where the sheet will lie; links are relative to it.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *(_sheet_entry(entry, folder) for entry in entries)])
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def _sheet_entry(entry: Entry, folder: Path) -> str:
    figures = "".join(_figure(label, path, folder, entry.title) for label, path in entry.shown)
    error = f'<p class="worse">{escape(_plain(entry.error))}</p>' if entry.error else ""
    return f"<h2>{escape(_plain(entry.title))}</h2><p><small>{escape(_plain(entry.said))}</small></p>{error}{figures}"


def _figure(label: str, path: Path, folder: Path, title: str) -> str:
    link = quote(os.fsencode(os.path.relpath(path, folder)))
    text = escape(_plain(f"{title}, {label}"), quote=True)
    return (
        f'<figure><a href="{link}"><img loading="lazy" alt="{text}" src="{link}"></a>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def _plain(text: str) -> str:
    """Returns a text that UTF-8 can hold, whatever bytes a file's name has."""
    return text.encode("utf-8", "replace").decode("utf-8")
