"""Do rings close, in latents, picture and every control map? python -m benchmarks.ring

The Discontinuity Score is the mean absolute difference of neighbouring columns across the closing join over the same
where columns lie inside; 1 is a ring that closes. It is given twice. `any`: against all columns inside; what the ring
happens to show at its join makes it scatter. `same`: against the same two columns of the same ring turned by half,
where they lie inside; this tells the join from what it shows. Errors are standard errors over rings.

Guides are rendered closed, with people, and turned: at random, and for the pose so that a person stands across the join
(its `any` says nothing). Maps are made with `loop` and without; `roll` is the mean difference, 0..255, of the turned
guide's map from the guide's map turned. Latents and pictures follow the depth map:
from the ring, and from guide, noise and anchor turned by half; without loop from the ring alone. `decoded` are the same
latents turned before they are decoded, so that the join lies where it may.
"""

import argparse
import json
import math
import platform
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from synccontrol import Montage, preprocess
from synccontrol.canvas.flat import lay_out
from synccontrol.preprocess.people.skeleton import NECK
from training.render import render

Floats = npt.NDArray[np.float64]
Row = tuple[float, float, float]  # difference across the join, inside anywhere, inside at the same columns
CONTROLS = ("depth", "canny", "pose")
PROMPT = "a landscape"
HEIGHT = 256  # px
PEOPLE = 5
DECODINGS = 8  # of a ring's latents, turned in between; even


def row(ring: Floats, half: Floats | None) -> Row:
    """Returns the differences of neighbouring columns of a ring (H, W, c), given also turned by half, if it can be."""
    steps = np.abs(np.diff(ring, axis=1)).mean(axis=(0, 2))
    across = float(np.abs(ring[:, 0] - ring[:, -1]).mean())
    middle = ring.shape[1] // 2
    same = math.nan if half is None else float(np.abs(half[:, middle] - half[:, middle - 1]).mean())
    return across, float(steps.mean()), same


def ratio(of: Floats, to: Floats) -> tuple[float, float]:
    """Returns the ratio of two means over rings, and its standard error (delta method; none of one ring)."""
    found = of.mean() / to.mean()
    if len(of) == 1:
        return float(found), math.nan
    return float(found), float(np.std(of - found * to, ddof=1) / math.sqrt(len(of)) / to.mean())


def summary(rings: list[list[Row]]) -> dict[str, float]:
    """Returns both scores with their errors, of the rows of each ring."""
    across, anywhere, same = np.array([np.mean(rows, axis=0) for rows in rings]).T
    names = ("any", "any_error", "same", "same_error")
    values = (*ratio(across, anywhere), *ratio(across, same))
    return {**dict(zip(names, values, strict=True)), "rings": len(rings), "turns": len(rings[0])}


def turned(values: Floats, columns: int) -> Floats:
    """Returns a ring (H, W, c) turned by some columns."""
    return np.roll(values, columns, axis=1)


def picture_of(values: Floats) -> Image.Image:
    """Returns values (H, W, 3) in 0..255 as a picture."""
    return Image.fromarray(values.astype(np.uint8))


def measure_maps(
    guide: Floats, turns: dict[str, list[int]], rows: dict[str, list[list[Row]]], rolls: dict[str, list[float]]
) -> None:
    """Adds the rows of a guide's control maps, and how far turning the guide is from turning the map."""
    half = guide.shape[1] // 2
    for control in CONTROLS:
        for loop in (True, False):
            name = f"{control} map" + ("" if loop else ", no loop")
            detect = preprocess.load(control, loop=loop)
            as_is = np.asarray(detect(picture_of(guide)), np.float64)
            found = []
            for turn in turns[control]:
                maps = [np.asarray(detect(picture_of(turned(guide, t))), np.float64) for t in (turn, turn + half)]
                found.append(row(maps[0], maps[1]))
                rolls[name].append(float(np.abs(maps[0] - turned(as_is, turn)).mean()))
            rows[name].append(found)


def as_values(tensor: torch.Tensor) -> Floats:
    """Returns a canvas (1, c, h, w) as values (h, w, c)."""
    return tensor[0].permute(1, 2, 0).double().numpy()


