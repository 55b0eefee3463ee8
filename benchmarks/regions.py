"""Do regions draw what they are asked, without seams, and does sync keep their style? python -m benchmarks.regions

Montages of the bundled model, 1536x256 px, three regions of three places; nothing was tuned on these seeds.
`one time`: the time of day stands in the base prompt. `two times`: the region on the right has another time than the
others, far from it, so that sync could pull it where it was not asked to go.

Asked for are place and time of every window that lies wholly in a region, read by a classifier that is trained here on
rendered scenes. Seams: the Discontinuity Score between cells inside of the soft borders over that between other cells,
which says how much more goes on there; and of the border's own place over that in the rest of the soft border (`line`),
which says whether there is a line.
For comparison `rendered`: scenes of the three places and times, each rendered at the whole size, that pass into each
other evenly over the same soft borders: what no drawing stands behind.
Style: the mean distance of Gram matrices (VGG-16 of ST-LPIPS) of windows of different regions, with sync and without.
Brackets are 95 % bootstrap intervals over montages.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synccontrol import Montage, Region, SyncConfig
from synccontrol.evaluate import seams
from synccontrol.evaluate.coherence import style_distance
from synccontrol.evaluate.measurement import interval
from synccontrol.evaluate.networks import PerceptualNetwork
from synccontrol.io import images
from synccontrol.sampling import objectives
from training.cache import HELD_OUT
from training.captions import BIOME_WORDS, TIME_WORDS
from training.measure import Classifier, train_classifier
from training.render import BIOMES, TIMES, render

HEIGHT, WIDTH, CELL = 256, 1536, 8  # px
AREAS = ("0-35%", "35-70%", "70-100%")
STEP = 32  # px between the windows that are looked at
FAR = {"night": "noon", "noon": "night", "dawn": "night", "sunset": "noon", "overcast": "night"}
Asked = tuple[str, str]  # place and time


def asked(number: int, times: int) -> list[Asked]:
    """Returns what is asked of the three regions of a montage."""
    places = [BIOMES[(number + step) % len(BIOMES)] for step in (0, 3, 5)]
    time = TIMES[number % len(TIMES)]
    return [(place, FAR[time] if times == 2 and last else time) for place, last in zip(places, (0, 0, 1), strict=True)]


def regions_of(wanted: list[Asked], times: int, soft: float) -> tuple[str, list[Region]]:
    """Returns the base prompt and the regions."""
    own = [
        BIOME_WORDS[place][0] if times == 1 else f"{BIOME_WORDS[place][0]} {TIME_WORDS[time][0]}"
        for place, time in wanted
    ]
    base = TIME_WORDS[wanted[0][1]][0] if times == 1 else ""
    return base, [Region(area=area, prompt=prompt, soft=soft) for area, prompt in zip(AREAS, own, strict=True)]


def windows_of(soft: float) -> list[tuple[int, int]]:
    """Returns region and left px of every window that lies wholly in a region, without its borders."""
    found = []
    for number, area in enumerate(AREAS):
        left, _, right, _ = Region(area=area, prompt="x").box(HEIGHT, WIDTH)
        first = left + soft * HEIGHT / 2 if number else 0
        last = (right - soft * HEIGHT / 2 if number < len(AREAS) - 1 else WIDTH) - HEIGHT
        found += [(number, x) for x in range(0, WIDTH, STEP) if first <= x <= last]
    return found


def seam(picture: np.ndarray, soft: float) -> tuple[float, float]:
    """Returns the Discontinuity Score inside of soft borders over that elsewhere, and at their middles over inside.

    Places are those between cells; the middle is the place nearest to the border and those beside it.
    """
    scores = seams.discontinuity(picture.astype(np.float64), False)
    reach = max(soft * HEIGHT / 2, CELL)
    borders = [Region(area=area, prompt="x").box(HEIGHT, WIDTH)[2] for area in AREAS[:-1]]
    places = np.arange(CELL, WIDTH - CELL, CELL)
    away = np.abs(places[:, None] - np.array(borders)).min(axis=1)
    near, line = away <= reach, away <= CELL
    inside, outside = scores[places[near & ~line]], scores[places[~near]]
    line_score = scores[places[line]].mean()
    return float(scores[places[near]].mean() / outside.mean()), float(line_score / (inside if soft else outside).mean())


def dissolved(wanted: list[Asked], soft: float, seed: int) -> np.ndarray:
    """Returns rendered scenes (H, W, 3) of places and times, which pass into each other over soft borders."""
    middles = np.arange(WIDTH) + 0.5
    borders = [Region(area=area, prompt="x").box(HEIGHT, WIDTH)[2] for area in AREAS[:-1]]
    rises = [np.clip((middles - at) / (soft * HEIGHT) + 0.5, 0, 1) for at in borders]
    begun = [np.ones(WIDTH), *rises, np.zeros(WIDTH)]
    rng = np.random.default_rng(seed)
    scenes = [render(rng, height=HEIGHT, width=WIDTH, people=0, biome=place, time=time).image for place, time in wanted]
    shares = (here - next_ for here, next_ in itertools.pairwise(begun))
    mixed: np.ndarray = sum(share[:, None] * scene for share, scene in zip(shares, scenes, strict=True))
    return mixed.round()


def figure(values: list[float]) -> dict[str, float]:
    """Returns a mean with its interval and n."""
    low, high = interval(np.array(values), 2000, 0)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "n": len(values)}


def measure(
    montage: Montage,
    sync: SyncConfig,
    times: int,
    seeds: range,
    soft: float,
    judge: tuple[Classifier, PerceptualNetwork],
) -> dict[str, dict[str, float]]:
    """Returns the figures of one kind of montage; pictures go to `out/regions`."""
    classifier, eye = judge
    values: dict[str, list[float]] = {name: [] for name in ("place", "time", "seam", "line", "style")}
    for number in seeds:
        wanted = asked(number, times)
        base, regions = regions_of(wanted, times, soft)
        shown = montage(base, height=HEIGHT, width=WIDTH, regions=regions, seed=1000 + number, sync=sync).image
        path = Path("out/regions") / f"{times}-{sync.adain:g}-{sync.shared_style:g}-{soft:g}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shown.save(path)
        places = windows_of(soft)
        crops = [shown.crop((left, 0, left + HEIGHT, HEIGHT)) for _, left in places]
        found_times, found_places = classifier.names([np.asarray(crop) for crop in crops])
        pairs = list(zip(places, found_places, found_times, strict=True))
        values["place"].append(float(np.mean([wanted[region][0] == place for (region, _), place, _ in pairs])))
        values["time"].append(float(np.mean([wanted[region][1] == time for (region, _), _, time in pairs])))
        around, line = seam(np.asarray(shown), soft)
        values["seam"].append(around)
        values["line"].append(line)
        values["style"].append(_apart(eye, places, crops))
    return {name: figure(found) for name, found in values.items()}


@torch.no_grad()
def _apart(eye: PerceptualNetwork, places: list[tuple[int, int]], crops: list[Image.Image]) -> float:
    """Returns the mean style distance of windows of different regions: one window of each."""
    chosen = [next(i for i, (region, _) in enumerate(places) if region == number) for number in range(len(AREAS))]
    look = eye.extract(torch.cat([images.to_tensor(crops[i]) for i in chosen]))
    return float(np.mean([style_distance(look, i, look, j) for i, j in itertools.combinations(range(len(chosen)), 2)]))


def main() -> None:
    """Measures, prints, and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16, help="montages of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--soft", type=float, nargs="+", default=[Region(area="0-1%", prompt="x").soft])
    parser.add_argument("--across", type=float, nargs="+", default=[SyncConfig().shared_style])
    parser.add_argument("--output", type=Path, help="JSON of the figures")
    arguments = parser.parse_args()
    montage = Montage.from_pretrained("tiny")
    network = objectives.load("stlpips-vgg")
    assert isinstance(network, objectives.FeatureDistance)
    judge = train_classifier(), PerceptualNetwork(network, "cpu")
    own = montage.defaults.sync
    syncs = {f"sync, across {across:g}": own.replace(shared_style=across) for across in arguments.shared_style}
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    report = {}
    for soft, times in itertools.product(arguments.soft, (1, 2)):
        for name, sync in {**syncs, "no sync": own.replace(adain=0.0)}.items():
            key = f"{'one time' if times == 1 else 'two times'}, soft {soft:g}, {name}"
            report[key] = measure(montage, sync, times, seeds, soft, judge)
            print(key, json.dumps(report[key]), flush=True)
        both = [seam(dissolved(asked(number, times), soft, HELD_OUT + number), soft) for number in seeds]
        key = f"{'one time' if times == 1 else 'two times'}, soft {soft:g}, rendered"
        report[key] = {name: figure([one[place] for one in both]) for place, name in enumerate(("seam", "line"))}
        print(key, json.dumps(report[key]), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
