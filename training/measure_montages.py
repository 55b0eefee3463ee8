"""What the shipped model gives in wide pictures: `python -m training.measure_montages`; see the model card.

Control: maps read again off montages drawn under the exact maps of rendered scenes, with the control on and off.
Coherence: montages of a vague prompt with sync off and on. Fidelity: windows of captions against rendered windows.
Pictures that are in the folder already are not drawn again: name another one for another model.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synccontrol import Montage, SyncConfig
from synccontrol.evaluate.control import depth_rmse, edge_f1, pck
from synccontrol.evaluate.measurement import Settings, interval
from synccontrol.evaluate.scoring import score
from synccontrol.io import images
from synccontrol.models.codec import PatchAutoencoder
from synccontrol.pipeline.output import Result
from synccontrol.preprocess.estimators.bundled import BundledDepth, BundledPose
from synccontrol.sampling import objectives
from training.cache import HELD_OUT, edges
from training.measure import TOLERANCE, Classifier, train_classifier
from training.networks import CONTROLS
from training.render import BIOMES, TIMES, Scene, render
from training.samples import VAGUE, Picture, control_map, draw_windows, pipeline
from training.train_codec import pictures as tensors

HEIGHT, WIDTH = 256, 1536  # px of a montage that follows a control
VAGUE_WIDTH = 1024  # px of a montage of the vague prompt
MODEL = Path("synccontrol/models/tiny")
STRIP = 8  # windows that are drawn at once, and side by side in one file
DRAWS, SEED = 2000, 0  # of the bootstrap
_CONTROL, _WINDOWS = HELD_OUT + 90_000, HELD_OUT + 95_000  # first seeds of the scenes that are measured on
Figure = dict[str, float]


class Reader:
    """Reads control maps off pictures, and compares them with a scene's own."""

    def __init__(self) -> None:
        self.depth, self.pose = BundledDepth("cpu"), BundledPose("cpu")

    def score(self, control: str, picture: Picture, scene: Scene) -> float:
        """Return depth's RMSE (0..255), the F1 of edges, or the PCK of people, of a picture against a scene."""
        if control == "depth":
            found = Image.fromarray(self.depth(picture)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
            return depth_rmse(255 * np.asarray(found), 255 * scene.depth)
        if control == "canny":
            return edge_f1(edges(picture) > 0, edges(scene.image) > 0, TOLERANCE)
        return pck(self.pose(picture), scene.people)


def figure(values: list[float]) -> Figure:
    """Return a mean with its 95 % bootstrap interval and n."""
    low, high = interval(np.array(values), DRAWS, SEED)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "n": len(values)}


def scenes_of(control: str, count: int) -> list[Scene]:
    """Return wide rendered scenes of all times and places, with six people each where pose is the control."""
    return [
        render(
            np.random.default_rng(_CONTROL + number),
            height=HEIGHT,
            width=WIDTH,
            people=6 if control == "pose" else None,
            time=TIMES[number % len(TIMES)],
            biome=BIOMES[number % len(BIOMES)],
        )
        for number in range(count)
    ]


def measure_control(control: str, count: int, folder: Path) -> dict[str, Figure]:
    """Return how well montages follow a control that is on, that is off, and how well the rendered scenes do."""
    reader, montage = Reader(), Montage.from_pretrained("tiny", controls=[control])
    scores: dict[str, list[float]] = {"on": [], "off": [], "rendered": []}
    for number, scene in enumerate(scenes_of(control, count)):
        guide = Image.fromarray(control_map(scene, control))
        for name, scale in (("on", montage.defaults.sampling.control_scale), ("off", 0.0)):
            sampling = montage.defaults.sampling.replace(control_scale=scale)
            draw = partial(montage, scene.caption, guide, seed=number, sampling=sampling)
            drawn = _kept(folder / f"{control}-{name}-{number}.png", draw)
            scores[name].append(reader.score(control, np.asarray(drawn), scene))
        scores["rendered"].append(reader.score(control, scene.image, scene))
    return {name: figure(values) for name, values in scores.items()}


