"""The results page: tables by control, what methods differ by, plots, and pictures below each other."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.frontier import scoring
from benchmarks.frontier.draw import Studio, cell, guides
from benchmarks.frontier.material import NONE, SPECIFIC, VAGUE, item_name
from benchmarks.frontier.methods import RENDERED
from synccontrol.evaluate import html_report, report
from synccontrol.evaluate.scoring import Difference, FolderScores
from synccontrol.io import images

ALL = "all"  # controls together
LABEL = 18  # px above a picture of a strip
STRIP_WIDTH = 1024  # px
ARROWS = {"lower": "↓", "higher": "↑", "1": "→ 1"}
KINDS = {
    "": "all montages",
    VAGUE: "vague prompts only: what sync must repair",
    SPECIFIC: "specific prompts only",
}

DIFFERENCES = """Second minus first, montage by montage of the same guide, prompt and seed, over all controls; where 1
is best, of the distances from 1. In brackets the 95 % bootstrap interval over montages; **bold**: it excludes 0. The n
is the number of pairs."""


def write(
    studio: Studio,
    out: Path,
    cells: Mapping[str, Sequence[FolderScores]],
    whole: Sequence[FolderScores],
    about: Mapping[str, str],
) -> Path:
    """Returns the results page, written into `out/results` with its plots, pictures, JSON and CSV.

    Args:
        studio: what the montages were drawn with.
        out: the bench's folder.
        cells: scored methods by control.
        whole: the fidelity of methods, over all controls.
        about: how the run was made, by what it is.
    """
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    compared = {kind: scoring.differences(cells, kind) for kind in KINDS}
    together = scoring.together(cells, whole)
    report.write_csv(scoring.rows({ALL: together, **cells}), folder / "results.csv")
    values = {
        "run": dict(about),
        "methods": {name: method.about for name, method in studio.methods.items()},
        "controls": {
            name: [report.as_json(one) for one in scored] for name, scored in {ALL: together, **cells}.items()
        },
        "CPU seconds": {one.label: scoring.cpu_seconds(out / one.folder) for one in together},
        "differences": {kind or "all": [report.difference_json(one) for one in compared[kind]] for kind in KINDS},
    }
    report.write_json(values, folder / "results.json")
    parts = [_head(studio, about), "## All controls together", _table(out, together), *_plots(folder, together)]
    for control, scored in cells.items():
        parts += [f"## {_title(control)}", _table(out, scored)]
        strip(out, control, [one.label for one in scored]).save(folder / f"{control}.jpg", quality=85)
        first = "from the guide down" if control != NONE else "from the rendered scene down"
        parts.append(f"The first montage (vague prompt), {first}:\n\n![{control}]({control}.jpg)")
    parts += ["## What methods differ by", DIFFERENCES]
    parts += [
        f"### {KINDS[kind][0].upper()}{KINDS[kind][1:]}\n\n{_differences(compared[kind])}"
        for kind in KINDS
        if compared[kind]
    ]
    page = folder / "RESULTS.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def _head(studio: Studio, about: Mapping[str, str]) -> str:
    facts = "\n".join(f"| {name} | {value} |" for name, value in about.items())
    methods = "\n".join(f"| `{name}` | {method.about} |" for name, method in studio.methods.items())
    return (
        "# Coherent, controlled montages: results\n\n"
        "Written by `python -m benchmarks.frontier`; `benchmarks/frontier/README.md` says what is "
        "drawn and why, `docs/evaluation.md` what the figures mean. Every figure is a mean over the montages of a "
        "method, with its 95 % bootstrap interval over montages; the arrow says which values are better.\n\n"
        f"| Run | |\n|---|---|\n{facts}\n\n| Method | |\n|---|---|\n{methods}\n"
        f"| `{RENDERED}` | the rendered scenes that the guides come from, scored in the same way |"
    )


def _title(control: str) -> str:
    return "Without control" if control == NONE else f"Control: {control}"


def _table(out: Path, scored: Sequence[FolderScores]) -> str:
    """Returns a row per metric and a column per method."""
    rows = [
        ["montages", *(str(max(found.n for found in one.scores.measurements)) for one in scored)],
        ["seconds (median)", *(_median(list(one.seconds.values())) for one in scored)],
        ["CPU seconds (median)", *(_median(scoring.cpu_seconds(out / one.folder)) for one in scored)],
    ]
    for metric in report.all_metrics(scored):
        figures = [one.measurement(metric.metric) for one in scored]
        cells = [report.format_interval(found) if found else report.DASH for found in figures]
        rows.append([f"{metric.metric} {ARROWS[metric.better]}", *cells])
    return _markdown(["", *(f"`{one.label}`" for one in scored)], rows)


def _differences(found: Sequence[Difference]) -> str:
    """Returns a row per metric and a column per pair of methods."""
    pairs = list(dict.fromkeys((one.baseline, one.other) for one in found))
    known = {(one.metric, one.baseline, one.other): one for one in found}
    rows = []
    for metric in dict.fromkeys(one.metric for one in found):
        cells = []
        for pair in pairs:
            one = known.get((metric, *pair))
            text = f"{report.format_interval(one)}, n {one.n}" if one else report.DASH
            cells.append(f"**{text}**" if one and one.verdict != "open" else text)
        better = next(one.better for one in found if one.metric == metric)
        rows.append([f"{metric} ({better} is better)", *cells])
    return _markdown(["", *(f"`{baseline}` → `{other}`" for baseline, other in pairs)], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _median(values: Sequence[float]) -> str:
    return report.format_number(statistics.median(values)) if values else report.DASH


def _plots(folder: Path, scored: Sequence[FolderScores]) -> list[str]:
    """Returns the plots of what coherence costs as Markdown, having written them."""
    parts = []
    for plot in html_report.make_plots(scored):
        if plot.file != html_report.METRICS:
            (folder / plot.file).write_bytes(plot.png)
            parts.append(f"![{plot.caption}]({plot.file})")
    return parts


def strip(out: Path, control: str, methods: Sequence[str]) -> Image.Image:
    """Returns the first montage of every method below each other, under their names; above them the guide."""
    file = f"{item_name(0)}.png"
    paths = {"guide": guides(out, control) / file, **{method: cell(out, control, method) / file for method in methods}}
    shown: list[tuple[str, Image.Image]] = []
    for label, path in paths.items():
        if path.exists():
            picture = images.open_image(path)
            size = (STRIP_WIDTH, round(picture.height * STRIP_WIDTH / picture.width))
            shown.append((label, picture.resize(size, Image.Resampling.LANCZOS)))
    height = sum(image.height + LABEL for _, image in shown)
    sheet = Image.new("RGB", (STRIP_WIDTH, height), "white")
    write_on, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL - 4), 0
    for label, image in shown:
        write_on.text((4, top), label, fill="black", font=font)
        sheet.paste(image, (0, top + LABEL))
        top += image.height + LABEL
    return sheet
