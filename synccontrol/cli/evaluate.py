"""Scores folders of montages: python -m synccontrol.evaluate FOLDER [FOLDER2 ...]"""

import argparse
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synccontrol.cli.terminal import Parser, status
from synccontrol.errors import InputError, OutputError
from synccontrol.evaluate.measurement import GROUPS, Progress, Settings

if TYPE_CHECKING:
    from synccontrol.evaluate.scoring import Difference, Scored

PROGRAM = "python -m synccontrol.evaluate"
PAGE = "report.html"
WIDTH = 100  # characters of a line of help
DESCRIPTION = """Says how good montages (wide pictures made of many windows) are, in figures with 95 % intervals.
Give one folder, or several to compare: montages of the same name are then held against each other, the first folder
is the baseline. Any folder of pictures will do, whoever made them. Without further flags it measures whether a
montage is one scene; --reference adds whether it looks like real pictures, --guides whether it follows its guide."""
METRICS = {
    "coherence: are all windows of a montage one scene?": {
        "Intra-LPIPS": "how different two windows of a montage look to a network trained on what people see; 0: equal",
        "Intra-ST-LPIPS": "the same by a network that forgives small shifts (its weights come with the installation)",
        "Intra-Style-L": "how different textures and colours of two windows are, wherever they are in the window",
        "embedding similarity": "how alike two windows are in what they show, -1 to 1; 1: the same things",
    },
    "fidelity: does it look like the reference, and like the prompt? (a collapsed montage is coherent, too)": {
        "FID": "how far the set of windows is from the set of reference pictures; too high with few pictures",
        "KID": "the same without that bias: 0 on average for pictures just like the reference; trust it with few",
        "Mean-GIQA": "how near a window is to its nearest reference pictures",
        "CLIP score": "how well windows fit the prompt that is stored in the montage",
    },
    "control: does it follow its guide? The map is read off the montage again and compared": {
        "canny F1": "how many edges of the guide are there, and no others, 0 to 1",
        "depth RMSE": "how far the depth is from the guide's, 0 to 255; as it is, and after the best scale and shift",
        "SSIM": "how alike soft edges are to the guide's, up to 1",
        "pose PCK": "share of the people's joints that are in their places, 0 to 1",
        "pose OKS": "how well the people fit those of the guide, 0 to 1",
    },
    "seams: do the borders of windows show?": {
        "Discontinuity Score": "how much sharper the picture changes at a border than beside it; 1 over other columns: "
        "a seam that nobody can see",
        "colour step": "how far the colour jumps at a border, 0 to 255",
    },
}


