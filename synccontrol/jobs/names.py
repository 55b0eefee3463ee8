"""Names for outputs: the same for the same inputs, and no two alike."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from synccontrol.errors import InputError
from synccontrol.files import metadata, provenance
from synccontrol.picture import GUIDE

PNG = ".png"


class Names:
    """Names that are taken.

    Args:
        taken: some that are.
    """

    def __init__(self, taken: Iterable[Path] = ()) -> None:
        self._taken = set(taken)
        self._numbers: Counter[Path] = Counter()

    def __contains__(self, path: Path) -> bool:
        return path in self._taken

    def take(self, path: Path) -> bool:
        """Takes a name; returns whether it was free."""
        free = path not in self._taken
        self._taken.add(path)
        return free

    def free(self, path: Path) -> Path:
        """Returns the path, or the first of name-2, name-3, ... that is free, and takes it."""
        name = path
        while not self.take(name):
            self._numbers[path] += 1
            name = path.with_name(f"{path.stem}-{self._numbers[path] + 1}{path.suffix}")
        return name


def below(file: Path, root: Path) -> Path:
    """Returns a file's path below a folder, or its name alone if it does not lie there."""
    relative = Path(os.path.relpath(file, root))
    return Path(file.name) if ".." in relative.parts or relative.is_absolute() else relative


def targets(files: Sequence[Path], own: Sequence[Path], output: Path, names: Names) -> list[Path]:
    """Returns an output for each file, none of them taken: the same tree.

    a.jpg gives a.png, or a.jpg.png beside another a.png; a file that is listed again gives a-2.png, a-3.png. A name
    stays with the file whose picture has it already.

    Args:
        files: guides or control maps.
        own: the path of each below its folder.
        output: the folder of all outputs.
        names: those that are taken; the outputs are added.
    """
    wanted = {file: output / path.with_suffix(PNG) for file, path in zip(files, own, strict=True)}
    sharing = Counter(wanted.values())
    made = _made_of({target for target, count in sharing.items() if count > 1})

    def rank(file: Path) -> tuple[bool, bool, Path]:
        holder = made.get(wanted[file])
        return holder is None or _hash(file) != holder, file.suffix.lower() != PNG, file

    first: dict[Path, Path] = {}
    holders: dict[Path, Path] = {}
    for file in sorted(wanted, key=rank):
        target = wanted[file]
        if target in names and {file.suffix.lower(), holders.get(target, file).suffix.lower()} != {PNG}:
            target = target.with_name(f"{file.name}{PNG}")
        first[file] = names.free(target)
        holders[first[file]] = file
    seen: set[Path] = set()
    found = []
    for file in files:
        found.append(names.free(first[file]) if file in seen else first[file])
        seen.add(file)
    return found


def _made_of(outputs: Iterable[Path]) -> Mapping[Path, str]:
    """Returns the hash of the guide of each output that is there and says it."""
    made = {}
    for path in outputs:
        try:
            made[path] = str(metadata.read_settings(path).get("guide_sha256"))
        except InputError:
            continue
    return made


def _hash(file: Path) -> str:
    try:
        return provenance.source(GUIDE, file).sha256
    except InputError:
        return ""
