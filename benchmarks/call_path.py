"""How far is it to the sampling loop? python -m benchmarks.call_path [TREE ...]

Two ways are counted, from their start until the generator `montage_steps` of `sampling/loop.py` is first entered:

job    `cli.main` with a guide, a prompt and no setting: from the command line to the loop
map    `montage(prompt, control_map, height=, width=)`, the model loaded: from `Montage` to the loop

Each runs TREE's code in a process of its own: one thread, the bundled model, 512x256 px, nothing cached in memory.

An *own function* is a `def` in `synccontrol/` or `preprocess/`. Lambdas, comprehensions, bodies of modules and classes,
and whatever runs while a module is imported are not counted; neither are `__init__` methods that dataclasses generate.
A generator is entered once, however often it is resumed. A *room* is a folder or a module directly below
`synccontrol/`, or `preprocess`.

The *carried path* is the sequence of entries of own functions that are handed the job or the control map, in the order
of the calls, in all threads. Every argument counts, `self` too. An argument hands the job over if it is

- the flags: a list of strings with `--prompt` in it, or a mapping that holds the prompt and the seed;
- an object of a class in `JOB_CLASSES`, or of a subclass;
- an object of any other own class that holds the prompt as an attribute.

All arguments of a call together are such a mapping too, so that a job that is handed over field by field is followed.
An argument hands the control map over if it is an image, array or tensor of the map's colour. The map has one colour,
`DYE`, which survives resizing, cropping and scaling; no other data of a call looks like it. Tuples, lists, mappings,
partial calls and what a nested function has bound (except its `self`) hand over what they contain. Objects of own
classes hand over what they hold, directly or in another own object, and no deeper.

A *stay* is a run of consecutive entries in one room. A *return* is a stay in a room that was left before, so returns
are stays minus rooms. "Once" is the same path with only the first entry of each function, as a reader walks it: what a
loop or a second pass repeats is gone. The *stack* holds the own functions that are active when the loop is entered,
outermost first. A thread continues the stack of the function that started the thread.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import CO_OPTIMIZED, CO_VARARGS, CO_VARKEYWORDS
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Classes that carry a job, as all trees that are compared name them. Others that hold the prompt are followed too.
JOB_CLASSES = {
    *("Namespace", "Job", "Task", "TimedTask", "ImageSpec", "Stage", "Stages", "StageRun"),
    *("Laid", "Picture", "Drawing", "Pass", "Passes"),  # names of earlier versions
}
LOOP = ("sampling/loop.py", "montage_steps")
PACKAGES = ("synccontrol", "preprocess")
HEIGHT, WIDTH = 256, 512  # px
PROMPT, SEED = "a mountain valley at sunset, as seen by the tracer", 20261130
DYE = (17, 93, 201)  # RGB of the control map
DYE_RATIO = (DYE[1] - DYE[0]) / (DYE[2] - DYE[0])  # survives any scaling of the values
TOLERANCE = 0.02  # of that ratio
HELD = 2  # levels of own objects in which a job or map is looked for
RESUMED = 0b11  # bits of RESUME's argument that are set where a generator goes on
WAYS = ("job", "map")

Rule = Callable[[object], bool]


class Place(NamedTuple):
    """Where an own function lives."""

    room: str
    module: str
    function: str


class Entry(NamedTuple):
    """One entry of an own function; `carrier` is the argument that hands over what is followed, or empty."""

    place: Place
    carrier: str


class Record(NamedTuple):
    """What a process saw on one way."""

    entries: list[Entry]
    stack: list[Place]  # at the loop, outermost first


class Walk(NamedTuple):
    """How a sequence of places moves through rooms."""

    stays: int
    rooms: int
    returns: int


def walk(places: Sequence[Place]) -> Walk:
    """Count stays, rooms and returns of a sequence of places."""
    rooms = [place.room for place in places]
    stays = [room for number, room in enumerate(rooms) if number == 0 or rooms[number - 1] != room]
    return Walk(len(stays), len(set(stays)), len(stays) - len(set(stays)))


def is_own(value: object) -> bool:
    """Return whether a value's class is defined in the traced packages."""
    return type(value).__module__.partition(".")[0] in PACKAGES


