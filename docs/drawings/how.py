"""How it works, in seven drawings: windows, a timestep, merging, sync, the draft, a ring, a sphere."""

from functools import cache

import numpy as np
import torch
from PIL import Image

from docs.drawings import ink, round_things
from docs.drawings.sheets import DOCS, control_map, montage
from synccontrol import SyncConfig, WindowConfig
from synccontrol.canvas.base import _profile
from synccontrol.canvas.flat import Layout, lay_out
from synccontrol.canvas.sphere import Sphere
from synccontrol.pipeline.output import Step

FOLDER = DOCS / "images" / "how"
HEIGHT, WIDTH, CELL = 256, 1536, 8  # px
PROMPT = "a mountain valley at sunset"
VAGUE, SEED = "a landscape", 5  # a prompt under which windows choose scenes of their own
STEP = 4  # the step, from 0, of the drawing of a timestep


def layout(width: int = WIDTH) -> Layout:
    """Return the layout of the windows of a drawing."""
    placed = lay_out(HEIGHT, width, montage("depth").denoiser.geometry, montage("depth").defaults.windows)
    assert isinstance(placed, Layout)
    return placed


def boxes(laid: Layout) -> list[tuple[int, int, int, int]]:
    """Return (left, top, width, height) of windows in px."""
    h, w = laid.window
    return [(left * CELL, top * CELL, w * CELL, h * CELL) for top, left in laid.origins]


@cache
def steps(width: int, prompt: str, synced: bool) -> list[tuple[Step, Image.Image]]:
    """Return every step of an image, with its clean estimate."""
    model = montage("depth")
    map_ = control_map("depth", "valley").resize((width, HEIGHT)) if prompt == PROMPT else None
    plain = montage() if map_ is None else model
    sync = plain.defaults.sync.replace(draft_strength=0.0) if synced else SyncConfig(weight=0.0).complete()
    generated = plain.steps(prompt, map_, height=HEIGHT, width=width, seed=SEED, sync=sync)
    return [(step, step.preview(HEIGHT)) for step in generated]


def latents(step: Step) -> Image.Image:
    """Return three channels of the latents as an image."""
    values = step.x_t[0, :3].float()
    low, high = values.quantile(0.01), values.quantile(0.99)
    pixels = ((values - low) / (high - low)).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((pixels.shape[1] * CELL, pixels.shape[0] * CELL), Image.Resampling.NEAREST)


def windows() -> None:
    """Draw windows on the canvas."""
    image, laid = steps(WIDTH, PROMPT, True)[-1][1], layout()
    whole = ink.figure(1536, 570)
    title = "the canvas, 1536x256 px, and the windows of 256x256 px that cover it; each overlaps its neighbours"
    axes = ink.panel(whole, 0, 36, WIDTH, HEIGHT, title)
    ink.show(axes, image)
    below = ink.panel(whole, 0, 316, WIDTH, 240)
    below.set_xlim(0, WIDTH)
    below.set_ylim(3.75, -0.05)
    for number, (left, top, width, height) in enumerate(boxes(laid)):
        colour, row = ink.INKS[number % 3], number % 3
        ink.frame(axes, (left, top, width, height), colour)
        ink.frame(below, (left, row * 1.3, width, 1.1), colour, fill=0.18)
        label = f"window {number}" + (" (anchor)" if number == laid.middle else "")
        below.text(left + width / 2, row * 1.3 + 0.55, label, ha="center", va="center", color=colour, fontsize=16)
    ink.save(whole, FOLDER / "windows.png")