def build_parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """Returns the parser; its defaults are those of `Settings`."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} FOLDER [FOLDER ...] [flags]",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=WIDTH),
        description=textwrap.fill(" ".join(DESCRIPTION.split()), WIDTH),
        epilog=_glossary(),
    )
    default = Settings()
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="montages, all of one size")
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--reference", type=Path, metavar="DIR", help="folder of real pictures that fidelity is measured against"
    )
    what.add_argument(
        "--guides", type=Path, metavar="DIR", help="folder with the guide of each montage, under the montage's name"
    )
    what.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="TYPE",
        help="control type; repeat it (default: what the montages say)",
    )
    what.add_argument("--ready-maps", action="store_true", help="the guides are control maps already")
    what.add_argument(
        "--group",
        action="append",
        choices=GROUPS,
        metavar="GROUP",
        help=f"only one of {', '.join(GROUPS)}; repeat it (default: all)",
    )
    how = parser.add_argument_group("how to measure")
    how.add_argument(
        "--window", type=int, metavar="PX", help="px, side of a crop (default: the model's window, else 256)"
    )
    how.add_argument(
        "--stride", type=int, metavar="PX", help="px between windows, for seams (default: what the montages say)"
    )
    how.add_argument("--loop", action="store_true", help="the montages are rings")
    how.add_argument(
        "--detector", action="append", default=[], metavar="NAME", help="what reads the maps, one per --control"
    )
    how.add_argument(
        "--tolerance", type=int, metavar="PX", default=default.tolerance, help="px between edges that count as the same"
    )
    features = "stlpips-vgg (carries its weights), inception (as published), or a vision model's hub id or folder"
    how.add_argument(
        "--features", metavar="NAME", default=default.features, help=f"network of FID, KID, GIQA: {features}"
    )
    how.add_argument(
        "--embedding", metavar="NAME", default=default.embedding, help="network of the embedding similarity, likewise"
    )
    how.add_argument("--clip", metavar="NAME", default=default.clip, help="hub id or folder for the CLIP score")
    how.add_argument(
        "--draws", metavar="N", type=int, default=default.draws, help="bootstrap resamples (default: %(default)s)"
    )
    how.add_argument(
        "--seed", metavar="N", type=int, default=default.seed, help="of the resamples (default: %(default)s)"
    )
    how.add_argument("--device", metavar="NAME", default=default.device, help="torch device (default: %(default)s)")
    how.add_argument(
        "--window-batch", metavar="N", type=int, default=default.window_batch, help="windows in one network call"
    )
    how.add_argument("--offline", action="store_true", help="never use the network; what needs it is left out")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for JSON, CSV, plots and an HTML report (default: none)"
    )
    output.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    output.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _glossary() -> str:
    lines = []
    for question, members in METRICS.items():
        lines += ["", question]
        for metric, text in members.items():
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {metric:21} ", subsequent_indent=" " * 24)
    last = "What the words mean, where the definitions come from, how to read the figures: docs/evaluation.md"
    return "\n".join([*lines[1:], "", last])


def settings(args: argparse.Namespace) -> Settings:
    """Returns what the flags ask for. Raises `ConfigError` for a value outside its range."""
    return Settings(
        window=args.window,
        stride=args.stride,
        loop=args.loop,
        groups=tuple(args.group or GROUPS),
        reference=args.reference,
        guides=args.guides,
        controls=tuple(args.control),
        detectors=tuple(args.detector),
        ready_maps=args.ready_maps,
        features=args.features,
        embedding=args.embedding,
        clip=args.clip,
        tolerance=args.tolerance,
        device=args.device,
        offline=args.offline,
        draws=args.draws,
        seed=args.seed,
        window_batch=args.window_batch,
    )


def run(args: argparse.Namespace) -> None:
    """Scores the folders, prints the table, and writes the report where one is wanted."""
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    wanted = settings(args)
    from synccontrol.evaluate import html_report, report, scoring

    if len({folder.resolve() for folder in args.folders}) < len(args.folders):
        raise InputError("a folder is named twice; name each once")
    if args.output is not None:
        _check_output(args.output, args.overwrite)
    galleries = scoring.opened(args.folders, wanted)
    progress = _progress(args.quiet)
    labelled = zip(galleries, scoring.labels(args.folders), strict=True)
    folders = [scoring.scored(gallery, label, wanted, progress) for gallery, label in labelled]
    progress("")
    baseline, *others = folders
    found = [one for other in others for one in scoring.differences(baseline, other, wanted.draws, wanted.seed)]
    print("\n".join(report.table(folders, found)))
    if args.output is not None:
        _write(args.output, folders, found, html_report.montage_files(folders, galleries, wanted))
        print(f"\n{args.output / PAGE}")


def _check_output(output: Path, overwrite: bool) -> None:
    """Raises `OutputError` when a report cannot be written there, or one is there and may not be replaced."""
    if (output / PAGE).exists() and not overwrite:
        raise OutputError(f"{output / PAGE} exists; name another --output, or allow --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be a folder ({error.strerror}); choose another --output") from error


def _progress(quiet: bool) -> Progress:
    """Returns what shows on a terminal, in one line, what is being measured."""
    if quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(f"\r{text:<79.79}\r", end="", file=sys.stderr, flush=True)


def _write(
    output: Path,
    folders: Sequence["Scored"],
    differences: Sequence["Difference"],
    shown: Mapping[str, Mapping[str, Path]],
) -> None:
    """Writes the report into a folder that exists: JSON, CSV, plots and the HTML page."""
    from synccontrol.evaluate import html_report, report

    drawn = html_report.all_of(folders)
    values = {
        "folders": [report.as_json(folder) for folder in folders],
        "differences": [report.difference_json(found) for found in differences],
    }
    report.write_json(values, output / report.JSON)
    report.write_csv([row for folder in folders for row in report.metric_rows(folder)], output / report.METRICS_CSV)
    report.write_csv([row for folder in folders for row in report.montage_rows(folder)], output / report.MONTAGES_CSV)
    for plot in drawn:
        (output / plot.file).write_bytes(plot.png)
    text = html_report.html_page(folders, differences, drawn, shown)
    (output / PAGE).write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """Returns the exit status: 0 done, 2 bad usage or input."""
    return status(lambda: run(build_parser(prog).parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
