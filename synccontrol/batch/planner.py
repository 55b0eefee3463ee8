"""Names for outputs: the same for the same inputs, and no two alike."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.batch.job import Job
from synccontrol.batch.model_request import ModelRequest
from synccontrol.errors import ConfigError, InputError, SyncControlError
from synccontrol.io import discovery, images, manifest, metadata, provenance
from synccontrol.spec.image_spec import GUIDE

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


Change = Callable[[Job, Mapping[str, Any]], Job]  # a job with other settings, by flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """A picture that is wanted, under its name before seeds are told apart."""

    job: Job
    seeded: bool = False  # its row names its own seed


def is_many(place: Path | None) -> bool:
    """Returns whether a guide or control map stands for many: a folder, a glob or a manifest."""
    if place is None:
        return False
    listed = place.suffix.lower() in manifest.SUFFIXES and place.is_file()
    return listed or place.is_dir() or discovery.is_glob(place)


def gives_many(wanted: Job, seeds: Sequence[int]) -> bool:
    """Returns whether there may be several pictures."""
    return len(seeds) > 1 or any(is_many(place) for place in (wanted.guide, *wanted.control_maps))


def names_itself(wanted: Job) -> bool:
    """Returns whether pictures of one guide, or of none, go to names that nobody has given: they can be numbered."""
    return not gives_many(wanted, ()) and (not wanted.output.suffix or wanted.output.is_dir())


def plan(wanted: Job, change: Change, seeds: Sequence[int] = (), save_maps: bool = False) -> list[Job]:
    """Returns the jobs of a picture, a folder (searched through), a glob or a manifest; ready-made maps likewise.

    Args:
        wanted: what all pictures have in common, if their row of the manifest says nothing else. Its guide and control
            maps are pictures, folders or globs; the guide may be a manifest, or None. Its output is a folder, or for a
            single picture also a file name that ends in .png.
        change: makes a job of this one with the settings of a row.
        seeds: one picture for each, where a row does not name its own; none: the job's.
        save_maps: the control maps are written beside the pictures.

    Raises:
        InputError: there is no such guide, a folder holds no pictures, or a row of a manifest is wrong.
        ConfigError: a single file is named as the output of many pictures, or another format than PNG.
    """
    output = wanted.output
    if not gives_many(wanted, seeds):
        one = dataclasses.replace(wanted, output=_single_output(wanted), seed=seeds[0] if seeds else wanted.seed)
        return list(_with_maps([one], save_maps))
    if output.suffix.lower() in images.SUFFIXES and not output.is_dir():
        raise ConfigError(f"there may be many pictures, so --output must be a folder, not {output}")
    guide = wanted.guide
    if guide is not None and guide.suffix.lower() in manifest.SUFFIXES and guide.is_file():
        found = _of_manifest(wanted, guide, change)
    elif any(is_many(place) for place in (guide, *wanted.control_maps)):
        found = _of_folders(wanted)
    else:
        found = [_Found(job=dataclasses.replace(wanted, output=_single_output(wanted)))]
    return _by_model(_with_maps(_with_seeds(found, seeds), save_maps))


def _by_model(jobs: Iterable[Job]) -> list[Job]:
    """Returns jobs with those of a model together, so that each is loaded once; else in their order."""
    groups: dict[ModelRequest, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.recipe.request, []).append(job)
    return [job for group in groups.values() for job in group]


def _single_output(wanted: Job) -> Path:
    output = wanted.output
    if output.suffix and not output.is_dir():
        if output.suffix.lower() != PNG:
            raise ConfigError(f"pictures are written as PNG; name the output {output.with_suffix(PNG)}")
        return output
    return output / f"{wanted.guide.stem if wanted.guide else 'montage'}{PNG}"


def _of_folders(wanted: Job) -> list[_Found]:
    """Returns the jobs of folders: the first one's pictures, each with those of its name in the others."""
    places = [place for place in (wanted.guide, *wanted.control_maps) if is_many(place)]
    for place in places:
        assert place is not None
        if os.path.realpath(wanted.output) == os.path.realpath(place):
            raise ConfigError(f"{place} holds the guides, so pictures cannot go there; choose another --output")
    first, *others = places
    assert first is not None
    found = discovery.find_images(first, wanted.output)
    index = {place: _by_stem(place, wanted.output) for place in others if place is not None}
    outputs = targets([path for path, _ in found], [own for _, own in found], wanted.output, Names())
    return [
        _Found(job=dataclasses.replace(_of_one(wanted, first, path, own, index), output=output))
        for (path, own), output in zip(found, outputs, strict=True)
    ]


