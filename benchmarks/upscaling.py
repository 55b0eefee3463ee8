"""What does upscaling draw, and what does it keep? python -m benchmarks.upscaling --output benchmarks/upscaling.json

Montages of the bundled model, 1536x256 px, each after the depth map of a rendered scene with its caption, by the
model's default settings; then twice and four times that size by `upscale`'s (strength 0.3, each from the one before),
with the colours kept that the smaller one has in the large, and as they are drawn. For each size, of the picture, of
one that is only enlarged (Lanczos), and of scenes that were rendered at that size:

detail: the part of the picture that one of 256 px height cannot hold: root mean square of the grey levels that are
left of it when it is shrunk to 256 px and enlarged again.
KID: kernel distance of its 256 px windows to those of scenes rendered at that size (features of ST-LPIPS's VGG-16).
depth: root mean square error, in grey levels, of the depth that the bundled detector sees to the map that was asked
for, after the best scale and shift.
layout: root mean square difference to the first picture, in grey levels, once shrunk to its size.
seams: Discontinuity Score where windows begin and end over that at other places between cells, across and down.
memory: what the process has held at most by then, MB, before anything is measured.
"""

import argparse
import itertools
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from synccontrol import Montage, preprocess
from synccontrol.canvas.flat import lay_out
from synccontrol.evaluate.control import depth_rmse, fit_scale_and_shift
from synccontrol.evaluate.fidelity import kernel_distance
from synccontrol.evaluate.networks import PerceptualNetwork
from synccontrol.evaluate.seams import discontinuity
from synccontrol.io import images
from synccontrol.sampling import objectives
from synccontrol.spec.settings import COLOR_MATCHES, UpscaleConfig
from training.render import Scene, render

HEIGHT, WIDTH = 256, 1536  # px, of the first picture
TIMES = (1, 2, 4)
MB = 1e6
REFERENCE = 1000  # seed of the first scene that is only looked at
Greys = npt.NDArray[np.float64]


def scene(seed: int, times: int) -> Scene:
    """Returns a rendered scene of so many times the size."""
    return render(np.random.default_rng(seed), height=times * HEIGHT, width=times * WIDTH)


