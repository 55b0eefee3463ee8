"""Draws every guide of a folder, the model loaded once: python examples/folder.py [folder] [output folder]"""

import sys
from pathlib import Path

from PIL import Image

import preprocess
from synccontrol import Montage, SyncControlError

GUIDES = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "guides"
OUTPUT = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("folder")

OUTPUT.mkdir(exist_ok=True)
detect = preprocess.load("canny")
montage = Montage.from_pretrained("tiny", controls=["canny"])
for path in sorted(GUIDES.glob("*.png"))[:3]:
    try:
        result = montage("a landscape at sunset", detect(Image.open(path)), preset="fast")
        result.save(OUTPUT / path.name, overwrite=True)
        print(OUTPUT / path.name)
    except SyncControlError as error:  # one line that says what, why, and what would work; the others go on
        print(f"{path}: {error}", file=sys.stderr)
# What this leaves out (going on after a kill, several runs in one folder, manifests, reports) the command does:
# synccontrol --control canny --guide GUIDES --prompt "a landscape at sunset" --output OUTPUT
