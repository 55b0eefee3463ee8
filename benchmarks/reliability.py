"""Does a batch survive what happens to it? python -m benchmarks.reliability EXPERIMENT [flags]

kills      a run is killed (kill -9) again and again, and started again: are all pictures there, and the same bytes?
workers    of one run on Ray, workers are killed again and again: the same question
together   several runs work in one folder: is each picture made once?
memory     does a process grow over many pictures?

Items are as cheap as they get: one window of the bundled model, one step, no sync.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
SIDE = 256  # px, one window of the bundled model
GUIDES = 4
LONGEST = 3600.0  # s that a run may take
POLL = 0.1  # s
WORKER_NAME = "ray::Remote"  # of Ray's workers, in the process list
WARM_UP = 0.2  # of the items, whose memory does not count
BLOCKS = 20  # of the other items, whose means are compared


def prepare(folder: Path, items: int) -> Path:
    """Returns a manifest of so many pictures of a few guides, half of them with their control maps detected."""
    rows = []
    for number in range(GUIDES):
        blocks = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        guide = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        guide.save(folder / f"guide{number}.png")
    for item in range(items):
        rows.append({"image": f"guide{item % GUIDES}.png", "seed": item, "output": f"{item % 10}/{item}.png"})
    manifest = folder / "rows.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return manifest


def command(manifest: Path, output: Path, *flags: str) -> list[str]:
    """Returns the command of a run."""
    cheap = ["--steps", "1", "--sync-weight", "0", "--guidance-scale", "1", "--offline", "--device", "cpu", "--quiet"]
    what = ["--guide", str(manifest), "--control", "canny", "--prompt", "hills", "--save-control-map"]
    return [sys.executable, "-m", "synccontrol", *what, *cheap, "--output", str(output), *flags]


def start(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Starts a run, in a group of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def finish(words: Sequence[str]) -> None:
    """Has a run go to its end."""
    assert start(words).wait(LONGEST) == 0, "a run failed"


def content(folder: Path) -> dict[str, str]:
    """Returns the hash of every file of a folder but the records, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "results.jsonl"
    }


def records(folder: Path) -> list[dict[str, Any]]:
    """Returns the records of a run, those that were cut short left out."""
    found = []
    path = folder / "results.jsonl"
    for line in path.read_text(encoding="ascii").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def made(folder: Path) -> int:
    """Returns how many pictures are there."""
    return sum(1 for path in folder.glob("*/*.png") if path.stem.isdigit())


def compared(whole: Path, other: Path) -> dict[str, int]:
    """Returns how the files of a folder differ from those of an undisturbed run."""
    before, after = content(whole), content(other)
    return {
        "files": len(before),
        "missing": len(before.keys() - after.keys()),
        "left_over": len(after.keys() - before.keys()),
        "other_bytes": sum(before[name] != after[name] for name in before.keys() & after.keys()),
    }


