"""How much memory does decoding a canvas take, in strips and in one call? python -m benchmarks.decoding_memory

`computed`: 512 px high, an autoencoder as large as Stable Diffusion's in float16, rehearsed on tensors without data:
`whole` and `tile` are the peaks of one call, `blending` is what strips hold in float32 beside it, `picture` the result
in 8 bit. `resident`: 256 px high, the bundled model in float32: by how much the peak of a process's resident memory
grows, the picture included, each in a process of its own. Megabytes. Linux only.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.decoding import CELL, autoencoder
from synccontrol import Montage
from synccontrol.batch import memory_estimate
from synccontrol.canvas.flat import Layout

WIDTHS = (2048, 8192, 32768)  # px
HEIGHT, RESIDENT_HEIGHT = 512, 256  # px
STRIDE = 16  # cells; decoding does not depend on it


def upsampled(x0: Tensor) -> Tensor:
    """Stands for a decoder that takes no memory but its picture."""
    return x0[:, :3].repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)


def computed() -> list[dict[str, float]]:
    """Returns what decoding canvases takes, in MB, for an autoencoder as large as SD's in float16."""
    rows = []
    for width in WIDTHS:
        layout = Layout(height=HEIGHT // CELL, width=width // CELL, window=(64, 64), stride=STRIDE)
        row: dict[str, float] = {"width": width, "picture": HEIGHT * width * 3 / 1e6}
        with memory_estimate.fake_mode(), torch.no_grad():
            torch.set_default_dtype(torch.float16)
            vae = autoencoder(1, 4, 64)
            for name, (h, w) in {"whole": layout.shape, "tile": layout.decode_shape}.items():
                with memory_estimate.Live() as live:
                    vae.decode(torch.zeros(1, 4, h, w), return_dict=False)
                row[name] = live.peak / 1e6
            torch.set_default_dtype(torch.float32)
        x0 = torch.zeros(1, 4, *layout.shape)
        with memory_estimate.Live() as live:
            layout.decode(x0, upsampled, CELL, HEIGHT, width)
        row["blending"] = live.peak / 1e6
        rows.append(row)
        print({key: round(value, 1) for key, value in row.items()}, flush=True)
    return rows


def measure_resident(width: int, whole: bool) -> None:
    """Prints by how much the peak of resident memory grows, in MB, while the bundled model decodes a canvas."""
    montage = Montage.from_pretrained("tiny")
    layout = Layout(height=RESIDENT_HEIGHT // CELL, width=width // CELL, window=(32, 32), stride=STRIDE)
    x0 = torch.randn(1, montage.denoiser.geometry.channels, *layout.shape)
    with torch.no_grad():
        montage.denoiser.decode(x0[..., :32])
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        before = high_water()
        tile = layout.width if whole else layout.tile
        layout.decode(x0, montage.denoiser.decode, CELL, RESIDENT_HEIGHT, width, tile)
    print(high_water() - before)


def high_water() -> float:
    """Returns the peak of this process's resident memory in MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def resident() -> list[dict[str, float]]:
    """Returns how much memory the bundled model's decoding takes, in MB, measured in a process of its own each."""
    rows = []
    for width in WIDTHS:
        row: dict[str, float] = {"width": width}
        for name, flags in {"whole": ["--whole"], "strips": []}.items():
            command = [sys.executable, "-m", "benchmarks.decoding_memory", "--resident", str(width), *flags]
            row[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/decoding_memory.json"), help="file")
    parser.add_argument("--resident", type=int, help="px: only measure this process's memory at this width")
    parser.add_argument("--whole", action="store_true", help="with --resident: decode in one call")
    args = parser.parse_args()
    if args.resident is not None:
        measure_resident(args.resident, args.whole)
        return
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    found = {"computed": computed(), "resident": resident(), "machine": machine}
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
