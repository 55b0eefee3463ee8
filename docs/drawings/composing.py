"""The pictures of the page on composing."""

from typing import Any

from PIL import Image, ImageDraw

from docs.drawings.sheets import IMAGES, montage, scaled, stack
from synccontrol import ComposeConfig, EnlargeConfig, Region
from synccontrol.enlarge import UPSCALE

HEIGHT, WIDTH, SEED = 256, 1536, 3  # px
PLACES = ("a city", "a forest", "mountains, a lake")


def regions(*prompts: str) -> list[Region]:
    """Returns three regions side by side."""
    areas = ("0-35%", "35-70%", "70-100%")
    return [Region(area=area, prompt=prompt) for area, prompt in zip(areas, prompts, strict=True)]


def draw() -> None:
    """Writes `docs/images/regions.jpg`, `repainting.jpg` and `tall.jpg`."""
    model = montage()
    size: dict[str, Any] = {"height": HEIGHT, "width": WIDTH, "seed": SEED}
    sunset, noon = (model(time, regions=regions(*PLACES), **size).image for time in ("sunset", "noon"))
    turning = regions("mountains at night", "a forest at dawn", "a lake at noon")
    stack([sunset, noon, model(regions=turning, **size).image], IMAGES / "regions.jpg")
    mask = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).rectangle((600, 60, 900, HEIGHT), fill=255)
    lake = model("mountains, a lake, sunset", init_image=sunset, mask=mask, seed=SEED).image
    longer = ComposeConfig(extend="right 256")
    city = model("a city at sunset", init_image=lake, compose=longer, seed=SEED).image
    stack([sunset, lake, city], IMAGES / "repainting.jpg")
    tall: dict[str, Any] = {"height": 2 * HEIGHT, "width": WIDTH, "seed": 0}
    rows = model("a mountain valley at sunset", **tall).image
    row = model("a mountain valley at sunset", enlarge=EnlargeConfig(tall=UPSCALE), **tall).image
    stack([scaled(rows, WIDTH // 2), scaled(row, WIDTH // 2)], IMAGES / "tall.jpg")
