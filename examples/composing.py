"""A wide picture composed of parts: python examples/composing.py (add --large to upscale it)"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

import preprocess
from synccontrol import Img2ImgConfig, Montage, Region, UpscaleConfig

GUIDE = Path(__file__).parent / "guides" / "city.png"
depth = preprocess.load("depth")(Image.open(GUIDE))
montage = Montage.from_pretrained("tiny", controls=["depth"])

# A city on the left that follows the guide, a forest, and a lake that is free of it, under one sky.
regions = [
    Region(area="0-35%", prompt="a city"),
    Region(area="35-70%", prompt="a forest", control_scale=0.5),
    Region(area="70-100%", prompt="a lake", control_scale=0.0),
]
first = montage("sunset", depth, regions=regions, seed=3).image

# The forest's middle becomes a meadow; where the mask is black not one pixel changes.
width, height = first.size
mask = Image.new("L", first.size)
ImageDraw.Draw(mask).rectangle((width * 0.45, height * 0.4, width * 0.6, height), fill=255)
second = montage("a meadow at sunset", init_image=first, mask=mask, seed=4).image

# It goes on to the right; with --large it is then drawn over at twice its size.
upscale = UpscaleConfig(upscale=2 if "--large" in sys.argv else 1)
grow = Img2ImgConfig(outpaint="right 256")
third = montage("mountains at sunset", init_image=second, img2img=grow, upscale=upscale, seed=5)
third.save("composed.png", overwrite=True)
print("composed.png", third.config["outpaint"])
