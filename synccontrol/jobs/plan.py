"""Which pictures a run makes, and under which names."""

import dataclasses
import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from synccontrol.errors import ConfigError, InputError
from synccontrol.files import images, manifest

PNG = ".png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to make."""

    guide: Path | None
    control_maps: tuple[Path, ...] = ()  # ready-made, instead of a guide's
    prompt: str
    negative_prompt: str
    seed: int
    width: int | None = None  # px; None: by the guide's aspect
    height: int | None = None  # px; None: the model's native one
    output: Path
    map_outputs: tuple[Path, ...] = ()  # where its control maps are written; none: they are not

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Returns the files that it follows."""
        return (*([] if self.guide is None else [self.guide]), *self.control_maps)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Returns the files that it may write; beside a map of poses lies its JSON."""
        return (self.output, *self.map_outputs, *(path.with_suffix(".json") for path in self.map_outputs))


def gives_many(guide: Path | None) -> bool:
    """Returns whether a guide stands for many: a folder or a manifest."""
    return guide is not None and (guide.is_dir() or (guide.is_file() and guide.suffix.lower() == manifest.SUFFIX))


def plan(wanted: Job, saved_maps: Sequence[str] = ()) -> list[Job]:
    """Returns one job per guide: of a picture, a folder (searched through), or a manifest.

    Args:
        wanted: what all pictures have in common, if their row of the manifest says nothing else. Its guide is the
            picture, folder or manifest, or None for a picture without one; its output is a folder, or for a single
            picture also a file name that ends in .png.
        saved_maps: the control types whose maps are written beside the pictures.

    Raises:
        InputError: there is no such guide, the folder holds no pictures, or a manifest row is wrong.
        ConfigError: a single file is named as the output of many pictures, or another format than PNG.
    """
    guide, output = wanted.guide, wanted.output
    if guide is None or not gives_many(guide):
        jobs = [dataclasses.replace(wanted, output=_single_output(wanted))]
    elif output.suffix.lower() in images.SUFFIXES and not output.is_dir():
        raise ConfigError(f"{guide} may give many pictures, so --output must be a folder, not {output}")
    else:
        jobs = _of_folder(wanted, guide) if guide.is_dir() else _of_manifest(wanted, guide)
    return list(_with_maps(jobs, saved_maps))


def _single_output(wanted: Job) -> Path:
    output = wanted.output
    if output.suffix and not output.is_dir():
        if output.suffix.lower() != PNG:
            raise ConfigError(f"pictures are written as PNG; name the output {output.with_suffix(PNG)}")
        return output
    return output / f"{wanted.guide.stem if wanted.guide else 'montage'}{PNG}"


def _of_folder(wanted: Job, folder: Path) -> list[Job]:
    """Returns the jobs of a folder: hidden files, and what lies in the output folder, are no guides."""
    if wanted.output.resolve() == folder.resolve():
        raise ConfigError(f"{folder} holds the guides, so pictures cannot go there; choose another --output")
    own = wanted.output.resolve()
    inside = own.is_relative_to(folder.resolve())
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (inside and path.resolve().is_relative_to(own))
    )
    if not files:
        raise InputError(f"{folder} holds no pictures ({', '.join(images.SUFFIXES)})")
    targets = _targets(files, folder, wanted.output, set())
    return [dataclasses.replace(wanted, guide=file, output=target) for file, target in zip(files, targets, strict=True)]


def _of_manifest(wanted: Job, path: Path) -> list[Job]:
    rows = list(manifest.rows(path))
    named = [wanted.output / row.output for row in rows if row.output is not None]
    for output in named:
        if named.count(output) > 1:
            raise InputError(f"{path} names the output {output.relative_to(wanted.output)} twice; name each once")
    unnamed = [row.image or row.control_maps[0] for row in rows if row.output is None]
    targets = iter(_targets(unnamed, path.parent, wanted.output, set(named)))
    return [
        dataclasses.replace(
            wanted,
            guide=row.image,
            control_maps=row.control_maps,
            output=next(targets) if row.output is None else wanted.output / row.output,
            **row.values,
        )
        for row in rows
    ]


def _targets(files: Sequence[Path], root: Path, output: Path, taken: set[Path]) -> list[Path]:
    """Returns an output for each file, none of them taken: the same tree, or the top for a file outside of the root.

    a.jpg gives a.png, or a.jpg.png beside another a.png; a file that is listed again gives a-2.png, a-3.png.
    """
    first: dict[Path, Path] = {}
    for file in sorted(set(files), key=lambda file: (file.suffix.lower() != PNG, file)):
        target = output / _inside(file, root).with_suffix(PNG)
        if target in taken and file.suffix.lower() != PNG:
            target = target.with_name(f"{file.name}{PNG}")
        first[file] = _free(target, taken)
        taken.add(first[file])
    seen: set[Path] = set()
    targets = []
    for file in files:
        targets.append(_free(first[file], taken) if file in seen else first[file])
        seen.add(file)
        taken.add(targets[-1])
    return targets


def _inside(file: Path, root: Path) -> Path:
    """Returns a file's path below a folder, or its name alone if it does not lie there."""
    below = Path(os.path.relpath(file, root))
    return Path(file.name) if ".." in below.parts or below.is_absolute() else below


def _free(path: Path, taken: Container[Path]) -> Path:
    """Returns the path, or the first of name-2, name-3, ... that is not taken."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _with_maps(jobs: Sequence[Job], controls: Sequence[str]) -> Iterator[Job]:
    """Yields the jobs with names for their control maps, which are those of no other picture or map."""
    taken = {job.output for job in jobs}
    for job in jobs:
        maps = []
        for control in controls:
            maps.append(_free(job.output.with_suffix(f".{control}{PNG}"), taken))
            taken.add(maps[-1])
        yield dataclasses.replace(job, map_outputs=tuple(maps))
