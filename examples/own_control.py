"""Follows a map that was made by a program, a depth map of waves: python examples/own_control.py"""

import numpy as np
from PIL import Image

import preprocess
from synccontrol import Montage

HEIGHT, WIDTH = 256, 1280  # px

rows, columns = np.mgrid[:HEIGHT, :WIDTH]
nearness = np.zeros((HEIGHT, WIDTH))
for ridge, (base, height, length) in enumerate(((110, 45, 420), (150, 25, 230), (190, 12, 530))):
    crest = base - height * np.abs(np.sin(np.pi * columns / length + ridge))
    nearness[rows > crest] = 0.25 + 0.2 * ridge  # far is black, near is white, sky is 0
control_map = Image.fromarray((255 * nearness).astype(np.uint8)).convert("RGB")

for remark in preprocess.remarks("depth", control_map):  # nothing, for a map that can be right
    print(remark)
montage = Montage.from_pretrained("tiny", controls=["depth"])
montage("mountains at dawn", control_map, seed=4).save("own-control.png", overwrite=True)
print("own-control.png")