def measure_coherence(seeds: int, classifier: Classifier, folder: Path) -> dict[str, dict[str, Figure]]:
    """Return how alike the windows of a montage are under a vague prompt, with sync off and on."""
    montage, distance = Montage.from_pretrained("tiny"), objectives.load("stlpips-vgg")
    found: dict[str, dict[str, Figure]] = {}
    for name, sync in (("sync off", SyncConfig(weight=0.0).complete()), ("sync on", montage.defaults.sync)):
        apart, agreeing = [], []
        for seed in range(seeds):
            draw = partial(montage, VAGUE, height=HEIGHT, width=VAGUE_WIDTH, seed=seed, sync=sync)
            drawn = _kept(folder / f"{name.replace(' ', '-')}-{seed}.png", draw)
            windows = [drawn.crop((left, 0, left + HEIGHT, HEIGHT)) for left in range(0, VAGUE_WIDTH, HEIGHT)]
            apart.append(_mean_distance([2 * images.to_tensor(window) - 1 for window in windows], distance))
            times, _ = classifier.names([np.asarray(window) for window in windows])
            agreeing.append(Counter(times).most_common(1)[0][1] / len(times))
        found[name] = {"pairwise ST-LPIPS(VGG)": figure(apart), "windows of the commonest time": figure(agreeing)}
    return found


def _kept(path: Path, draw: Callable[[], Result]) -> Image.Image:
    """Return the picture in a file, drawn first if there is none."""
    if not path.exists():
        draw().image.save(path)
    with Image.open(path) as picture:
        return picture.convert("RGB")


@torch.no_grad()
def _mean_distance(windows: list[torch.Tensor], distance: objectives.AbstractObjective) -> float:
    """Return the mean perceptual distance over all pairs of windows (1, 3, H, W) in -1..1."""
    losses = [distance.for_anchor(a)(torch.cat(windows[i + 1 :])) for i, a in enumerate(windows[:-1])]
    return float(torch.cat(losses).mean())


def measure_fidelity(count: int, folder: Path) -> dict[str, dict[str, Figure]]:
    """Return how near windows drawn from captions alone are to rendered ones, and how near rendered ones are."""
    wanted, reference = (
        [render(np.random.default_rng(_WINDOWS + first + i)) for i in range(count)] for first in (0, count)
    )
    pipe, nothing = pipeline(MODEL, CONTROLS[0]), np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
    sets = {"drawn": [], "rendered": [scene.image for scene in wanted], "reference": [s.image for s in reference]}
    for start in range(0, count, STRIP):
        captions = [scene.caption for scene in wanted[start : start + STRIP]]
        sets["drawn"] += draw_windows(pipe, captions, [nothing] * len(captions), strength=0.0, seed=start)
    sets["coded"] = round_trip(sets["rendered"])
    for name, pictures in sets.items():
        (folder / name).mkdir(exist_ok=True)
        for start in range(0, count, STRIP):
            strip = np.hstack(pictures[start : start + STRIP])
            Image.fromarray(strip).save(folder / name / f"{start:03d}.png")
    settings = Settings(window=HEIGHT, groups=("fidelity",), reference=folder / "reference", offline=True)
    return {
        name: {
            m.metric: {"mean": m.value, "low": m.low, "high": m.high, "n": count}
            for m in score(folder / name, settings, lambda _: None).measurements
        }
        for name in ("drawn", "coded", "rendered")
    }


@torch.no_grad()
def round_trip(pictures: list[Picture]) -> list[Picture]:
    """Return pictures (H, W, 3) as the codec gives them back: what no drawing can be nearer than."""
    codec = PatchAutoencoder.from_pretrained(MODEL / "vae", torch_dtype=torch.float32)
    coded = (codec.encode(tensors(picture[None])).latent_dist.mode() for picture in pictures)
    back = (codec.decode(latents).sample[0].clamp(-1, 1) for latents in coded)
    return [((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy() for picture in back]


def main() -> None:
    """Measure and print, and write the figures as JSON and the pictures beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8, help="montages a control, on and off each")
    parser.add_argument("--seeds", type=int, default=16, help="montages of the vague prompt, sync off and on each")
    parser.add_argument("--windows", type=int, default=25 * STRIP, help="windows drawn, and rendered, for the fidelity")
    parser.add_argument("--out", type=Path, default=Path("out/measure_montages"), help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {}
    for control in CONTROLS:
        report[control] = measure_control(control, arguments.scenes, arguments.out)
        print(control, json.dumps(report[control]), flush=True)
    report["coherence"] = measure_coherence(arguments.seeds, train_classifier(), arguments.out)
    print("coherence", json.dumps(report["coherence"]), flush=True)
    report["fidelity"] = measure_fidelity(arguments.windows, arguments.out)
    print("fidelity", json.dumps(report["fidelity"]), flush=True)
    (arguments.out / "result.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
