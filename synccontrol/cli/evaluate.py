"""`synccontrol evaluate`: score folders of montages, also as python -m synccontrol.evaluate FOLDER [FOLDER2 ...]"""

import argparse
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synccontrol.cli.parser import add_flags
from synccontrol.cli.terminal import Parser, status
from synccontrol.errors import InputError, OutputError
from synccontrol.evaluate.measurement import HOW, WHAT, Progress, Settings
from synccontrol.spec.schema import flags, read_config

if TYPE_CHECKING:
    from synccontrol.evaluate.scoring import Difference, FolderScores

PROGRAM = "python -m synccontrol.evaluate"
PAGE = "report.html"
WIDTH = 100  # characters of a line of help
DESCRIPTION = """Measures montages (wide images made of many windows), with 95 % intervals. Give one folder, or several
to compare: montages of the same name are compared in pairs, and the first folder is the baseline. Any folder of images
will do, by any program. Without further flags it measures whether a montage is one scene; --reference adds whether it
looks like real images, --guides whether it follows its guide."""
METRICS = {
    "coherence: are all windows of a montage one scene?": {
        "Intra-LPIPS": "how different two windows of a montage look to a network trained on human judgements; 0: equal",
        "Intra-ST-LPIPS": "the same by a network that forgives small shifts (its weights come with the installation)",
        "Intra-Style-L": "how different textures and colours of two windows are, wherever they lie in the window",
        "embedding similarity": "how alike the content of two windows is, -1 to 1; 1: the same things",
    },
    "fidelity: does it look like the reference, and like the prompt? (a collapsed montage is coherent, too)": {
        "FID": "distance of the set of windows from the set of reference images; too high with few images",
        "KID": "the same without that bias: 0 on average for images just like the reference; use it with few",
        "Mean-GIQA": "how near a window is to its nearest reference images",
        "CLIP score": "how well windows fit the prompt that is recorded in the montage",
    },
    "control: does it follow its guide? The map is detected in the montage and compared": {
        "canny F1": "how well the edges match those of the guide, 0 to 1",
        "depth RMSE": "error of the depth against the guide's, 0 to 255; as it is, and after the best scale and shift",
        "SSIM": "how alike soft edges are to the guide's, up to 1",
        "pose PCK": "share of the people's joints that are in their places, 0 to 1",
        "pose OKS": "how well the people match those of the guide, 0 to 1",
    },
    "seams: do the borders of windows show?": {
        "Discontinuity Score": "how much sharper the image changes at a border than beside it; 1 over other columns: "
        "a seam that nobody can see",
        "colour step": "how far the colour jumps at a border, 0 to 255",
    },
}


def build_parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of `Settings`."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} FOLDER [FOLDER ...] [flags]",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=WIDTH),
        description=textwrap.fill(" ".join(DESCRIPTION.split()), WIDTH),
        epilog=_glossary(),
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="montages, all of one size")
    groups = {title: parser.add_argument_group(title) for title in (WHAT, HOW)}
    add_flags((flag, groups[flag.setting.group], flag.default) for flag in flags(Settings).values())
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for JSON, CSV, plots and an HTML report (default: none)"
    )
    output.add_argument("--overwrite", action="store_true", help="replace an existing report")
    output.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _glossary() -> str:
    lines = []
    for question, members in METRICS.items():
        lines += ["", question]
        for metric, text in members.items():
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {metric:21} ", subsequent_indent=" " * 24)
    last = "Definitions, sources and how to read the figures: docs/evaluation.md"
    return "\n".join([*lines[1:], "", last])


def settings(args: argparse.Namespace) -> Settings:
    """Return the settings of the flags. Raises `ConfigError` for a value outside its range."""
    return Settings(**read_config(Settings, vars(args)))


def run(args: argparse.Namespace) -> None:
    """Score the folders, print the table, and write the report if there is an output."""
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    requested = settings(args)
    from synccontrol.evaluate import html_report, report, scoring

    if len({folder.resolve() for folder in args.folders}) < len(args.folders):
        raise InputError("a folder is named twice; name each once")
    if args.output is not None:
        _check_output(args.output, args.overwrite)
    galleries = scoring.open_galleries(args.folders, requested)
    progress = _progress(args.quiet)
    labelled = zip(galleries, scoring.folder_labels(args.folders), strict=True)
    folders = [scoring.score_folder(gallery, label, requested, progress) for gallery, label in labelled]
    progress("")
    baseline, *others = folders
    differences = [
        difference
        for other in others
        for difference in scoring.compare_folders(baseline, other, requested.draws, requested.seed)
    ]
    print("\n".join(report.text_table(folders, differences)))
    if args.output is not None:
        _write(args.output, folders, differences, html_report.montage_files(folders, galleries, requested))
        print(f"\n{args.output / PAGE}")


def _check_output(output: Path, overwrite: bool) -> None:
    """Raise `OutputError` if a report cannot be written there, or exists and must not be replaced."""
    if (output / PAGE).exists() and not overwrite:
        raise OutputError(f"{output / PAGE} exists; name another --output, or allow --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be a folder ({error.strerror}); choose another --output") from error


def _progress(quiet: bool) -> Progress:
    """Return a function that shows the current measurement in one line of the terminal."""
    if quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(f"\r{text:<79.79}\r", end="", file=sys.stderr, flush=True)


def _write(
    output: Path,
    folders: Sequence["FolderScores"],
    differences: Sequence["Difference"],
    montages: Mapping[str, Mapping[str, Path]],
) -> None:
    """Write the report into an existing folder: JSON, CSV, plots and the HTML page."""
    from synccontrol.evaluate import html_report, report

    plots = html_report.make_plots(folders)
    values = {
        "folders": [report.as_json(folder) for folder in folders],
        "differences": [report.difference_json(difference) for difference in differences],
    }
    report.write_json(values, output / report.JSON)
    report.write_csv([row for folder in folders for row in report.metric_rows(folder)], output / report.METRICS_CSV)
    report.write_csv([row for folder in folders for row in report.montage_rows(folder)], output / report.MONTAGES_CSV)
    for plot in plots:
        (output / plot.file).write_bytes(plot.png)
    text = html_report.html_page(folders, differences, plots, montages)
    (output / PAGE).write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """Return the exit status: 0 done, 2 bad usage or input."""
    return status(lambda: run(build_parser(prog).parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
