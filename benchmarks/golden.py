"""Does a refactoring generate byte-identical images? python -m benchmarks.golden compares this checkout with b1b49a2.

The golden set is 20 settings of the bundled model: 16 command lines, and 4 library calls with every setting named. Each
tree generates the set in one process of its own, on one thread. The program compares decoded pixels, and the final
latents of library calls bit for bit. It prints a line for each setting; the exit status is 1 if one of them differs.

`--draw TREE OUT` only generates the set, with the code of another checkout.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

BASE = "b1b49a2"  # the commit whose images are the standard
ROOT = Path(__file__).resolve().parents[1]
GUIDES = Path("examples/guides")  # relative, because PNGs record the path
INPUTS, SUMMARY = "inputs", "summary.json"  # in the output folder, beside a folder for each setting

# Names of settings and library arguments, tree by tree, tried in this order: new name by the base's name. For a tree
# that renames `SyncConfig.scaffold` to `draft`, add {"scaffold": "draft"}. A name that is not listed is the base's.
VOCABULARIES: tuple[Mapping[str, str], ...] = (
    {},
    {
        "compose": "img2img",
        "enlarge": "upscale",
        "extras": "adapters",
        "scaffold": "draft_strength",
        "scaffold_noise": "draft_noise",
        "across": "shared_style",
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A setting that the command line generates."""

    name: str
    flags: str  # as in a shell; {inputs} and {recorded} stand for folders
    output: str = "image.png"  # in the setting's folder; empty: the folder itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class LibraryCall:
    """A setting that the library generates, under a depth map of the guide `valley`, 512x256 px."""

    name: str
    sampling: Mapping[str, Any]  # all fields of `SamplingConfig`, by the base's names; likewise below
    windows: Mapping[str, Any]
    sync: Mapping[str, Any]
    dtype: str = "float32"
    from_pipe: bool = False  # the montage is made by `Montage.from_pipe`, and gets the initial latents
    regions: Sequence[Mapping[str, Any]] = ()


def mean_colour_distance(images: "torch.Tensor", anchor: "torch.Tensor") -> "torch.Tensor":
    """Returns an objective of our own, (n,): the squared distance of mean colours to the anchor's."""
    distance: torch.Tensor = (images.mean((2, 3)) - anchor.mean((2, 3))).square().sum(1)
    return distance


SAMPLING: Mapping[str, Any] = {
    "steps": 5,
    "guidance_scale": 4.0,
    "guidance_start": 0.0,
    "guidance_end": 0.8,
    "guidance_rescale": 0.0,
    "clip_skip": 0,
    "control_scale": 1.5,
    "control_start": 0.0,
    "control_end": 1.0,
    "guess_mode": False,
    "scheduler": "dpmpp_2m",
}
WINDOWS: Mapping[str, Any] = {"stride": 16, "batch": 4, "loop": False, "weights": "ramp", "projection": "flat"}
SYNC: Mapping[str, Any] = {
    "weight": 0.0,
    "steps": 5,
    "every": 1,
    "decay": 0.95,
    "gradient": "x0",
    "step_size": "rms",
    "predict": "once",
    "objective": "stlpips",
    "shrink": 2,
    "adain": 1.0,
    "adain_steps": 3,
    "across": 0.1,
    "scaffold": 0.8,
    "scaffold_noise": 1.05,
    "anchor": "middle",
}
PAPER: Mapping[str, Any] = {
    **SYNC,
    "weight": 20.0,
    "steps": 2,
    "gradient": "full",
    "step_size": "gradient",
    "predict": "again",
    "shrink": 1,
    "adain": 0.0,
    "scaffold": 0.0,
    "scaffold_noise": 1.0,
}
OBJECTIVE: Mapping[str, Any] = {**SYNC, "weight": 15.0, "steps": 3, "every": 2, "scaffold": 0.0}