def attributes(value: object) -> list[object]:
    """Return the values of an object's attributes, those in slots included."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    held = [getattr(value, name) for name in slots if name not in ("__dict__", "__weakref__") and hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *held]


def carries_job(value: object) -> bool:
    """Return whether a value is the job in one of its forms."""
    if isinstance(value, Mapping):
        return value.get("prompt") == PROMPT and "seed" in value
    if isinstance(value, (list, tuple)) and PROMPT in [item for item in value if isinstance(item, str)]:
        return "--prompt" in value
    if JOB_CLASSES & {kind.__name__ for kind in type(value).__mro__}:
        return True
    return is_own(value) and PROMPT in [item for item in attributes(value) if isinstance(item, str)]


def carries_map(value: object) -> bool:
    """Return whether a value is an image, array or tensor that shows the dye."""
    if isinstance(value, Image.Image):
        return is_dyed(np.asarray(value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "buif" and is_dyed(value)
    if type(value).__module__ == "torch" and type(value).__name__ == "Tensor":
        tensor: Any = value
        return tensor.device.type == "cpu" and is_dyed(tensor.detach().double().numpy())
    return False


def is_dyed(values: np.ndarray[Any, Any]) -> bool:
    """Return whether three channels, along any axis, are constant and as far apart as those of the dye."""
    if values.ndim < 3 or not values.size:
        return False
    for axis in (axis for axis, size in enumerate(values.shape) if size == len(DYE)):
        channels = np.moveaxis(values, axis, 0).reshape(len(DYE), -1).astype(np.float64)
        red, green, blue = channels.mean(axis=1)
        spread = abs(blue - red)
        if spread and np.ptp(channels, axis=1).max() < TOLERANCE * spread:
            return bool(abs((green - red) / (blue - red) - DYE_RATIO) < TOLERANCE)
    return False


def holds(value: object, rule: Rule, levels: int = HELD) -> bool:
    """Return whether a value is what a rule looks for, or contains it."""
    if rule(value):
        return True
    if is_own(value):
        levels -= 1
        parts = attributes(value) if levels >= 0 else []
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif isinstance(value, functools.partial):
        parts = [*value.args, *value.keywords.values()]
    elif isinstance(value, FunctionType):
        parts = list(bound(value))
    else:
        return False
    return any(holds(part, rule, levels) for part in parts)


def bound(function: FunctionType) -> Iterator[object]:
    """Yield the values that a nested function takes from the functions around it, except `self`."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            contents = cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
        if name != "self":
            yield contents


def arguments(frame: FrameType) -> dict[str, object]:
    """Return the arguments of a call that begins, extra keyword arguments by their own names."""
    code, values = frame.f_code, frame.f_locals
    extra = bool(code.co_flags & CO_VARARGS), bool(code.co_flags & CO_VARKEYWORDS)
    count = code.co_argcount + code.co_kwonlyargcount + sum(extra)
    named = {name: values[name] for name in code.co_varnames[:count] if name in values}
    if extra[1]:
        named |= named.pop(code.co_varnames[count - 1])
    return named


