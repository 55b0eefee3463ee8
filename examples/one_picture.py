"""From a guide to a wide picture with the library: python examples/one_picture.py"""

from pathlib import Path

from PIL import Image

import preprocess
from synccontrol import Montage

GUIDE = Path(__file__).parent / "guides" / "valley.png"

control_map = preprocess.load("depth")(Image.open(GUIDE))
montage = Montage.from_pretrained("tiny", controls=["depth"])
result = montage(
    "a mountain valley at night",
    control_map,
    seed=1,
    on_step=lambda step: print(f"step {step.index + 1} of {step.steps}"),
)
result.image.save("valley-night.png")
print("valley-night.png", result.config)
