"""Contact sheets of the page on parameters: the same image for several values of one parameter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from docs.drawings import ink
from docs.drawings.sheets import DOCS, control_map, guide, montage
from synccontrol import Montage

FOLDER = DOCS / "images" / "strips"
HEIGHT, WIDTH, SEED = 256, 1024, 5  # px
VAGUE = "a landscape"  # a prompt under which windows choose scenes of their own
IMAGE_WIDTH = 720  # width of an image in a contact sheet, px
LABEL, LETTER = 180, 11  # px: smallest width of a row's label, and width of a letter
Change = Mapping[str, Any]


@dataclass(frozen=True)
class Strip:
    """The contact sheet of one parameter."""

    flag: str
    values: tuple[Any, ...]
    change: Callable[[Any], Change]  # from a value to settings of sampling, windows and sync
    control: str = ""  # control type; empty: prompt alone
    prompt: str = VAGUE


def _sampling(name: str) -> Callable[[Any], Change]:
    return lambda value: {"sampling": {name: value}}


def _windows(name: str) -> Callable[[Any], Change]:
    return lambda value: {"windows": {name: value}}


def _sync(name: str, **others: Any) -> Callable[[Any], Change]:
    return lambda value: {"sync": {**others, name: value}}


ALONE = {"weight": 0.0, "adain": 0.0, "draft_strength": 0.0}  # no sync at all
NUDGED = {**ALONE, "weight": 20.0, "steps": 6}  # the objective alone
STRIPS = {
    "preset": Strip("--preset", ("fast", "default", "best"), lambda value: {"preset": value}),
    "steps": Strip("--steps", (3, 6, 12, 25), _sampling("steps")),
    "guidance-scale": Strip(
        "--guidance-scale", (1.0, 2.5, 4.0, 9.0), _sampling("guidance_scale"), prompt="mountains at sunset"
    ),
    "guidance-end": Strip("--guidance-end", (0.34, 0.67, 1.0), _sampling("guidance_end"), prompt="mountains at sunset"),
    "scheduler": Strip(
        "--scheduler",
        ("ddim", "euler", "euler_a", "dpmpp_2m", "unipc"),
        _sampling("scheduler"),
        prompt="mountains at sunset",
    ),
    "control-scale": Strip(
        "--control-scale", (0.0, 0.7, 1.5, 2.5), _sampling("control_scale"), "depth", "a mountain valley at sunset"
    ),
    "control-end": Strip(
        "--control-end", (0.1, 0.3, 0.6, 1.0), _sampling("control_end"), "depth", "a mountain valley at sunset"
    ),
    "stride": Strip("--stride", (28, 20, 12, 6), _windows("stride")),
    "window-weights": Strip(
        "--window-weights",
        ("uniform", "ramp", "gaussian"),
        lambda value: {"windows": {"weights": value, "stride": 28}, "sync": ALONE},
    ),
    "draft-strength": Strip("--draft-strength", (0.0, 0.5, 0.8, 1.0), _sync("draft_strength", weight=0.0)),
    "draft-noise": Strip("--draft-noise", (1.0, 1.05, 1.15, 1.3), _sync("draft_noise", weight=0.0)),
    "sync-adain": Strip("--sync-adain", (0.0, 0.5, 1.0), _sync("adain", **ALONE)),
    "sync-adain-steps": Strip(
        "--sync-adain-steps", (1, 3, 6, 12), _sync("adain_steps", weight=0.0, draft_strength=0.0)
    ),
    "sync-weight": Strip("--sync-weight", (0.0, 10.0, 20.0, 60.0), _sync("weight", **NUDGED)),
    "sync-steps": Strip("--sync-steps", (1, 3, 6, 12), _sync("steps", **{**NUDGED, "steps": 0})),
    "sync-decay": Strip("--sync-decay", (0.5, 0.95, 1.0), _sync("decay", **{**NUDGED, "weight": 40.0})),
    "objective": Strip("--objective", ("stlpips", "stlpips-vgg"), _sync("objective", **NUDGED)),
    "anchor": Strip("--anchor", (0, "middle", "city.png"), lambda value: _anchored(value)),
}


def _anchored(value: int | str) -> Change:
    is_window = value in (0, "middle")
    return {"sync": {"anchor": value if is_window else guide(str(value).removesuffix(".png"))}}


def _generate(model: Montage, strip: Strip, value: Any) -> Image.Image:
    """Return the image for one value of a parameter."""
    change = dict(strip.change(value))
    preset = {"preset": change.pop("preset")} if "preset" in change else {}
    own: dict[str, Any] = {name: getattr(model.defaults, name).replace(**values) for name, values in change.items()}
    map_ = control_map(strip.control, "valley").resize((WIDTH, HEIGHT)) if strip.control else None
    return model(strip.prompt, map_, height=HEIGHT, width=WIDTH, seed=SEED, **preset, **own).image


def draw() -> None:
    """Write `docs/images/strips/*.png`."""
    for name, strip in STRIPS.items():
        model = montage(*([strip.control] if strip.control else []))
        rows, height = len(strip.values), IMAGE_WIDTH * HEIGHT // WIDTH
        left = max(LABEL, LETTER * len(strip.flag))
        whole = ink.figure(IMAGE_WIDTH + left, rows * (height + 8))
        for row, value in enumerate(strip.values):
            ink.show(ink.panel(whole, left, row * (height + 8), IMAGE_WIDTH, height), _generate(model, strip, value))
            ink.write(whole, 0, row * (height + 8) + height / 2 - 24, strip.flag)
            ink.write(whole, 0, row * (height + 8) + height / 2, f"{value}", ink.INKS[0])
        ink.save(whole, FOLDER / f"{name}.png")