def measure_pictures(montage: Montage, guide: Floats, seed: int, steps: int, rows: dict[str, list[list[Row]]]) -> None:
    """Adds the rows of a ring's latents and pictures."""
    defaults, geometry = montage.defaults, montage.denoiser.geometry
    width = guide.shape[1]
    cells = width // geometry.cell
    noise = torch.randn(
        1, geometry.channels, HEIGHT // geometry.cell, cells, generator=torch.Generator().manual_seed(seed)
    )
    sampling = defaults.sampling.replace(steps=steps)
    for loop in (True, False):
        detect = preprocess.load("depth", loop=loop)
        windows = defaults.windows.replace(loop=loop)
        n = len(lay_out(HEIGHT, width, geometry, windows))
        results = []
        for turn in (0, 1) if loop else (0,):  # halves
            control_map = detect(picture_of(turned(guide, turn * width // 2)))
            sync = defaults.sync.replace(anchor=(n // 2 + turn * n // 2) % n)
            z = noise.roll(turn * cells // 2, dims=-1)
            results.append(montage(PROMPT, control_map, latents=z, sampling=sampling, windows=windows, sync=sync))
        latents = [as_values(result.latents) for result in results]
        pictures = [np.asarray(result.image, np.float64) for result in results]
        if not loop:  # there is no ring to turn
            rows["latents, no loop"].append([row(latents[0], None)])
            rows["picture, no loop"].append([row(pictures[0], None)])
            continue
        rows["latents"].append([row(*latents)])
        rows["picture"].append([row(*pictures)])
        layout = lay_out(HEIGHT, width, geometry, windows)
        turns = [results[0].latents.roll(cells * i // DECODINGS, dims=-1) for i in range(DECODINGS)]
        with torch.no_grad():
            decoded = [layout.decode(x0, montage.denoiser.decode, geometry.cell, HEIGHT, width) for x0 in turns]
        found = [picture.astype(np.float64) for picture in decoded]
        rows["decoded"].append([row(found[i], found[i - DECODINGS // 2]) for i in range(DECODINGS)])


def main() -> None:
    """Measures rings, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rings", type=int, default=6, help="of which maps are made (default: 6)")
    parser.add_argument("--pictures", type=int, default=4, help="of them that are drawn (default: 4)")
    parser.add_argument("--turns", type=int, default=2, help="of each ring before detection (default: 2)")
    parser.add_argument("--width", type=int, default=768, help="px (default: 768)")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps (default: 10)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/ring.json"), help="file")
    args = parser.parse_args()
    rows: dict[str, list[list[Row]]] = defaultdict(list)
    rolls: dict[str, list[float]] = defaultdict(list)
    montage = Montage.from_pretrained("tiny", controls=["depth"])
    for ring in range(args.rings):
        rng = np.random.default_rng(ring)
        scene = render(rng, height=HEIGHT, width=args.width, tileable=True, people=PEOPLE)
        guide = scene.image.astype(np.float64)
        turns = {control: rng.integers(args.width, size=args.turns).tolist() for control in CONTROLS}
        turns["pose"] = [-round(float(x)) for x in scene.people[: args.turns, NECK, 0]]
        measure_maps(guide, turns, rows, rolls)
        if ring < args.pictures:
            measure_pictures(montage, guide, ring, args.steps, rows)
        write(args, rows, rolls)


def write(args: argparse.Namespace, rows: dict[str, list[list[Row]]], rolls: dict[str, list[float]]) -> None:
    """Prints a table of the rings so far, and writes it as JSON."""
    found = {name: summary(rings) for name, rings in rows.items()}
    for name, values in rolls.items():
        found[name]["roll"] = float(np.mean(values))
    for name, score in sorted(found.items()):
        scores = " ".join(f"{key} {score[key]:7.3f} ±{score[key + '_error']:.3f}" for key in ("any", "same"))
        roll = score.get("roll", math.nan)
        print(f"{name:20} {scores}  rings {score['rings']} x {score['turns']}  roll {roll:.3f}", flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    report = {"machine": machine, "torch": torch.__version__, "width": args.width, "steps": args.steps, "scores": found}
    args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