class Tracer:
    """Record the entries of own functions, and end the process when the sampling loop is entered.

    Args:
        tree: checkout whose functions are recorded.
        rule: what is followed.
        output: JSON file for the record.
    """

    def __init__(self, tree: Path, rule: Rule, output: Path) -> None:
        self._rule, self._output = rule, output
        self._roots = tuple(f"{tree / package}{os.sep}" for package in PACKAGES)
        self._tree = tree
        self._entries: list[Entry] = []
        self._stacks: dict[int, list[Place]] = {}  # of the functions that started a thread, by the thread's id()
        self._local = threading.local()

    def start(self) -> None:
        """Trace this thread and all threads that it starts."""
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Look at one event of the interpreter, as `sys.setprofile` passes it."""
        code = frame.f_code
        importing: int = getattr(self._local, "importing", 0)
        if code.co_name == "<module>" and event in ("call", "return"):
            self._local.importing = importing + (1 if event == "call" else -1)
        if event != "call" or importing:
            return
        if code is threading.Thread.start.__code__:
            self._stacks[id(frame.f_locals["self"])] = self._stack(frame)
        if not self._is_own_function(code) or code.co_code[frame.f_lasti + 1] & RESUMED:
            return
        self._entries.append(Entry(self._place(code), self._carrier(frame)))
        if code.co_name == LOOP[1] and Path(code.co_filename).as_posix().endswith(LOOP[0]):
            sys.setprofile(None)
            self._output.write_text(json.dumps([self._entries, self._stack(frame)]), encoding="utf-8")
            os._exit(0)  # at once: nobody needs the image

    def _is_own_function(self, code: CodeType) -> bool:
        inside = code.co_filename.startswith(self._roots)
        return inside and bool(code.co_flags & CO_OPTIMIZED) and not code.co_name.startswith("<")

    def _place(self, code: CodeType) -> Place:
        parts = Path(code.co_filename).relative_to(self._tree).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        room = parts[1] if parts[0] == PACKAGES[0] and len(parts) > 1 else parts[0]
        return Place(room, ".".join(parts), code.co_qualname)

    def _carrier(self, frame: FrameType) -> str:
        """Return the first argument that hands over what is followed, and its class."""
        handed = arguments(frame)
        for name, value in handed.items():
            if holds(value, self._rule):
                return f"{name}: {type(value).__name__}"
        return "all arguments" if self._rule(handed) else ""

    def _stack(self, frame: FrameType | None) -> list[Place]:
        places: list[Place] = []
        while frame is not None:
            if self._is_own_function(frame.f_code):
                places.append(self._place(frame.f_code))
            frame = frame.f_back
        return self._stacks.get(id(threading.current_thread()), []) + places[::-1]


def trace(way: str, folder: Path) -> None:
    """Run a way in this process, whose folder and import path are the tree, and write its record into a folder."""
    tree = Path.cwd().resolve()
    package, torch = map(importlib.import_module, ("synccontrol", "torch"))
    if tree not in Path(str(package.__file__)).resolve().parents:
        raise SystemExit(f"synccontrol comes from {package.__file__}, not from {tree}")
    torch.set_num_threads(1)
    tracer = Tracer(tree, carries_job if way == "job" else carries_map, folder / "record.json")
    if way == "job":
        across, down = np.meshgrid(np.arange(WIDTH) // 2, np.arange(HEIGHT))
        guide = folder / "guide.png"
        Image.fromarray(np.stack([across, down, 255 - down], axis=-1).astype(np.uint8)).save(guide)
        command = importlib.import_module("cli").main
        flags = ["--control", "depth", "--guide", str(guide), "--prompt", PROMPT, "--seed", str(SEED), "--offline"]
        tracer.start()
        command([*flags, "--output", str(folder / "image.png")])
    else:
        montage = package.Montage.from_pretrained("tiny", ["depth"], offline=True)
        control_map = Image.new("RGB", (WIDTH, HEIGHT), DYE)
        tracer.start()
        montage(PROMPT, control_map, height=HEIGHT, width=WIDTH)


def record(tree: Path, way: str) -> Record:
    """Return what a process saw on a way through a tree.

    Raises:
        SystemExit: the way ended before the loop.
    """
    alone = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--trace", way, folder]
        done = subprocess.run(command, cwd=tree, env=os.environ | alone, capture_output=True, text=True, check=False)
        file = Path(folder, "record.json")
        if not file.exists():
            raise SystemExit(f"{tree}, {way}: {' of '.join(reversed(LOOP))} was not entered\n{done.stderr}")
        entries, stack = json.loads(file.read_text(encoding="utf-8"))
    return Record([Entry(Place(*place), carrier) for place, carrier in entries], [Place(*place) for place in stack])


def summary(seen: Record) -> dict[str, Any]:
    """Return the figures of a way."""
    carrying = [entry.place for entry in seen.entries if entry.carrier]
    return {
        "entered": len(seen.entries),
        "functions": len({entry.place for entry in seen.entries}),
        "carrying": len(carrying),
        "path": walk(carrying)._asdict(),
        "once": walk(list(dict.fromkeys(carrying)))._asdict(),
        "stack": {"functions": len(seen.stack), **walk(seen.stack)._asdict()},
        "entered_by_room": dict(Counter(entry.place.room for entry in seen.entries).most_common()),
    }


def listing(seen: Record) -> Iterator[str]:
    """Yield a line for each entry of the carried path, for each function of the stack, and the entries of each room."""
    yield "carried path, numbers among all entries:"
    room_before = ""
    for number, entry in enumerate(seen.entries, 1):
        if entry.carrier:
            room, module, function = entry.place
            yield f"{number:5} {'' if room == room_before else room:12} {module:36} {function:40} {entry.carrier}"
            room_before = room
    yield "active when the loop is entered:"
    for room, module, function in seen.stack:
        yield f"      {room:12} {module:36} {function}"
    counts = Counter(entry.place.room for entry in seen.entries).most_common()
    yield f"entries by room: {', '.join(f'{room} {count}' for room, count in counts)}"


def row(tree: str, way: str, figures: dict[str, Any]) -> str:
    """Return the line of the table for one way."""
    paths = [", ".join(str(figures[kind][name]) for name in Walk._fields) for kind in ("path", "once", "stack")]
    counts = [str(figures[name]) for name in ("entered", "functions", "carrying")]
    return f"| {' | '.join([tree, way, *counts, *paths])} |"


def main() -> None:
    """Print the figures of every tree as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", metavar="TREE", nargs="*", default=["."], help="checkout (default: this folder)")
    parser.add_argument("--way", choices=WAYS, action="append", help="count this way only (default: both)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--list", action="store_true", help="list the carried path, in order, and the stack")
    parser.add_argument("--trace", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)  # in this process
    options = parser.parse_args()
    if options.trace is not None:
        trace(options.trace[0], Path(options.trace[1]))
        return
    records = {(tree, way): record(Path(tree).resolve(), way) for tree in options.trees for way in options.way or WAYS}
    if options.json:
        figures = [{"tree": tree, "way": way, **summary(seen)} for (tree, way), seen in records.items()]
        print(json.dumps(figures, indent=2))
        return
    heads = ["Tree", "Way", "Functions entered", "Different", "Carrying", "Carried path: stays, rooms, returns"]
    print(f"| {' | '.join([*heads, 'Once: the same', 'Stack: the same'])} |\n{'|---' * (len(heads) + 2)}|")
    for (tree, way), seen in records.items():
        print(row(tree, way, summary(seen)))
    if options.list:
        for (tree, way), seen in records.items():
            print(f"\n{tree}, {way}")
            print("\n".join(listing(seen)))


if __name__ == "__main__":
    main()
