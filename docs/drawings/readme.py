"""The images of the README and of the page on controls."""

from collections.abc import Sequence

from docs.drawings.sheets import IMAGES, control_map, guide, montage, stack
from synccontrol import SyncConfig

EXAMPLES = {  # control -> guide, and two prompts
    "depth": ("valley", ("a mountain valley at night", "a snowy mountain valley at dawn")),
    "canny": ("desert", ("a desert at noon", "a desert at sunset")),
    "pose": ("people", ("people on a meadow, noon", "people in the snow at dawn")),
}
DEMO = "a mountain valley at sunset"  # the prompt of `make demo`


def follow(control: str, name: str, prompts: Sequence[str]) -> None:
    """Write a control map above the images that follow it."""
    images = [montage(control)(prompt, control_map(control, name)).image for prompt in prompts]
    stack([control_map(control, name), *images], IMAGES / f"{control}.png")


def draw() -> None:
    """Write `docs/images/demo.png`, an image for every control, `when.png` and `sync.png`."""
    stack([guide("valley"), montage("depth")(DEMO, control_map("depth", "valley")).image], IMAGES / "demo.png")
    for control, (name, prompts) in EXAMPLES.items():
        follow(control, name, prompts)
    plain = montage()
    settings = [SyncConfig(weight=0.0).complete(), plain.defaults.sync]
    model = montage("depth")
    valley = control_map("depth", "valley")
    both = [SyncConfig(weight=0.0).complete(), model.defaults.sync]
    stack([model(DEMO, valley, sync=sync).image for sync in both], IMAGES / "when.png")
    stack(
        [plain("a landscape", height=256, width=1536, seed=5, sync=sync).image for sync in settings],
        IMAGES / "sync.png",
    )