def timestep() -> None:
    """Draw one timestep: crop, sync, predict, merge, step."""
    width = 640
    laid, generated = layout(width), steps(width, PROMPT, True)
    (before, _), (after, estimate) = generated[STEP], generated[STEP + 1]
    map_ = control_map("depth", "valley").resize((width, HEIGHT))
    whole = ink.figure(1320, 960)
    for column, (image, label) in enumerate(((latents(before), "the canvas, noisy"), (map_, "the control map"))):
        axes = ink.panel(whole, 680 * column, 36, width, HEIGHT, f"1  crop: {label}")
        ink.show(axes, image)
        for number, box in enumerate(boxes(laid)):
            ink.frame(axes, box, ink.INKS[number])
    ink.write(
        whole,
        0,
        318,
        "2  sync moves windows towards the anchor;  3  networks predict each window: from noise and map, the estimate",
    )
    side = 96
    for number, (left, top, high, wide) in enumerate(boxes(laid)):
        crop = (left, top, left + wide, top + high)
        for place, image in enumerate((latents(before), map_, estimate)):
            axes = ink.panel(whole, number * 338 + place * (side + 6), 352, side, side)
            ink.show(axes, image.crop(crop))
            ink.frame(axes, (2, 2, wide - 4, high - 4), ink.INKS[number])
        ink.write(whole, number * 338, 456, f"window {number}", ink.INKS[number])
    ink.write(
        whole,
        0,
        530,
        "4  the windows' predictions are merged on the canvas;  5  the scheduler takes one step with them",
    )
    results = ((latents(after), "the canvas, a little cleaner"), (estimate, "the clean estimate, decoded"))
    for column, (image, label) in enumerate(results):
        ink.show(ink.panel(whole, 680 * column, 600, width, HEIGHT, label), image)
    ink.write(
        whole,
        0,
        880,
        f"step {STEP + 2} of {after.steps}; three of the eight channels of the latents are shown",
    )
    ink.save(whole, FOLDER / "timestep.png")


def merging() -> None:
    """Draw the weights of windows, and images whose windows overlap little."""
    whole = ink.figure(1500, 570)
    for place, name in enumerate(("uniform", "ramp", "gaussian")):
        axes = ink.panel(whole, 50 + place * 500, 40, 420, 180, f"--window-weights {name}")
        axes.set_axis_on()
        axes.patch.set_alpha(0)
        profile = _profile(32, name).numpy()
        total = np.zeros(32 + 2 * 20)
        for number in range(3):
            total[number * 20 : number * 20 + 32] += profile
        for number in range(3):
            cells = np.arange(number * 20, number * 20 + 32)
            axes.fill_between(cells, profile / total[cells], step="mid", color=ink.INKS[number], alpha=0.5)
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("latent cells: the share of three windows", fontsize=13)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    plain = montage()
    for place, name in enumerate(("uniform", "ramp")):
        image = plain(
            VAGUE,
            height=HEIGHT,
            width=1024,
            seed=SEED,
            windows=WindowConfig(stride=28, weights=name).complete(),
            sync=SyncConfig(weight=0.0).complete(),
        ).image
        title = f"{name} weights, windows overlap by an eighth, without sync"
        ink.show(ink.panel(whole, place * 756, 350, 744, 186, title), image)
    ink.save(whole, FOLDER / "merging.png")


def nudge() -> None:
    """Draw the clean estimates of some steps, without sync and with sync."""
    alone, together = steps(1280, VAGUE, False), steps(1280, VAGUE, True)
    rows = (1, 3, 6, len(alone) - 1)
    whole = ink.figure(1500, 750)
    for column, (title, generated) in enumerate((("without sync", alone), ("with sync", together))):
        for row, index in enumerate(rows):
            label = f"step {index + 1}" + (f", {title}" if not row else "")
            ink.show(ink.panel(whole, column * 756, 36 + row * 184, 744, 149, label), generated[index][1])
    ink.save(whole, FOLDER / "nudge.png")


def draft() -> None:
    """Draw the draft (the whole canvas in one window), and the image with and without it."""
    model, width = montage("depth"), 1280
    map_, sync = control_map("depth", "valley").resize((width, HEIGHT)), model.defaults.sync
    with_draft, without = (
        list(model.steps(PROMPT, map_, height=HEIGHT, width=width, seed=SEED, sync=config))
        for config in (sync, sync.replace(draft_strength=0.0))
    )
    small = [step for step in with_draft if step.x_t.shape[-1] * CELL == HEIGHT][-1].preview(HEIGHT)
    whole = ink.figure(1560, 1200)
    for row, (label, image) in enumerate((("the guide", map_), ("the draft", small))):
        ink.show(ink.panel(whole, 0, 36 + 300 * row, 256, HEIGHT, f"squeezed: {label}"), image.resize((256, HEIGHT)))
        ink.show(
            ink.panel(whole, 280, 36 + 300 * row, width, HEIGHT, "the draft, stretched" if row else "the guide"), image
        )
    for row, (label, generated) in enumerate((("denoised over the draft", with_draft), ("without a draft", without))):
        ink.show(ink.panel(whole, 280, 636 + 300 * row, width, HEIGHT, label), generated[-1].preview(HEIGHT))
    ink.save(whole, FOLDER / "scaffold.png")


