"""Which sync settings keep windows most alike, and at what cost: python -m benchmarks.sync_settings

Vague prompt, no control: windows choose different scenes, which is what sync must repair. Coherence is the mean
ST-LPIPS (VGG, which is never optimised here) over all pairs of non-overlapping windows; lower is more alike, and 0 is
one window repeated. The standard error is over seeds. Detail is the mean absolute gradient of the picture (0..255):
a setting that wins by washing the picture out shows there. Seconds are CPU seconds of all threads.
"""

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synccontrol import Montage, SyncConfig, WindowConfig
from synccontrol.files import images
from synccontrol.models import presets
from synccontrol.sampling import objectives

PROMPT = "a landscape"
BASE = SyncConfig(objective="stlpips", shrink=2)
SETTINGS = {
    "off": replace(BASE, weight=0.0),
    "full, weight 20": replace(BASE, weight=20.0),
    "full, weight 60": replace(BASE, weight=60.0),
    "full, weight 20, 10 steps": replace(BASE, weight=20.0, steps=10),
    "full, rms": replace(BASE, step_size="rms"),
    "full, rms, weight 40": replace(BASE, weight=40.0, step_size="rms"),
    "x0, rms": replace(BASE, step_size="rms", gradient="x0"),
    "x0, rms, weight 10": replace(BASE, weight=10.0, step_size="rms", gradient="x0"),
    "x0, rms, 10 steps": replace(BASE, step_size="rms", gradient="x0", steps=10),
    "full, weight 20, every 2nd of 10": replace(BASE, weight=20.0, steps=10, every=2),
}


def coherence(picture: Image.Image, metric: objectives.AbstractObjective, side: int) -> float:
    """Returns the mean distance over all pairs of non-overlapping side x side windows of a picture."""
    tensor = images.to_tensor(picture) * 2 - 1
    windows = [tensor[..., left : left + side] for left in range(0, picture.width - side + 1, side)]
    with torch.no_grad():
        return statistics.mean(float(metric.against(a)(b)) for a, b in itertools.combinations(windows, 2))


def detail(picture: Image.Image) -> float:
    """Returns the mean absolute difference of neighbouring pixels along rows, 0..255."""
    return float(np.abs(np.diff(np.asarray(picture, dtype=np.float64), axis=1)).mean())


def main() -> None:
    """Runs every setting on every seed, prints a table and writes JSON and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="pictures per setting (default: 4)")
    parser.add_argument("--width", type=int, default=1024, help="px (default: 1024)")
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), help="settings to run (default: all)")
    parser.add_argument("--output", type=Path, default=Path("out/sync_settings"), help="folder")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    montage = Montage.from_pretrained("tiny")
    metric = objectives.load("stlpips-vgg")
    side = montage.denoiser.geometry.window_px[0]
    windows: WindowConfig = presets.PRESETS["tiny"].defaults.windows
    rows = {}
    print(f"{'setting':34} {'ST-LPIPS(VGG)':>16} {'detail':>7} {'CPU s':>8}")
    for name in args.only:
        distances, details, seconds = [], [], []
        for seed in range(args.seeds):
            start = time.process_time()
            result = montage(PROMPT, height=side, width=args.width, seed=seed, windows=windows, sync=SETTINGS[name])
            seconds.append(time.process_time() - start)
            distances.append(coherence(result.image, metric, side))
            details.append(detail(result.image))
            result.image.save(args.output / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}.png")
        error = statistics.stdev(distances) / math.sqrt(len(distances)) if len(distances) > 1 else math.nan
        rows[name] = {
            "coherence": statistics.mean(distances),
            "standard_error": error,
            "detail": statistics.mean(details),
            "cpu_seconds": statistics.median(seconds),
            "n": args.seeds,
        }
        row = rows[name]
        print(
            f"{name:34} {row['coherence']:8.3f} ±{error:.3f} {row['detail']:7.2f} {row['cpu_seconds']:8.1f}", flush=True
        )
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    report = {"machine": machine, "torch": torch.__version__, "width": args.width, "prompt": PROMPT, "settings": rows}
    (args.output / "result.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
