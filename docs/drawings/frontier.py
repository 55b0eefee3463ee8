"""The chart of coherence against cost, from the benchmark's results, for the README and the page on presets."""

import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from benchmarks.frontier.methods import RENDERED
from docs.drawings import ink
from docs.drawings.sheets import IMAGES
from synccontrol.spec.image_settings import PAPER, PRESETS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "frontier" / "results" / "results.json"
METRIC = "Intra-ST-LPIPS (vgg)"
OURS, THEIRS, TRUE = ink.INKS[0], ink.INKS[1], ink.INKS[2]


def coherence(scored: dict[str, Any]) -> tuple[float, float, float]:
    """Return the mean and the 95 % interval of the distance between a method's windows."""
    (distance,) = (row for row in scored["measurements"] if row["metric"] == METRIC)
    return distance["value"], distance["low"], distance["high"]


def draw() -> None:
    """Write `docs/images/frontier.png`."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    whole = ink.figure(1100, 520)
    axes = whole.add_axes((0.12, 0.15, 0.86, 0.8))
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    for scored in results["controls"]["all"]:
        name, (value, low, high) = scored["label"], coherence(scored)
        if name == RENDERED:
            axes.axhline(value, color=TRUE, linestyle="--", linewidth=1.5)
            axes.annotate("rendered panoramas", (11, value), (0, 6), **_label(TRUE))
            continue
        colour = OURS if name in PRESETS and name != PAPER else THEIRS
        seconds = statistics.median(results["CPU seconds"][name])
        axes.errorbar(seconds, value, yerr=[[value - low], [high - value]], fmt="o", color=colour, markersize=9)
        place, side = (
            ((-9, -20), "right") if colour == OURS else ((9, 6), "left")
        )  # no overlap with lines and other labels
        axes.annotate(name, (seconds, value), place, ha=side, **_label(colour))
    axes.set_xscale("log")
    axes.set_xlim(1.2, 1100)
    axes.xaxis.set_major_locator(FixedLocator([2, 5, 10, 20, 50, 100, 200, 500]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("CPU seconds per image of 1024x256")
    axes.set_ylabel("distance between windows\n(ST-LPIPS, lower is more alike)")
    ink.save(whole, IMAGES / "frontier.png")


def _label(colour: str) -> dict[str, Any]:
    return {"textcoords": "offset points", "color": colour, "fontsize": 14}
