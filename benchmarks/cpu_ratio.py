"""How much CPU time does the default image take, beside commit b1b49a2? python -m benchmarks.cpu_ratio

Each tree has one process, which loads the model once and stays. The two generate the README's image (1536x256, preset
default) in turns, on one thread, from the guide to the image. The tree that goes first changes from pair to pair, and a
pair shares a seed. The result is the ratio of CPU seconds, new / base: the geometric mean over the pairs, with a 95 %
interval by Student's t distribution on the logarithm. Other work on the machine slows both processes of a pair alike.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 1536, 256


def serve() -> None:
    """Generates the default image for each seed on the standard input, and answers with CPU seconds and a digest."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    import torch

    import preprocess  # both trees have it at their top level
    import synccontrol

    for module in (synccontrol, preprocess):
        if not Path(str(module.__file__)).resolve().is_relative_to(Path.cwd()):
            sys.exit(f"{module.__name__} comes from {module.__file__}, not from {Path.cwd()}")
    torch.set_num_threads(1)
    with Image.open("examples/guides/valley.png") as file:
        guide = file.convert("RGB").resize((WIDTH, HEIGHT))
    detect = preprocess.load("depth", offline=True)
    montage = synccontrol.Montage.from_pretrained("tiny", ["depth"], offline=True)
    for line in sys.stdin:
        start = time.process_time()
        result = montage("a mountain valley at sunset", detect(guide), height=HEIGHT, width=WIDTH, seed=int(line))
        seconds = time.process_time() - start
        digest = hashlib.sha256(result.image.tobytes()).hexdigest()
        print(json.dumps({"seconds": seconds, "digest": digest}), file=answers, flush=True)


def ask(worker: "subprocess.Popen[str]", seed: int) -> dict[str, Any]:
    """Returns the CPU seconds and the digest of an image, which a worker generates now."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{seed}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        sys.exit("a worker ended; its error stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Returns the geometric mean of ratios, and the lower and upper end of its 95 % interval."""
    from scipy import stats

    logarithms = [math.log(ratio) for ratio in ratios]
    mean, error = statistics.mean(logarithms), statistics.stdev(logarithms) / math.sqrt(len(ratios))
    reach = float(stats.t.ppf(0.975, len(ratios) - 1)) * error
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def measure(base: Path, new: Path, pairs: int) -> dict[str, Any]:
    """Returns the CPU seconds of both trees, the ratio with its interval, and how many pairs have equal images."""
    from benchmarks.golden import environment, python

    times: dict[str, list[float]] = {"base": [], "new": []}
    equal = 0
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, tree in {"base": base.resolve(), "new": new.resolve()}.items():
            workers[name] = stack.enter_context(
                subprocess.Popen(
                    python(Path(__file__).resolve(), "--serve"),
                    cwd=tree,
                    env=environment(tree),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            ask(workers[name], 0)  # the first image fills caches, and does not count
        for pair in range(pairs):
            order = ("base", "new") if pair % 2 == 0 else ("new", "base")
            answers = {name: ask(workers[name], pair + 1) for name in order}
            for name, answer in answers.items():
                times[name].append(answer["seconds"])
            equal += answers["base"]["digest"] == answers["new"]["digest"]
            first, second = times["base"][-1], times["new"][-1]
            print(
                f"pair {pair + 1:2}: base {first:.2f}, new {second:.2f} CPU s, ratio {second / first:.3f}", flush=True
            )
    ratios = [second / first for first, second in zip(times["base"], times["new"], strict=True)]
    ratio, low, high = interval(ratios)
    return {**times, "ratio": ratio, "interval": [low, high], "equal_images": equal}


def main() -> None:
    """Prints the ratio and its interval, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="2 or more (default: 8)")
    parser.add_argument("--base", type=Path, help="a checkout in place of a temporary one of b1b49a2")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="the new one (default: this one)")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:  # in another tree, which need not have the module that is imported below
        serve()
        return
    if options.pairs < 2:
        parser.error("an interval takes 2 pairs or more")
    from benchmarks.golden import BASE, worktree

    with contextlib.nullcontext(options.base) if options.base else worktree(BASE) as base:
        measured = measure(base, options.tree, options.pairs)
    low, high = measured["interval"]
    print(f"new / base: {measured['ratio']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    print(f"{measured['equal_images']} of {options.pairs} pairs have equal images")
    if options.output is not None:
        options.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