SETTINGS: tuple[CommandLine | LibraryCall, ...] = (
    CommandLine(
        name="depth",  # preset default
        flags="--control depth --guide {guides}/valley.png --fit crop --width 768 --height 256"
        " --prompt 'a mountain valley at sunset' --save-control-map",
    ),
    CommandLine(
        name="canny-fast-style",
        flags="--preset fast --control canny --guide {guides}/city.png --fit crop --width 512 --height 256"
        " --prompt 'a city at night' --style-image {guides}/sea.png --save-control-map",
    ),
    CommandLine(
        name="pose-euler_a-anchor",
        flags="--control pose --guide {guides}/people.png --fit crop --width 640 --height 256 --steps 6"
        " --scheduler euler_a --anchor 0 --prompt 'people on a meadow, noon' --seed 7 --save-control-map",
    ),
    CommandLine(
        name="two-controls-tall-unipc",
        flags="--control depth --control canny --guide {guides}/lake.png --fit crop --width 256 --height 448 --steps 6"
        " --scheduler unipc --control-scale 1.3 0.6 --control-start 0 0.2 --control-end 1 0.8"
        " --prompt 'a lake at dawn' --save-control-map",
    ),
    CommandLine(
        name="text-best-rows",
        flags="--preset best --width 448 --height 320 --tall rows --steps 6 --prompt 'a desert at noon, clouds'"
        " --negative-prompt people",
    ),
    CommandLine(
        name="paper",
        flags="--preset paper --control depth --guide {guides}/valley.png --fit crop --width 384 --height 256"
        " --steps 4 --sync-steps 2 --prompt 'mountains, snow, overcast'",
    ),
    CommandLine(
        name="ring",
        flags="--loop --control depth --guide {guides}/ring.png --fit stretch --width 768 --height 256 --steps 6"
        " --prompt 'a snowy mountain range' --seed 3",
    ),
    CommandLine(
        name="equirectangular-ddim",
        flags="--projection equirectangular --width 816 --height 408 --steps 2 --scheduler ddim"
        " --prompt 'mountains at noon'",
    ),
    CommandLine(
        name="regions",  # with two controls, because this PNG's settings are read again by `recorded`
        flags="--region '0-40%: a city | avoid: people | control: 0.5' --region '40-100%: a forest | soft: 0.25'"
        " --prompt overcast --negative-prompt night --control depth --control canny --control-scale 1.2 0.4"
        " --guide {guides}/valley.png --fit crop --width 512 --height 256 --steps 5 --sync-across 0.3 --seed 11",
    ),
    CommandLine(
        name="region-map-rescale-clip_skip",
        flags="--region 'grey 0: snow' --region 'grey 255: a lake' --region-map {inputs}/regions.png --prompt noon"
        " --width 512 --height 256 --steps 5 --guidance-rescale 0.5 --clip-skip 1 --guidance-start 0.2",
    ),
    CommandLine(name="json-init_image", flags="--settings {inputs}/settings.json --steps 6"),
    CommandLine(
        name="mask",
        flags="--init-image {inputs}/image.png --mask {inputs}/mask.png --mask-soft 0.2 --steps 5"
        " --prompt 'mountains, a lake, sunset'",
    ),
    CommandLine(
        name="extend",
        flags="--init-image {inputs}/image.png --extend right 128 --steps 5 --prompt 'a city at sunset'",
    ),
    CommandLine(
        name="upscale",
        flags="--control depth --guide {guides}/forest.png --fit crop --width 384 --height 256 --steps 5 --upscale 2"
        " --upscale-strength 0.4 --prompt 'a forest at dawn'",
    ),
    CommandLine(name="recorded", flags="--settings {recorded}/regions/image.png"),
    CommandLine(
        name="manifest",  # the second row is a landscape higher than a window: one row that is upscaled
        flags="--guide {inputs}/rows.jsonl --control depth --steps 4 --prompt 'the sea, night'",
        output="",
    ),
    LibraryCall(name="library-default", sampling=SAMPLING, windows=WINDOWS, sync=SYNC),
    LibraryCall(
        name="library-gradient-full",
        sampling={**SAMPLING, "steps": 3, "guidance_end": 1.0, "scheduler": "ddim"},
        windows={**WINDOWS, "weights": "uniform"},
        sync=PAPER,
    ),
    LibraryCall(
        name="library-gradient-x0-float64",
        sampling={**SAMPLING, "steps": 4, "guidance_rescale": 0.3, "control_end": 0.75, "scheduler": "euler"},
        windows={**WINDOWS, "weights": "gaussian", "loop": True, "batch": 3},
        sync=OBJECTIVE,
        dtype="float64",
    ),
    LibraryCall(
        name="library-from_pipe-regions",
        sampling={**SAMPLING, "steps": 4, "guess_mode": True, "scheduler": "model"},
        windows=WINDOWS,
        sync={**OBJECTIVE, "objective": mean_colour_distance, "anchor": 1, "across": 0.2},
        from_pipe=True,
        regions=(
            {"area": "0-50%", "prompt": "a city", "negative_prompt": "people", "control_scale": 0.5, "soft": 0.25},
            {"area": "50-100%", "prompt": "a desert", "negative_prompt": "", "control_scale": 1.0, "soft": 0.5},
        ),
    ),
)