def ring() -> None:
    """Draw a cylindrical panorama (ring), flat and seen from above."""
    model, loop = montage("depth"), montage("depth").defaults.windows.replace(loop=True)
    image = model("a landscape at sunset", control_map("depth", "ring", True), windows=loop).image
    laid = lay_out(image.height, image.width, model.denoiser.geometry, loop)
    assert isinstance(laid, Layout)
    whole = ink.figure(1400, 840)
    height = 1400 * image.height / image.width
    title = "the image: a window that crosses the right edge continues at the left"
    axes = ink.panel(whole, 0, 36, 1400, height, title)
    ink.show(axes, image)
    last = max(left for _, left in laid.origins) * CELL
    for left in (last, last - image.width):
        ink.frame(axes, (left, 3, 256, image.height - 6), ink.INKS[1], fill=0.15)
    top = 36 + height + 20
    bent = ink.panel(whole, 430, top, 540, 540)
    ink.show(bent, round_things.bent(image, 900))
    ink.write(whole, 0, top + 20, "the same image, bent to a ring, seen from above,")
    ink.write(whole, 0, top + 46, "with its windows")
    for number, (_, cell) in enumerate(laid.origins):
        angles = np.radians(np.linspace(cell, cell + 32, 50) * 360 * CELL / image.width - 90)
        reach = 440 + 12 * (1 + number % 2)
        colour = ink.INKS[1] if cell * CELL == last else ink.INKS[0]
        bent.plot(450 + reach * np.cos(angles), 450 + reach * np.sin(angles), color=colour, linewidth=3)
    bent.set_xlim(-30, 930)
    bent.set_ylim(930, -30)
    ink.save(whole, FOLDER / "ring.png")


def whole_depth(width: int, height: int) -> Image.Image:
    """Return a depth map of a whole sphere: mountains around the horizon, ground below, sky above."""
    strip = control_map("depth", "ring", True).resize((width, height // 3))
    ground = int(np.asarray(strip)[-1].mean())
    near = np.linspace(ground, 255, height)[:, None].astype(np.uint8)
    whole = Image.fromarray(np.repeat(near, width, axis=1)).convert("RGB")
    middle = height // 2 - height // 5
    whole.paste("black", (0, 0, width, middle))
    whole.paste(strip, (0, middle))
    return whole


def sphere() -> None:
    """Draw an equirectangular panorama (sphere) with some of its windows, flat and on a ball."""
    width, height = 1024, 512
    model = montage("depth")
    around = model.defaults.windows.replace(projection="equirectangular", stride=16)
    image = model("a landscape at noon", whole_depth(width, height), windows=around).image
    laid = lay_out(height, width, model.denoiser.geometry, around)
    assert isinstance(laid, Sphere)
    whole = ink.figure(1500, 540)
    title = f"the image, and the borders of five of its {len(laid)} windows"
    flat = ink.panel(whole, 0, 40, 960, 480, title)
    ink.show(flat, image)
    ball = ink.panel(whole, 1000, 40, 480, 480, "the same on a ball")
    ink.show(ball, round_things.ball(image, 600))
    views = [laid.middle, laid.middle + 1, laid.middle - 4, 1, len(laid) - 1]
    for number, view in enumerate(views):
        border = round_things.border(laid.rays(1, view))
        for x, y in round_things.on_map(border, width, height):
            flat.plot(x, y, color=ink.INKS[number], linewidth=2.5)
        x, y = round_things.on_ball(border, 600)
        ball.plot(x, y, color=ink.INKS[number], linewidth=2.5)
    ink.save(whole, FOLDER / "sphere.png")


def draw() -> None:
    """Write `docs/images/how/*.png`."""
    with torch.inference_mode():
        for drawing in (windows, timestep, merging, nudge, draft, ring, sphere):
            drawing()
