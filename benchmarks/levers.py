"""What each lever of coherence and cost does, one at a time: python -m benchmarks.levers

The bundled model, the bench's montages (`benchmarks/frontier/material.py`) of 1024x256 px without a control and under
exact depth maps, half of the prompts vague, half specific. The base is 12 steps of DPM++ 2M, windows that overlap by
half, ramp weights, no sync, guidance in all steps; every other row changes what its name says, but for `default`, which
is the preset. Coherence is the mean
ST-LPIPS (VGG, which nothing optimises) over all pairs of windows side by side, lower is more alike; depth RMSE is read
off the picture; +- is the standard error over montages; CPU seconds are of one thread, the median.
"""

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.frontier.material import NONE, VAGUE, Item, item, item_name
from synccontrol import Montage
from synccontrol.evaluate import control, dataset
from synccontrol.evaluate.measurement import Settings
from synccontrol.io import images
from synccontrol.models import registry
from synccontrol.models.presets import PresetSettings
from synccontrol.sampling import objectives
from synccontrol.spec.settings import SyncConfig, WindowConfig

HEIGHT, WIDTH = 256, 1024
CONTROLS = (NONE, "depth")
_OWN = registry.PRESETS["tiny"].defaults
BASE = PresetSettings(
    sampling=_OWN.sampling.replace(guidance_end=1.0),
    windows=WindowConfig(stride=16, weights="ramp").complete(),
    sync=_OWN.sync.replace(adain=0.0, draft_strength=0.0),
)
_ADAIN = replace(BASE, sync=BASE.sync.replace(adain=1.0, adain_steps=6))


def _synced(base: PresetSettings, **changes: object) -> PresetSettings:
    return replace(base, sync=base.sync.replace(**changes))


def _sampled(base: PresetSettings, **changes: object) -> PresetSettings:
    return replace(base, sampling=base.sampling.replace(**changes))


LEVERS = {
    "default": _OWN,
    "default, 18 steps": _sampled(_synced(_OWN, adain_steps=9), steps=18),
    "default, no sync": _synced(_OWN, adain=0.0, draft_strength=0.0),
    "default, no draft": _synced(_OWN, draft_strength=0.0),
    "default, draft alone": _synced(_OWN, adain=0.0),
    "default, draft .65": _synced(_OWN, draft_strength=0.65),
    "default, 18 steps, no sync": _sampled(_synced(_OWN, adain=0.0, draft_strength=0.0), steps=18),
    "default, 18 steps, no draft": _sampled(_synced(_OWN, adain_steps=9, draft_strength=0.0), steps=18),
    "base": BASE,
    "statistics, 6 steps": _ADAIN,
    "statistics, half as far": _synced(_ADAIN, adain=0.5),
    "statistics, all 12 steps": _synced(_ADAIN, adain_steps=12),
    "objective predicted once, RMS .06, 3 steps": _synced(BASE, weight=20.0, steps=3),
    "objective predicted again": _synced(BASE, weight=20.0, steps=3, predict="again"),
    "objective at a quarter of the size": _synced(BASE, weight=20.0, steps=3, shrink=4),
    "statistics and objective, 6 steps": _synced(_ADAIN, weight=20.0, steps=6),
    "statistics, guidance in the first 2/3": _sampled(_ADAIN, guidance_end=0.67),
    "statistics, stride 3/4": replace(_ADAIN, windows=WindowConfig(stride=24, weights="ramp").complete()),
    "statistics, stride 3/4, 6 steps": replace(
        _sampled(_synced(_ADAIN, adain_steps=3), steps=6), windows=WindowConfig(stride=24, weights="ramp").complete()
    ),
    "statistics, gaussian weights": replace(_ADAIN, windows=WindowConfig(stride=16, weights="gaussian").complete()),
    "statistics, UniPC": _sampled(_ADAIN, scheduler="unipc"),
    "statistics, DDIM 25": _sampled(_synced(_ADAIN, adain_steps=12), scheduler="ddim", steps=25),
}


def coherence(picture: Image.Image, metric: objectives.AbstractObjective) -> float:
    """Returns the mean distance over all pairs of windows side by side."""
    tensor = images.to_tensor(picture) * 2 - 1
    windows = [tensor[..., left : left + HEIGHT] for left in range(0, WIDTH, HEIGHT)]
    with torch.no_grad():
        return statistics.mean(float(metric.for_anchor(a)(b)) for a, b in itertools.combinations(windows, 2))


def figure(values: Sequence[float]) -> list[float]:
    """Returns a mean and its standard error."""
    return [statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))]


def main() -> None:
    """Runs every lever, prints a table and writes JSON and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-control", type=int, default=8, help="montages a lever and control (default: 8)")
    parser.add_argument("--controls", nargs="*", default=CONTROLS, choices=CONTROLS, help="default: all")
    parser.add_argument("--only", nargs="*", default=list(LEVERS), choices=list(LEVERS), help="default: all")
    parser.add_argument("--output", type=Path, default=Path("out/levers"), help="folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    montages = {of: Montage.from_pretrained("tiny", [] if of == NONE else [of], offline=True) for of in args.controls}
    metric, read = objectives.load("stlpips-vgg"), dataset.load_map_reader("depth", None, Settings(offline=True))
    found = {}
    for name in args.only:
        apart: dict[str, list[float]] = {"vague": [], "specific": []}
        errors, seconds = [], []
        for of, index in itertools.product(args.controls, range(args.per_control)):
            made: Item = item(index, of, HEIGHT, WIDTH)
            own, start = LEVERS[name], time.process_time()
            sync: SyncConfig = own.sync
            result = montages[of](
                made.prompt,
                made.guide,
                height=HEIGHT,
                width=WIDTH,
                seed=made.seed,
                sampling=own.sampling,
                windows=own.windows,
                sync=sync,
            )
            seconds.append(time.process_time() - start)
            apart["vague" if VAGUE in item_name(index) else "specific"].append(coherence(result.image, metric))
            if made.guide is not None:
                wanted = np.asarray(made.guide.convert("L"), np.float32)
                errors.append(control.depth_rmse(read(result.image), wanted))
            path = args.output / name.replace(" ", "-").replace(",", "").replace("/", "-") / f"{of}-{made.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            result.image.save(path)
        row = {"vague": figure(apart["vague"]), "specific": figure(apart["specific"])}
        row |= {"depth RMSE": figure(errors)} if errors else {}
        found[name] = {**row, "CPU seconds": [statistics.median(seconds)]}
        texts = [f"{value[0]:.3f} ± {value[1]:.3f}" for value in row.values()]
        print(f"| {name} | {' | '.join(texts)} | {found[name]['CPU seconds'][0]:.1f} |", flush=True)
    machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": 1}
    report = {"machine": machine, "per control": args.per_control, "levers": found}
    (args.output / "levers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