def kills(folder: Path, items: int, count: int, seed: int) -> dict[str, Any]:
    """Kills a run again and again at random instants, from its first moment on, and then lets it finish."""
    chance = random.Random(seed)
    manifest = prepare(folder, items)
    finish(command(manifest, folder / "whole"))
    output = folder / "out"
    killed = early = 0
    while killed < count:
        process = start(command(manifest, output))
        goal = made(output) + chance.randint(0, 2 * items // (count + 1))
        while process.poll() is None and made(output) < goal:
            time.sleep(POLL)
        before = made(output)
        time.sleep(chance.uniform(0, 0.5))
        if process.poll() is not None:  # it was done before
            shutil.rmtree(output)
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
        early += before == 0
    finish(command(manifest, output))
    ran = Counter(record["output"] for record in records(output) if record["status"] == "made")
    drawn = {"items": items, "kills": killed, "drawn_twice": sum(number > 1 for number in ran.values())}
    return {**drawn, **compared(folder / "whole", output)}


def workers(folder: Path, items: int, count: int, seed: int) -> dict[str, Any]:
    """Kills random workers of one run on Ray."""
    chance = random.Random(seed)
    manifest = prepare(folder, items)
    finish(command(manifest, folder / "whole"))
    output = folder / "out"
    process = start(command(manifest, output, "--engine", "ray", "--workers", "2"))
    killed = 0
    while killed < count and process.poll() is None:
        goal = made(output) + chance.randint(1, max(1, 2 * items // (count + 2)))
        while process.poll() is None and made(output) < min(goal, items - 2):
            time.sleep(POLL)
        alive = process.poll() is None
        victims = [child for child in psutil.Process(process.pid).children(True) if _is_worker(child)] if alive else []
        if victims:
            time.sleep(chance.uniform(0, 0.2))
            chance.choice(victims).kill()
            killed += 1
    assert process.wait(LONGEST) == 0, "the run failed"
    return {"items": items, "workers_killed": killed, **compared(folder / "whole", output)}


def _is_worker(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline() and process.cmdline()[0].startswith(WORKER_NAME))
    except psutil.Error:
        return False


def together(folder: Path, items: int, count: int, seed: int) -> dict[str, Any]:
    """Has several runs work in one folder; one of them is killed on the way."""
    manifest = prepare(folder, items)
    finish(command(manifest, folder / "whole"))
    output = folder / "out"
    runs = [start(command(manifest, output)) for _ in range(count)]
    goal = random.Random(seed).randint(items // 4, items // 2)
    while made(output) < goal:
        time.sleep(POLL)
    os.killpg(runs[0].pid, signal.SIGKILL)
    runs[0].wait()
    assert [run.wait(LONGEST) for run in runs[1:]] == [0] * (count - 1), "a run failed"
    drawn = Counter(record["output"] for record in records(output) if record["status"] == "made")
    by = Counter(record["worker"] for record in records(output) if record["status"] == "made")
    return {
        "items": items,
        "runs": count,
        "killed": 1,
        "drawn_twice": sum(number > 1 for number in drawn.values()),
        "share_of_each_run": sorted(by.values()),
        **compared(folder / "whole", output),
    }


def memory(folder: Path, items: int, count: int, seed: int) -> dict[str, Any]:
    """Watches the memory of a run: its slope over items, bytes a picture, with its 95 % interval."""
    manifest, output = prepare(folder, items), folder / "out"
    process = start(command(manifest, output))
    seen: dict[int, int] = {}
    while process.poll() is None:
        try:
            seen.setdefault(made(output), psutil.Process(process.pid).memory_info().rss)
        except psutil.Error:
            break
        time.sleep(POLL)
    assert process.wait() == 0, "the run failed"
    points = [(item, held) for item, held in sorted(seen.items()) if item >= WARM_UP * items]
    blocks = [np.mean(block, axis=0) for block in np.array_split(np.array(points, dtype=float), BLOCKS) if len(block)]
    line = stats.linregress([block[0] for block in blocks], [block[1] for block in blocks])
    spread = float(stats.t.ppf(0.975, len(blocks) - 2) * line.stderr)
    return {
        "items": items,
        "bytes_a_picture": round(line.slope),
        "interval": [round(line.slope - spread), round(line.slope + spread)],
        "first": round(blocks[0][1]),
        "last": round(blocks[-1][1]),
    }


EXPERIMENTS: dict[str, tuple[Callable[[Path, int, int, int], dict[str, Any]], int]] = {  # and how many of what
    "kills": (kills, 50),
    "workers": (workers, 50),
    "together": (together, 4),
    "memory": (memory, 0),
}


def main() -> None:
    """Prints what was found, and adds it to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--items", type=int, default=1000, help="pictures (default: 1000)")
    parser.add_argument("--count", type=int, help="kills, or runs (default: 50, or 4)")
    parser.add_argument("--seed", type=int, default=0, help="of when and whom to kill (default: 0)")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    experiment, count = EXPERIMENTS[options.experiment]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = experiment(Path(folder), options.items, options.count or count, options.seed)
    found |= {"seconds": round(time.monotonic() - begin), "date": time.strftime("%Y-%m-%d")}
    print(json.dumps({options.experiment: found}))
    if options.output is not None:
        known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
        known[options.experiment] = found
        options.output.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
