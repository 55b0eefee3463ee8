"""The forecast as it was at commit b7f881d, when `synccontrol` had no rooms. `benchmarks.memory --before` runs it.

It runs as a script that finds the `synccontrol` of that checkout, and prints one JSON object for every width. The
sizes are given twice: as they were forecast then, and with today's counter, which does not take views of weights for
new tensors, over the same calls with the objective, and with what stayed in memory for a whole picture.
"""

import ast
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import lpips
import torch

COUNTER = Path(__file__).parent.parent / "synccontrol" / "jobs" / "footprint.py"
BATCH, HALVES = 4, 2


def counter() -> Any:
    """Returns today's counter, taken from its file: the package it belongs to is not that of the checkout."""
    tree = ast.parse(COUNTER.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if _is_counter(node)]
    found: dict[str, Any] = {}
    exec(compile(tree, str(COUNTER), "exec"), found)
    return found["Live"]


def _is_counter(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return not str(node.module).startswith("synccontrol")
    return isinstance(node, ast.Import) or getattr(node, "name", None) in ("Live", "_storages")


def objective() -> Any:
    """Returns LPIPS as it was then, its weights random."""
    network = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    network.to(memory_format=torch.channels_last)
    network.to = lambda **_: network  # it is converted; among tensors without data it cannot be again
    return importlib.import_module("synccontrol.objectives").FeatureDistance(network)


def counted(skeleton: Any, layout: Any, gradient: str, distance: Any) -> dict[str, int]:
    """Returns bytes by part, with today's counter over the calls of then."""
    live = counter()
    nudge = importlib.import_module("synccontrol.sync").window_gradient
    z = skeleton.latents(BATCH, *layout.window)
    with torch.no_grad(), live() as sampling:
        skeleton.predict(z, HALVES)
    with live() as syncing:
        with torch.no_grad():
            losses = distance.for_anchor(skeleton.decode(z[:1]))
        nudge(
            z,
            range(BATCH),
            lambda some, _: skeleton.predict(some, HALVES),
            lambda _, prediction: prediction,
            lambda x0: losses(torch.cat([skeleton.decode(one[None]) for one in x0])),
            gradient == "full",
        )
    with torch.no_grad(), live() as decoding:
        skeleton.decode(skeleton.latents(1, *layout.decode_shape))
    (net,) = skeleton._nets
    h, w = skeleton._geometry.window_px
    crop = torch.zeros(1, 3, h, w)
    with torch.no_grad():
        embedding = net.controlnet_cond_embedding(crop.to(torch.float16))
    return {
        "weights": skeleton.weights() + sum(tensor.nbytes for tensor in distance.network.state_dict().values()),
        "embeddings": len(layout) * embedding.nbytes,
        "crops": len(layout) * crop.nbytes,
        "sampling": sampling.peak,
        "sync": syncing.peak,
        "decoding": decoding.peak,
    }


def main() -> None:
    """Prints a line for a model's folder, a gradient, a height and widths."""
    folder, gradient, height, *widths = sys.argv[1:]
    footprint, families, windows, config = (
        importlib.import_module(f"synccontrol.{name}") for name in ("footprint", "families.sd", "windows", "config")
    )
    distance = objective()
    for width in map(int, widths):
        with footprint.fake():
            sources = [(folder, "controlnet-depth")]
            skeleton = families.skeleton(folder, sources, torch.float16, local_files_only=True)
            layout = windows.lay_out(int(height), width, skeleton._geometry, config.WindowConfig())
            then = footprint.rehearse(skeleton, layout, BATCH, HALVES, gradient)
        with footprint.FakeTensorMode(allow_non_fake_inputs=True):
            skeleton = families.skeleton(folder, sources, torch.float16, local_files_only=True)
            parts = counted(skeleton, layout, gradient, distance)
        together = sum(parts[part] for part in ("weights", "embeddings"))
        parts["peak"] = together + max(parts[part] for part in ("sampling", "sync", "decoding"))
        forecast = {**vars(then), "peak": then.peak}
        print(json.dumps({"width": width, "windows": len(layout), "forecast": forecast, "counted": parts}), flush=True)


if __name__ == "__main__":
    main()
