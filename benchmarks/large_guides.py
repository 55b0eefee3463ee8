"""How much memory does reading a large guide take? python -m benchmarks.large_guides

Each file is opened in a process of its own, as the command line opens guides; its peak resident memory is given above
that of a process which opens a picture of one pixel. Linux only.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from synccontrol.io import images

SIZES = {"100 MP": (20000, 5000), "300 MP": (30000, 10000)}  # width, height, px
KINDS = {
    "JPEG": ("RGB", "jpg"),
    "PNG": ("RGB", "png"),
    "PNG with transparency": ("RGBA", "png"),
    "16-bit PNG": ("I;16", "png"),
}


def write(path: Path, mode: str, width: int, height: int) -> None:
    """Writes a picture of smooth waves."""
    waves = 127.5 + 120 * np.sin(np.arange(width) / 500)
    if mode == "I;16":
        values = np.broadcast_to((waves * 257).astype(np.uint16), (height, width))
    else:
        values = np.broadcast_to(waves.astype(np.uint8)[:, None], (height, width, len(mode)))
    Image.MAX_IMAGE_PIXELS = None
    Image.fromarray(values).save(path, compress_level=1)


def measure(path: Path) -> None:
    """Opens a picture and prints its size as it is kept, the seconds and the peak memory of this process in MB."""
    start = time.process_time()
    kept = images.open_image(path)
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000
    print(kept.width, kept.height, seconds, peak)


def measured(path: Path) -> list[float]:
    """Returns what `measure` prints in a new process."""
    command = [sys.executable, "-m", "benchmarks.large_guides", str(path)]
    return [float(word) for word in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def main() -> None:
    """Prints a line for every size and kind of file; given a file, measures that."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.png"
        write(small, "RGB", 1, 1)
        base = measured(small)[-1]
        for size, (width, height) in SIZES.items():
            for kind, (mode, suffix) in KINDS.items():
                path = Path(folder) / f"guide.{suffix}"
                write(path, mode, width, height)
                kept_w, kept_h, seconds, peak = measured(path)
                print(
                    f"{size} {kind:22} kept at {kept_w:.0f}x{kept_h:.0f}  {seconds:5.1f} s  {peak - base:6.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