def write_inputs(folder: Path) -> None:
    """Writes the images, settings and manifest that flags name, made from the guides of the current folder."""
    folder.mkdir(parents=True)
    with Image.open(GUIDES / "valley.png") as valley, Image.open(GUIDES / "sea.png") as sea:
        valley.crop((0, 0, 512, 256)).save(folder / "image.png")
        sea.crop((0, 0, 512, 256)).save(folder / "sea.png")
        sea.crop((128, 0, 512, 256)).resize((480, 320), Image.Resampling.BILINEAR).save(folder / "tall.png")
    y, x = np.mgrid[0:256, 0:512]
    for name, area in {"regions": x > 200 + y / 2, "mask": (x > 160) & (x < 400) & (y > 96)}.items():
        Image.fromarray(np.where(area, 255, 0).astype(np.uint8)).save(folder / f"{name}.png")
    settings = {
        "model": "tiny",
        "prompt": "a forest at sunset",
        "negative_prompt": "people",
        "init_image": "image.png",
        "strength": 0.7,
        "colours": "kept",
        "steps": 9,  # the command line names another number
        "guidance_scale": 3.5,
        "scheduler": "dpmpp_2m",
        "seed": 5,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    rows = [
        {"image": "sea.png", "seed": 3, "output": "a.png"},
        {"image": "tall.png", "prompt": "the sea at noon", "control": ["depth", "canny"], "width": 480, "height": 320}
        | {"control_scale": [1.2, 0.4], "output": "deep/b.png"},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_command(setting: CommandLine, out: Path, recorded: Path) -> None:
    """Generates a setting by `cli.py` of the current tree, in this process."""
    folders = {"guides": GUIDES, "inputs": out / INPUTS, "recorded": recorded}
    words = [word.format(**folders) for word in shlex.split(setting.flags)]
    output = out / setting.name / setting.output
    main: Callable[[Sequence[str]], int] = importlib.import_module("cli").main
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = main([*words, "--output", str(output), "--offline", "--device", "cpu", "--quiet"])
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
    if status:
        raise RuntimeError(f"status {status}: {printed.getvalue().strip()}")


def call(function: Callable[..., Any], *positional: object, **named: object) -> Any:
    """Returns the result of a function of the current tree, whose vocabulary is the first that it accepts."""
    refusals: list[str] = []
    for names in VOCABULARIES:
        try:
            return function(*positional, **{names.get(name, name): value for name, value in named.items()})
        except Exception as error:
            refusals.append(f"{type(error).__name__}: {error}")
    raise RuntimeError("; ".join(refusals))


def run_library(setting: LibraryCall, out: Path) -> None:
    """Generates a setting by the library of the current tree, and stores image and latents."""
    import torch

    import preprocess
    import synccontrol

    with Image.open(GUIDES / "valley.png") as guide:
        control_map = preprocess.load("depth", offline=True)(guide.convert("RGB").crop((0, 0, 512, 256)))
    montage = synccontrol.Montage.from_pretrained(
        "tiny", controls=["depth"], dtype=getattr(torch, setting.dtype), offline=True
    )
    arguments: dict[str, Any] = {"height": 256, "width": 512, "negative_prompt": "night", "seed": 1}
    if setting.from_pipe:
        montage = synccontrol.Montage.from_pipe(montage.denoiser.pipe, ["depth"])
        arguments["latents"] = torch.randn((1, 8, 32, 64), generator=torch.Generator().manual_seed(2))
    if setting.regions:
        arguments["regions"] = [call(synccontrol.Region, **region) for region in setting.regions]
    arguments["sampling"] = call(synccontrol.SamplingConfig, **setting.sampling)
    arguments["windows"] = call(synccontrol.WindowConfig, **setting.windows)
    arguments["sync"] = call(synccontrol.SyncConfig, **setting.sync)
    result = call(montage, "a mountain valley at sunset", control_map, **arguments)
    folder = out / setting.name
    folder.mkdir()
    result.image.save(folder / "image.png")
    np.save(folder / "latents.npy", result.latents.numpy())


def run_set(out: Path, recorded: Path, names: Sequence[str]) -> None:
    """Generates settings with the tree in the current folder, and writes which failed and what CPU time they took."""
    check_tree()
    write_inputs(out / INPUTS)
    summary: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        if setting.name not in names:
            continue
        start, error = time.process_time(), ""
        try:
            if isinstance(setting, CommandLine):
                run_command(setting, out, recorded)
            else:
                run_library(setting, out)
        except Exception as raised:  # the other settings are compared nevertheless
            error = " ".join(f"{type(raised).__name__}: {raised}".split())  # a single line
        seconds = time.process_time() - start
        summary[setting.name] = {"cpu_seconds": round(seconds, 2), "error": error, "declared": declaration(setting)}
        print(f"{setting.name:30} {seconds:6.1f} CPU s {error}", flush=True)
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def declaration(setting: CommandLine | LibraryCall) -> dict[str, Any]:
    """Returns a setting as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(setting), default=lambda value: value.__name__))
    return values


def check_tree() -> None:
    """Ends the program unless the code of the current folder is what Python imports; sets one thread."""
    import torch

    import preprocess
    import synccontrol

    for module in (synccontrol, preprocess):
        if not Path(str(module.__file__)).resolve().is_relative_to(Path.cwd()):
            sys.exit(f"{module.__name__} comes from {module.__file__}, not from {Path.cwd()}")
    torch.set_num_threads(1)


def python(script: Path, *arguments: str) -> list[str]:
    """Returns the command of a script that imports nothing from its own folder."""
    return [sys.executable, "-P", str(script), *arguments]


def environment(tree: Path) -> dict[str, str]:
    """Returns environment variables for a process that runs the code of a tree, on one thread and without network."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Yields a temporary checkout of a commit of this repository, which is removed afterwards."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        tree = Path(folder).resolve() / commit
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def draw(tree: Path, out: Path, recorded: Path, names: Sequence[str]) -> None:
    """Generates settings with the code of a tree.

    Args:
        tree: the checkout.
        out: an empty folder, or one that does not exist.
        recorded: the folder that holds the base's images, whose recorded settings are read.
        names: the settings to generate.
    """
    tree, out, recorded = tree.resolve(), out.resolve(), recorded.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        sys.exit(f"{out} is not empty; name another folder")
    command = python(Path(__file__).resolve(), "--worker", str(out), str(recorded), "--only", *names)
    subprocess.run(command, cwd=tree, env=environment(tree), check=True)


def difference(base: Path, new: Path) -> str:
    """Returns in words how two PNGs or arrays differ; empty: they are equal bit for bit."""
    first, second = decoded(base), decoded(new)
    for what in ("kind", "shape"):
        if first[what] != second[what]:
            return f"{what} {first[what]} became {second[what]}"
    if first["values"].tobytes() == second["values"].tobytes():
        return ""
    gaps = np.abs(first["values"].astype(np.float64) - second["values"].astype(np.float64))
    return f"{np.count_nonzero(gaps)} of {gaps.size} values differ, by {gaps.max():.3g} at most"


def decoded(path: Path) -> dict[str, Any]:
    """Returns the values of a PNG or NumPy file, with their shape and their kind: a mode of PIL, or a dtype."""
    if path.suffix == ".npy":
        values = np.load(path)
        return {"kind": str(values.dtype), "shape": values.shape, "values": values}
    with Image.open(path) as image:
        return {"kind": image.mode, "shape": image.size, "values": np.asarray(image)}


def files(folder: Path) -> list[str]:
    """Returns the images and latents in a folder, by their relative paths."""
    paths = [path for path in folder.rglob("*") if path.suffix in (".png", ".npy")]
    return sorted(str(path.relative_to(folder)) for path in paths)


def differences(base: Path, new: Path, setting: CommandLine | LibraryCall) -> list[str]:
    """Returns in words how the two trees' outputs of a setting differ; none: they are equal."""
    summaries = [json.loads((out / SUMMARY).read_text(encoding="utf-8")).get(setting.name) for out in (base, new)]
    for tree, summary in zip(("base", "new"), summaries, strict=True):
        if summary is None or summary["declared"] != declaration(setting):
            return [f"{tree}: generated from another declaration; generate it again"]
        if summary["error"]:
            return [f"{tree}: {summary['error']}"]
    first, second = (files(out / setting.name) for out in (base, new))
    if not first or first != second:
        return [f"the base wrote {', '.join(first) or 'nothing'}; the new tree wrote {', '.join(second) or 'nothing'}"]
    gaps = {name: difference(base / setting.name / name, new / setting.name / name) for name in first}
    return [f"{name}: {gap}" for name, gap in gaps.items() if gap]


def compare(base: Path, new: Path, names: Sequence[str]) -> bool:
    """Prints a line for each setting, and returns whether all of them are equal."""
    totals = {out: json.loads((out / SUMMARY).read_text(encoding="utf-8")) for out in (base, new)}
    unequal = 0
    for setting in SETTINGS:
        if setting.name in names:
            gaps = differences(base, new, setting)
            unequal += bool(gaps)
            print(f"{'DIFFERS' if gaps else 'equal':8} {setting.name:30} {'; '.join(gaps)}".rstrip())
    seconds = [sum(totals[out][name]["cpu_seconds"] for name in names if name in totals[out]) for out in (base, new)]
    print(
        f"{len(names) - unequal} of {len(names)} settings are equal; base {seconds[0]:.0f}, new {seconds[1]:.0f} CPU s"
    )
    return not unequal


def main() -> None:
    """Generates and compares; ends with status 1 if a setting differs."""
    names = [setting.name for setting in SETTINGS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", nargs=2, type=Path, metavar=("TREE", "OUT"), help="generate only, with that checkout")
    parser.add_argument("--base", type=Path, metavar="OUT", help="what --draw made of the base on this machine before")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout that is judged (default: this one)")
    parser.add_argument(
        "--output", type=Path, help="empty folder that keeps what is generated (default: it is removed)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help="settings, by their names"
    )
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        out, recorded = options.worker
        run_set(out, recorded, options.only)
        return
    chosen = [name for name in names if name in options.only or (name == "regions" and "recorded" in options.only)]
    if options.draw is not None:
        tree, out = options.draw
        draw(tree, out, options.base or out, chosen)
        return
    with contextlib.ExitStack() as stack:
        output = options.output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="golden-")))
        base = options.base
        if base is None:
            base = output / "base"
            draw(stack.enter_context(worktree(BASE)), base, base, chosen)
        draw(options.tree, output / "new", base, chosen)
        equal = compare(base, output / "new", chosen)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
