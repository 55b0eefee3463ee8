"""The report as one HTML file that needs nothing else: tables, plots and pictures are inside it."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from synccontrol.errors import InputError
from synccontrol.evaluate.compare import Difference, Scored
from synccontrol.evaluate.guides import guide_files
from synccontrol.evaluate.measurement import Settings
from synccontrol.evaluate.pictures import Gallery
from synccontrol.evaluate.plots import Plot
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
from synccontrol.evaluate.style import STYLE
from synccontrol.files import images

LONGEST_SIDE = 1024  # px of a picture in the page; a file of 100 wide montages stays small enough for a mail
QUALITY = 80  # of their JPEG


def page(
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


def pictures(folders: Sequence[Scored], galleries: Sequence[Gallery], settings: Settings) -> dict[str, dict[str, Path]]:
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
