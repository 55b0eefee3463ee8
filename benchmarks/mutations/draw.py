"""The list of mutations: which lines are drawn, and how a list is stored."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from benchmarks.mutations.operators import Edit, apply, changes, edits

SEED, COUNT = 20261130, 60
LEAST = 3  # mutations of a room
PACKAGES = ("synccontrol", "preprocess")
TOP = "top"  # the room of modules directly in `synccontrol/`


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One changed line."""

    room: str  # a folder of `synccontrol/`, `top`, or `preprocess`
    file: str  # from the root of the tree
    line: int  # from 1, when it was drawn
    operator: str
    before: str  # the whole line
    after: str


def sources(tree: Path) -> Iterator[tuple[str, Path]]:
    """Yield the rooms and files of a tree that can be changed."""
    for package in PACKAGES:
        for path in sorted((tree / package).rglob("*.py")):
            parts = path.relative_to(tree).parts
            if package == "preprocess":
                yield package, path
            else:
                yield (parts[1] if len(parts) > 2 else TOP), path


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many mutations each room gets: `LEAST`, and the rest in proportion to its lines."""
    numbers = dict.fromkeys(sizes, LEAST)
    while sum(numbers.values()) < count:
        neediest = max(sizes, key=lambda room: sizes[room] / (numbers[room] + 1))
        numbers[neediest] += 1
    return numbers


class _Pool:
    """The edits of one room, by operator."""

    def __init__(self) -> None:
        self.size = 0  # lines that are not empty
        self._edits: dict[str, list[tuple[Path, Edit]]] = defaultdict(list)

    def add(self, path: Path, random: Random) -> None:
        """Add the edits of a file."""
        source = path.read_text(encoding="utf-8")
        self.size += sum(bool(line.strip()) for line in source.split("\n"))
        for edit in edits(source, random):
            self._edits[edit.operator].append((path, edit))

    def operators(self) -> list[str]:
        """Return the operators that have edits left."""
        return sorted(name for name, edits in self._edits.items() if edits)

    def take(self, operator: str, random: Random) -> tuple[Path, Edit]:
        """Return a random edit, and remove it."""
        edits = self._edits[operator]
        return edits.pop(random.randrange(len(edits)))


def draw(tree: Path, seed: int = SEED, count: int = COUNT) -> list[Mutation]:
    """Return mutations of all rooms of a tree, each operator about as often as the others, and each line once."""
    random = Random(seed)
    pools: dict[str, _Pool] = defaultdict(_Pool)
    for room, path in sources(tree):
        pools[room].add(path, random)
    used: Counter[str] = Counter()
    drawn: dict[tuple[str, int], Mutation] = {}
    for room, number in shares({room: pool.size for room, pool in pools.items()}, count).items():
        wanted = len(drawn) + number
        while len(drawn) < wanted and (operators := pools[room].operators()):
            rarest = min(used[operator] for operator in operators)
            operator = random.choice([operator for operator in operators if used[operator] == rarest])
            path, edit = pools[room].take(operator, random)
            source, file = path.read_text(encoding="utf-8"), path.relative_to(tree).as_posix()
            if (file, edit.line) in drawn or not changes(source, edit):
                continue
            used[operator] += 1
            before, after = (text.split("\n")[edit.line - 1] for text in (source, apply(source, edit)))
            drawn[file, edit.line] = Mutation(
                room=room, file=file, line=edit.line, operator=operator, before=before, after=after
            )
    return list(drawn.values())


def write(mutations: Sequence[Mutation], path: Path) -> None:
    """Store a list, a line for each mutation."""
    path.write_text("".join(f"{json.dumps(asdict(mutation))}\n" for mutation in mutations), encoding="utf-8")


def read(path: Path) -> list[Mutation]:
    """Return a stored list."""
    return [Mutation(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
