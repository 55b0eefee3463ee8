"""HTML reports: the evaluation page with its plots, and contact sheets."""

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
    all_metrics,
    better_text,
    bounds_text,
    format_interval,
    format_number,
    verdict_text,
)
from synccontrol.evaluate.scoring import Difference, FolderScores
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
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#aa4499",
    "#8a6d00",
    "#56a0d3",
    "#5c5c5c",
)  # distinguishable with colour blindness
PANEL = (4.6, 3.3)  # inches
DPI = 130
METRICS = "metrics.png"  # plot of all metrics with intervals
COLUMNS = 3  # panels in a row
LABEL_STEP = 11  # points between overlapping labels
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
PointLabel = tuple[float, float, str, str]  # x, y, text, colour


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A rendered plot."""

    file: str  # file name
    caption: str
    png: bytes


def make_plots(folders: Sequence[FolderScores]) -> list[Plot]:
    """Return the plots that the folders have figures for; coherence against cost only for several folders."""
    plots = [
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
    return [Plot(file=file, caption=caption, png=png) for file, caption, png in plots if png]


def intervals(folders: Sequence[FolderScores]) -> bytes:
    """Return a PNG with a panel per metric: value, 95 % interval and single montages of every folder."""
    known = all_metrics(folders)
    height = 0.9 + 0.34 * len(folders)
    return _png(len(known), height, lambda axes, index: _interval_panel(axes, known[index], folders))


def coherence_against_fidelity(folders: Sequence[FolderScores]) -> bytes | None:
    """Return a PNG with a panel per coherence metric, fidelity on the x axis; None without both.

    Fidelity is KID if it was measured (it is unbiased for few images), else the first fidelity metric.
    """
    fidelity = [metric for metric in all_metrics(folders) if metric.group == "fidelity"]
    fidelity_metric = next((metric for metric in fidelity if metric.metric.startswith("KID")), None) or next(
        iter(fidelity), None
    )
    if fidelity_metric is None:
        return None

    def across(folder: FolderScores) -> Point | None:
        return _point(folder.measurement(fidelity_metric.metric))

    return _frontiers(folders, _axis(fidelity_metric), across, fidelity_metric.better)


def coherence_against_seconds(folders: Sequence[FolderScores]) -> bytes | None:
    """Return a PNG with a panel per coherence metric, the median seconds of a montage on the x axis.

    The bar spans the fastest to the slowest montage. The result is None if no folder has timings.
    """

    def across(folder: FolderScores) -> Point | None:
        taken = list(folder.seconds.values())
        return (statistics.median(taken), min(taken), max(taken)) if taken else None

    return _frontiers(folders, "seconds per montage (median; fastest to slowest)", across, "lower")


def frontier(points: Sequence[tuple[float, float]], better: tuple[str, str]) -> list[tuple[float, float]]:
    """Return the Pareto frontier: the points (x, y) that no other point equals or beats in both, sorted by x.

    Args:
        points: their coordinates.
        better: "lower" or "higher", for x and for y.
    """
    signs = [1 if side == "lower" else -1 for side in better]

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            other != point and all(sign * o <= sign * p for sign, o, p in zip(signs, other, point, strict=True))
            for other in points
        )

    return sorted({point for point in points if not beaten(point)})


def _frontiers(
    folders: Sequence[FolderScores], label: str, across: Callable[[FolderScores], Point | None], better: str
) -> bytes | None:
    """Return a PNG with a panel per coherence metric over `across`, for the folders with a value there."""
    folders_shown = [folder for folder in folders if across(folder)]
    panels = [metric for metric in all_metrics(folders_shown) if metric.group == "coherence"]
    if not folders_shown or not panels:
        return None

    def draw(axes: "Axes", index: int) -> list[PointLabel]:
        points: list[PointLabel] = []
        for folder, colour in zip(folders_shown, itertools.cycle(PALETTE), strict=False):
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


def _label(axes: "Axes", points: Sequence[PointLabel]) -> None:
    """Write a name next to every point, moved up to avoid the one below."""
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


def _interval_panel(axes: "Axes", metric: Measurement, folders: Sequence[FolderScores]) -> list[PointLabel]:
    for row, folder in enumerate(folders):
        measurement = folder.measurement(metric.metric)
        if measurement is None:
            continue
        dots = list(measurement.values.values())
        axes.plot(dots, [row] * len(dots), "|", color=SOFT, markersize=7, zorder=1)
        point = _point(measurement)
        if point:
            axes.errorbar(point[0], row, xerr=_bar(point), fmt="o", color=PALETTE[0], elinewidth=2, capsize=3, zorder=2)
        for colour, (what, bound) in zip(PALETTE[1:], measurement.bounds.items(), strict=False):
            axes.plot([bound] * 2, [row - 0.35, row + 0.35], color=colour, linewidth=1.5, label=what if not row else "")
    axes.set_yticks(range(len(folders)), [folder.label for folder in folders])
    axes.set_ylim(len(folders) - 0.4, -0.6)
    axes.set_title(_axis(metric), fontsize=9, loc="left")
    if bounds_text(metric):
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18 - 0.12 / len(folders)), ncols=2)
    return []


def _axis(metric: Measurement) -> str:
    return f"{metric.metric} ({'best at 1' if metric.better == '1' else f'{metric.better} is better'})"


def _point(measurement: Measurement | None) -> Point | None:
    return (
        None
        if measurement is None or math.isnan(measurement.value)
        else (measurement.value, measurement.low, measurement.high)
    )


def _bar(point: Point) -> list[list[float]] | None:
    """Return an interval's distances below and above its value, as matplotlib takes them; None without an interval."""
    value, low, high = point
    return None if math.isnan(low) else [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _png(panels: int, height: float, draw: Callable[["Axes", int], list[PointLabel]]) -> bytes:
    """Return a PNG of panels in rows of `COLUMNS`. `draw(axes, index)` draws one and returns its labels."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(PANEL[0] * columns, height * rows), dpi=DPI, layout="constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        labels = [(axes, draw(axes, index)) for index, axes in enumerate(grid[:panels])]
        for axes in grid[panels:]:
            axes.set_visible(False)
        figure.draw_without_rendering()  # computes the layout, which the label positions need
        for axes, points in labels:
            _label(axes, points)
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


LONGEST_SIDE = 1024  # px of an image in the page, so that a report of 100 wide montages stays small
QUALITY = 80  # JPEG quality


def html_page(
    folders: Sequence[FolderScores],
    differences: Sequence[Difference],
    plots: Sequence[Plot],
    files: Mapping[str, Mapping[str, Path]],
) -> str:
    """Return the evaluation report as an HTML page.

    Args:
        folders: the folders, shown side by side.
        differences: differences of the other folders from the first.
        plots: plots in their order.
        files: by montage name, its image files by label, as `montage_files` returns them.
    """
    names = " and ".join(folder.label for folder in folders)
    parts = [
        f"<h1>Montages of {escape(names)}</h1>",
        "<p>Every figure is a mean over montages with its 95 % bootstrap interval; n is how many there are. "
        "Coherence alone says little: one crop repeated is perfectly coherent, so read fidelity beside it.</p>",
        *(_section(folders, group) for group in QUESTIONS),
        *(
            _difference_section(differences, other)
            for other in dict.fromkeys(difference.other for difference in differences)
        ),
        _missing(folders),
        *(f"<h2>{escape(plot.caption)}</h2>{_inline(plot.png, 'png', plot.caption)}" for plot in plots),
        "<h2>Images</h2>",
        *(_montage_section(montage, paths, folders) for montage, paths in files.items()),
    ]
    head = f'<meta charset="utf-8"><title>Montages of {escape(names)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def montage_files(
    folders: Sequence[FolderScores], galleries: Sequence[Gallery], settings: Settings
) -> dict[str, dict[str, Path]]:
    """Return the files to show: by montage name, its guides and its file in every folder, by label.

    Args:
        folders: the folders.
        galleries: montages of the folders.
        settings: evaluation settings.
    """
    files: dict[str, dict[str, Path]] = {}
    for folder, gallery in zip(folders, galleries, strict=True):
        if settings.guides is not None and "control" in settings.groups:
            for (control, name), path in guide_files(gallery, settings)[0].items():
                files.setdefault(name, {})[f"guide ({control})"] = path
        for montage in gallery.montages:
            files.setdefault(montage.name, {})[folder.label] = montage.path
    return dict(sorted(files.items()))


def _section(folders: Sequence[FolderScores], group: str) -> str:
    """Return the table of a group; empty if no folder has a figure of the group."""
    rows = []
    for metric in all_metrics(folders):
        if metric.group != group:
            continue
        description = f"{escape(metric.what)} {escape(metric.source)}."
        cells = []
        for folder in folders:
            measurement = folder.measurement(metric.metric)
            bounds_note = f"<small>{escape(bounds_text(measurement))}</small>" if measurement else ""
            cells.append(f"{format_interval(measurement)}, n {measurement.n}{bounds_note}" if measurement else DASH)
        rows.append([f"{escape(metric.metric)}<small>{description}</small>", better_text(metric), *cells])
    head = ["metric", "better is", *(escape(folder.label) for folder in folders)]
    return f"<h2>{group.capitalize()}: {QUESTIONS[group]}</h2>{_table(head, rows)}" if rows else ""


def _difference_section(differences: Sequence[Difference], other: str) -> str:
    selected = [difference for difference in differences if difference.other == other]
    title = escape(f"{other} minus {selected[0].baseline}, montage by montage of the same name")
    rows = []
    for difference in selected:
        verdict_html = f'<span class="{difference.verdict}">{escape(verdict_text(difference))}</span>'
        rows.append([escape(difference.metric), format_interval(difference), str(difference.n), verdict_html])
    return f"<h2>{title}</h2>{_table(['metric', 'difference', 'pairs', f'{escape(other)} is'], rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td{_kind(place)}>{cell}</td>" for place, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def _kind(place: int) -> str:
    return ' class="figure"' if place else ""


def _missing(folders: Sequence[FolderScores]) -> str:
    pairs = dict.fromkeys(pair for folder in folders for pair in folder.scores.skipped)
    items = "".join(f"<li>{escape(metric)}: {escape(why)}</li>" for metric, why in pairs)
    return f"<h2>Not measured</h2><ul>{items}</ul>" if items else ""


def _montage_section(montage: str, files: Mapping[str, Path], folders: Sequence[FolderScores]) -> str:
    by_label = {folder.label: folder for folder in folders}
    figures = []
    for label, path in files.items():
        details = [label, *(_montage_details(by_label[label], montage) if label in by_label else ())]
        caption = escape(" · ".join(details))
        try:
            figure_html = _inline(_jpeg(path), "jpeg", f"{montage}, {label}")
        except InputError as error:  # only a guide can fail here: the montages were read before
            figure_html = f"<p>{escape(str(error))}</p>"
        figures.append(f"<figure>{figure_html}<figcaption>{caption}</figcaption></figure>")
    return f"<h3>{escape(montage)}</h3>{''.join(figures)}"


def _montage_details(folder: FolderScores, montage: str) -> list[str]:
    """Return the figures of one montage: coherence, control and seconds."""
    measurements = [
        measurement for measurement in folder.scores.measurements if measurement.group in ("coherence", "control")
    ]
    details = [
        f"{measurement.metric} {format_number(measurement.values[montage])}"
        for measurement in measurements
        if montage in measurement.values
    ]
    return [*details, *([f"{format_number(folder.seconds[montage])} s"] if montage in folder.seconds else [])]


def _jpeg(path: Path) -> bytes:
    image = images.open_image(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _inline(data: bytes, kind: str, text: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{encoded}">'


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContactSheetEntry:
    """One image of a batch."""

    title: str
    caption: str  # details: prompt, seed, seconds
    error: str = ""
    images: tuple[tuple[str, Path], ...]  # label and file of each image


def contact_sheet(title: str, entries: Sequence[ContactSheetEntry], folder: Path) -> str:
    """Return a contact sheet as an HTML page. Images are linked, not embedded, so the page stays small.

    Args:
        title: title of the page.
        entries: entries in their order.
        folder: folder of the contact sheet; links are relative to it.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *(_sheet_entry(entry, folder) for entry in entries)])
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def _sheet_entry(entry: ContactSheetEntry, folder: Path) -> str:
    figures = "".join(_figure(label, path, folder, entry.title) for label, path in entry.images)
    error = f'<p class="worse">{escape(_encodable(entry.error))}</p>' if entry.error else ""
    details = f"<p><small>{escape(_encodable(entry.caption))}</small></p>"
    return f"<h2>{escape(_encodable(entry.title))}</h2>{details}{error}{figures}"


def _figure(label: str, path: Path, folder: Path, title: str) -> str:
    link = quote(os.fsencode(os.path.relpath(path, folder)))
    text = escape(_encodable(f"{title}, {label}"), quote=True)
    return (
        f'<figure><a href="{link}"><img loading="lazy" alt="{text}" src="{link}"></a>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def _encodable(text: str) -> str:
    """Replace the characters of a file name that UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")