def _by_stem(place: Path, own: Path) -> dict[Path, Path]:
    return {below.with_suffix(""): path for path, below in discovery.find_images(place, own)}


def _of_one(wanted: Job, first: Path, path: Path, own: Path, index: Mapping[Path, Mapping[Path, Path]]) -> Job:
    """Returns a job of folders: of a picture of the first one, `own` its path below it."""

    def in_place(place: Path | None, control: str) -> Path | None:
        if place is None or not is_many(place):
            return place
        if place == first:
            return path
        stem = own.with_suffix("")
        named = index[place].get(stem) or index[place].get(stem.with_name(f"{stem.name}.{control}"))
        return named or place / own  # which is not there, and fails this picture

    controls = wanted.recipe.request.followed or ("",)
    return dataclasses.replace(
        wanted,
        guide=in_place(wanted.guide, ""),
        control_maps=tuple(
            in_place(place, control) for place, control in zip(wanted.control_maps, controls, strict=False)
        ),
    )


def _of_manifest(wanted: Job, path: Path, change: Change) -> list[_Found]:
    rows = list(manifest.rows(path))
    names = Names()
    for row in rows:
        if row.output is not None and not names.take(wanted.output / row.output):
            raise InputError(f"{path} names the output {row.output} twice; name each once")
    unnamed = [row.image or next(map_ for map_ in row.control_maps if map_) for row in rows if row.output is None]
    free = iter(targets(unnamed, [below(file, path.parent) for file in unnamed], wanted.output, names))
    found = []
    for row in rows:
        job = dataclasses.replace(
            wanted,
            guide=row.image,
            control_maps=row.control_maps,
            output=next(free) if row.output is None else wanted.output / row.output,
        )
        try:
            found.append(_Found(job=change(job, row.values), seeded="seed" in row.values))
        except SyncControlError as error:
            raise InputError(f"{row.where}: {error.message}") from error
    return found


def _with_seeds(found: Sequence[_Found], seeds: Sequence[int]) -> list[Job]:
    """Returns the jobs, those without a seed of their own once for every seed: a-seed3.png."""
    if not seeds:
        return [one.job for one in found]
    if len(seeds) == 1:
        return [one.job if one.seeded else dataclasses.replace(one.job, seed=seeds[0]) for one in found]
    names = Names(one.job.output for one in found if one.seeded)
    jobs = []
    for one in found:
        if one.seeded:
            jobs.append(one.job)
            continue
        for seed in seeds:
            output = one.job.output.with_name(f"{one.job.output.stem}-seed{seed}{PNG}")
            jobs.append(dataclasses.replace(one.job, seed=seed, output=names.free(output)))
    return jobs


def _with_maps(jobs: Iterable[Job], save_maps: bool) -> Iterator[Job]:
    """Yields the jobs with names for their control maps, which are those of no other picture or map."""
    jobs = list(jobs)
    if not save_maps:
        yield from jobs
        return
    names = Names(job.output for job in jobs)
    for job in jobs:
        controls = job.recipe.request.followed
        maps = (names.free(job.output.with_suffix(f".{control}{PNG}")) for control in controls)
        yield dataclasses.replace(job, map_outputs=tuple(maps))
