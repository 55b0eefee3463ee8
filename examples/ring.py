"""A ring, 360 degrees that close, following a guide that closes too: python examples/ring.py"""

from pathlib import Path

from PIL import Image, ImageChops

import preprocess
from synccontrol import Montage, WindowConfig

GUIDE = Path(__file__).parent / "guides" / "ring.png"

control_map = preprocess.load("depth", loop=True)(Image.open(GUIDE))  # what it detects closes as well
montage = Montage.from_pretrained("tiny", controls=["depth"])
windows = WindowConfig(loop=True)
result = montage("a snowy mountain range at dawn", control_map, windows=windows)
result.save("ring.png", overwrite=True)

turned = ImageChops.offset(result.image, result.image.width // 2, 0)  # the join, now in the middle: nothing to be seen
turned.save("ring-turned.png")
print("ring.png ring-turned.png; examples/ring_viewer.html shows it from inside")
