"""The images of the page on composing."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from docs.drawings.sheets import IMAGES, montage, row, scaled, stack
from synccontrol import Img2ImgConfig, Region, UpscaleConfig
from synccontrol.spec.settings import UPSCALE

HEIGHT, WIDTH, SEED = 256, 1536, 3  # px
PLACES = ("a city", "a forest", "mountains, a lake")
TOWER = (512, 1024)  # width and height, px


def regions(*prompts: str) -> list[Region]:
    """Return three regions side by side."""
    areas = ("0-35%", "35-70%", "70-100%")
    return [Region(area=area, prompt=prompt) for area, prompt in zip(areas, prompts, strict=True)]


def tower() -> Image.Image:
    """Return the depth map of a tower in front of a hill."""
    width, height = TOWER
    y, x = np.mgrid[:height, :width].astype(float)
    hill = np.maximum(1 - np.abs(x - 380) / 260, 0) * 110
    ground = np.where(
        y > 620 - hill, np.maximum((y - 620) * 0.75 / 404, 0.18 + 0.1 * np.clip((y - 500) / 500, 0, 1)), 0
    )
    away = np.abs(x - 230)
    walls = (away < 70 - 18 * np.clip((700 - y) / 600, 0, 1)) & (y > 180) & (y < 900)
    roof = (away < (y - 90) * 0.75) & (y > 90) & (y <= 180)
    eaves = (away < 72) & (y > 180) & (y < 215)
    depth = np.where(eaves, 0.64, np.where(walls | roof, 0.62, ground))
    return Image.fromarray((255 * depth).astype(np.uint8)).convert("RGB")


def at_two_scales() -> None:
    """Write `docs/images/scales.jpg`."""
    model, (width, height), depth = montage("depth"), TOWER, tower()
    options: dict[str, Any] = {"prompt": "a city at sunset", "control_map": depth, "seed": 2}
    rows = model(**options, height=height, width=width).image
    upscaled = model(**options, height=height // 2, width=width // 2, upscale=UpscaleConfig(upscale=2)).image
    row([scaled(image, width // 2) for image in (depth, rows, upscaled)], IMAGES / "scales.jpg")


def draw() -> None:
    """Write all images of the page."""
    at_two_scales()
    model = montage()
    size: dict[str, Any] = {"height": HEIGHT, "width": WIDTH, "seed": SEED}
    sunset, noon = (model(time, regions=regions(*PLACES), **size).image for time in ("sunset", "noon"))
    mixed = regions("mountains at night", "a forest at dawn", "a lake at noon")
    stack([sunset, noon, model(regions=mixed, **size).image], IMAGES / "regions.jpg")
    mask = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).rectangle((600, 60, 900, HEIGHT), fill=255)
    lake = model("mountains, a lake, sunset", init_image=sunset, mask=mask, seed=SEED).image
    outpaint = Img2ImgConfig(outpaint="right 256")
    city = model("a city at sunset", init_image=lake, img2img=outpaint, seed=SEED).image
    stack([sunset, lake, city], IMAGES / "repainting.jpg")
    tall: dict[str, Any] = {"height": 2 * HEIGHT, "width": WIDTH, "seed": 0}
    rows = model("a mountain valley at sunset", **tall).image
    upscaled = model("a mountain valley at sunset", upscale=UpscaleConfig(tall_canvas=UPSCALE), **tall).image
    stack([scaled(rows, WIDTH // 2), scaled(upscaled, WIDTH // 2)], IMAGES / "tall.jpg")
