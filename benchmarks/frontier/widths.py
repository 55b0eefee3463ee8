"""Does time grow with the width, and memory not? python -m benchmarks.frontier.widths --output ...

The bundled model, the preset `fast`, one thread, from 1024 to 32768 px; a process for each width, whose peak resident
memory is held against that of the first. Linux only.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from synccontrol import Montage

WIDTHS = (1024, 4096, 16384, 32768)  # px
PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


def draw(width: int) -> dict[str, float]:
    """Returns CPU seconds of a picture, model loaded, and the peak resident memory of this process, bytes."""
    torch.set_num_threads(1)
    montage = Montage.from_pretrained("tiny", offline=True)
    start = time.process_time()
    montage("a landscape", height=256, width=width, preset="fast")
    seconds = time.process_time() - start
    peak = int(PEAK.findall(Path("/proc/self/status").read_text(encoding="ascii"))[0]) * 1024
    return {"width": width, "cpu_seconds": seconds, "peak_bytes": peak}


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=int, help="draw this width in this process, and print it as JSON")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.draw:
        print(json.dumps(draw(options.draw)))
        return
    rows = []
    print("| Width, px | CPU seconds | a megapixel | Peak memory, GB |\n|---|---|---|---|")
    for width in WIDTHS:
        command = [sys.executable, "-m", "benchmarks.frontier.widths", "--draw", str(width)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        each = row["cpu_seconds"] / (width * 256 / 1e6)
        print(f"| {width} | {row['cpu_seconds']:.1f} | {each:.1f} | {row['peak_bytes'] / 1e9:.2f} |", flush=True)
    if options.output:
        machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": 1}
        options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
