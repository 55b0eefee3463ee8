"""How alike the pictures of a series are, alone and with one style: python -m benchmarks.series

Rendered scenes of different places, their exact depth maps, one vague prompt, a seed each. Without a style image every
picture chooses a time of day and a season; with one, all follow the first. Alike: the mean ST-LPIPS (VGG), which
nothing optimises, over all pairs of middle windows; control: depth RMSE, 0..255, read off the pictures.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.frontier.material import item
from synccontrol import Montage
from synccontrol.evaluate import control, dataset
from synccontrol.evaluate.measurement import Settings
from synccontrol.io import images
from synccontrol.sampling import objectives

PROMPT, HEIGHT, WIDTH, PLACE = "a landscape", 256, 1024, 1000


def main() -> None:
    """Prints the figures, and writes them with the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8, help="of the series (default: 8)")
    parser.add_argument("--output", type=Path, default=Path("out/series"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    montage = Montage.from_pretrained("tiny", ["depth"], offline=True)
    scenes = [item(PLACE + index, "depth", HEIGHT, WIDTH) for index in range(options.pictures)]
    alone = [montage(PROMPT, scene.guide, seed=scene.seed).image for scene in scenes]
    follow = montage.defaults.sync.replace(anchor=alone[0])
    together = [alone[0], *(montage(PROMPT, scene.guide, seed=scene.seed, sync=follow).image for scene in scenes[1:])]
    found = {}
    for name, pictures in (("alone", alone), ("one style", together)):
        for number, picture in enumerate(pictures):
            picture.save(options.output / f"{name.replace(' ', '-')}-{number}.png")
        found[name] = _figures(
            pictures, [np.asarray(scene.guide.convert("L"), np.float32) for scene in scenes if scene.guide]
        )
        print(f"{name:10} " + ", ".join(f"{what} {value:.3f}" for what, value in found[name].items()), flush=True)
    (options.output / "series.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _figures(pictures: list[Image.Image], maps: list[dataset.Array]) -> dict[str, float]:
    metric, read = objectives.load("stlpips-vgg"), dataset.load_map_reader("depth", None, Settings(offline=True))
    left = (WIDTH - HEIGHT) // 2
    windows = [images.to_tensor(picture.crop((left, 0, left + HEIGHT, HEIGHT))) * 2 - 1 for picture in pictures]
    with torch.no_grad():
        apart = [float(metric.for_anchor(a)(b)) for a, b in itertools.combinations(windows, 2)]
    errors = [control.depth_rmse(read(picture), map_) for picture, map_ in zip(pictures, maps, strict=True)]
    return {
        "ST-LPIPS(VGG)": statistics.mean(apart),
        "depth RMSE": statistics.mean(errors),
        "standard error of the RMSE": statistics.stdev(errors) / len(errors) ** 0.5,
    }


if __name__ == "__main__":
    main()