def draw(montage: Montage, seed: int, folder: Path, colours: str) -> list[dict[str, float]]:
    """Returns seconds and memory of the picture of a scene at every size; pictures go to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = scene(seed, TIMES[-1])
    depth = Image.fromarray((asked.depth * 255).round().astype(np.uint8)).convert("RGB")
    depth.save(folder / f"{seed}.depth.png")
    spent, over = [], dict[str, Any]()
    for times in TIMES:
        began = time.perf_counter()
        options = {"height": times * HEIGHT, "width": times * WIDTH, "seed": seed, **over}
        before = montage(asked.caption, depth, **options).image
        upscale = UpscaleConfig(upscale_color_match=colours)
        over = {"init_image": before, "img2img": upscale.stage_img2img(montage.defaults.sampling.steps)}
        before.save(folder / f"{seed}-{times}x.png")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
        spent.append({"seconds": time.perf_counter() - began, "memory": peak})
    return spent


def detail(picture: Image.Image) -> float:
    """Returns the root mean square of what a picture of the first size cannot hold, in grey levels."""
    grey = picture.convert("L")
    held = grey.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).resize(grey.size, Image.Resampling.LANCZOS)
    return depth_rmse(np.asarray(held), np.asarray(grey, np.float64))


def seam(picture: Image.Image, montage: Montage, down: bool) -> float:
    """Returns the Discontinuity Score at the borders of windows over that at other places between cells."""
    layout = lay_out(picture.height, picture.width, montage.denoiser.geometry, montage.defaults.windows)
    cell, axis = montage.denoiser.geometry.cell, 0 if down else 1
    pixels = np.asarray(picture, np.float64)
    scores = discontinuity(pixels.transpose(1, 0, 2) if down else pixels, False)
    side, window = (layout.height, layout.width)[axis], layout.window[axis]
    lefts = {*range(0, side - window, layout.stride), side - window}
    borders = {cell * place for left in lefts for place in (left, left + window)} - {0, cell * side}
    if not borders:
        return float("nan")
    others = [place for place in range(cell, cell * side, cell) if place not in borders]
    return float(np.nanmean(scores[sorted(borders)]) / np.nanmean(scores[others]))


@torch.no_grad()
def features(eye: PerceptualNetwork, pictures: list[Image.Image]) -> torch.Tensor:
    """Returns the features (n, d) of the windows of pictures, side by side."""
    side, found = HEIGHT, []
    for picture in pictures:
        corners = [(x, y) for y in range(0, picture.height, side) for x in range(0, picture.width, side)]
        crops = [images.to_tensor(picture.crop((x, y, x + side, y + side))) for x, y in corners]
        found += [eye.extract(crop).pooled for crop in crops]
    return torch.cat(found)


def measure(montage: Montage, seeds: range, times: int, folder: Path, eye: PerceptualNetwork) -> dict[str, Any]:
    """Returns the figures of a size."""
    drawn, first, asked = (
        [images.open_image(folder / f"{seed}{end}.png") for seed in seeds] for end in (f"-{times}x", "-1x", ".depth")
    )
    only = [picture.resize(drawn[0].size, Image.Resampling.LANCZOS) for picture in first]
    rendered = [Image.fromarray(scene(REFERENCE + number, times).image) for number in range(2 * len(seeds))]
    read = preprocess.load("depth")
    reference = features(eye, rendered[len(seeds) :])
    found: dict[str, Any] = {"layout": [], "seam across": [], "seam down": []}
    for picture, small in zip(drawn, first, strict=True):
        shrunk = picture.convert("L").resize(small.size, Image.Resampling.LANCZOS)
        found["layout"].append(depth_rmse(np.asarray(shrunk), np.asarray(small.convert("L"), np.float64)))
        found["seam across"].append(seam(picture, montage, False))
        found["seam down"].append(seam(picture, montage, True))
    for name, kind in (("drawn", drawn), ("enlarged", only), ("rendered", rendered[: len(seeds)])):
        found[f"detail, {name}"] = [detail(picture) for picture in kind]
        found[f"KID, {name}"] = [kernel_distance(features(eye, kind), reference, 0)]
    for name, kind in (("drawn", drawn), ("enlarged", only)):
        errors = []
        for picture, wanted in zip(kind, asked, strict=True):
            seen = np.asarray(read(picture).convert("L"), np.float32)
            wish = np.asarray(wanted.convert("L").resize(picture.size, Image.Resampling.LANCZOS), np.float32)
            errors.append(depth_rmse(fit_scale_and_shift(seen, wish), wish))
        found[f"depth, {name}"] = errors
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def main() -> None:
    """Draws, measures, prints, and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4, help="how many")
    parser.add_argument(
        "--colours", nargs="+", choices=COLOR_MATCHES, default=COLOR_MATCHES[::-1], help="default: both"
    )
    parser.add_argument("--output", type=Path, help="JSON of the figures")
    arguments = parser.parse_args()
    montage, seeds = Montage.from_pretrained("tiny", ["depth"]), range(arguments.scenes)
    folders = {colours: Path("out/upscaling") / colours for colours in arguments.colours}
    spent = {colours: [draw(montage, seed, folder, colours) for seed in seeds] for colours, folder in folders.items()}
    network = objectives.load("stlpips-vgg")
    assert isinstance(network, objectives.FeatureDistance)
    eye = PerceptualNetwork(network, "cpu")
    report = {}
    for (colours, folder), (place, times) in itertools.product(folders.items(), enumerate(TIMES)):
        key = f"{times * WIDTH}x{times * HEIGHT}, colours {colours}"
        report[key] = measure(montage, seeds, times, folder, eye)
        report[key]["seconds"] = round(float(np.mean([sizes[place]["seconds"] for sizes in spent[colours]])), 1)
        report[key]["memory"] = round(spent[colours][0][place]["memory"])
        print(key, json.dumps(report[key]), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
