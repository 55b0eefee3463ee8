"""Plan the jobs of a run, and name their outputs."""

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
    """The taken names of outputs.

    Args:
        taken: names that are taken from the start.
    """

    def __init__(self, taken: Iterable[Path] = ()) -> None:
        self._taken_paths = set(taken)
        self._numbers: Counter[Path] = Counter()

    def __contains__(self, path: Path) -> bool:
        return path in self._taken_paths

    def take(self, path: Path) -> bool:
        """Take a name; return whether it was free."""
        is_free = path not in self._taken_paths
        self._taken_paths.add(path)
        return is_free

    def free(self, path: Path) -> Path:
        """Take and return the path, or the first of name-2, name-3, ... that is free."""
        name = path
        while not self.take(name):
            self._numbers[path] += 1
            name = path.with_name(f"{path.stem}-{self._numbers[path] + 1}{path.suffix}")
        return name


def below(file: Path, root: Path) -> Path:
    """Return a file's path below a folder, or its name if it lies elsewhere."""
    relative = Path(os.path.relpath(file, root))
    return Path(file.name) if ".." in relative.parts or relative.is_absolute() else relative


def targets(files: Sequence[Path], relative: Sequence[Path], output: Path, names: Names) -> list[Path]:
    """Return a free output for each file, in the same tree.

    a.jpg gives a.png, or a.jpg.png if a.png is taken. A file that is listed again gives a-2.png, a-3.png. An existing
    output keeps the guide that it was generated from.

    Args:
        files: guides or control maps.
        relative: the path of each below its folder.
        output: the folder of all outputs.
        names: taken names; the outputs are added.
    """
    preferred = {file: output / path.with_suffix(PNG) for file, path in zip(files, relative, strict=True)}
    counts = Counter(preferred.values())
    hashes = _guide_hashes({target for target, count in counts.items() if count > 1})

    def rank(file: Path) -> tuple[bool, bool, Path]:
        guide_hash = hashes.get(preferred[file])
        return guide_hash is None or _guide_hash(file) != guide_hash, file.suffix.lower() != PNG, file

    first_outputs: dict[Path, Path] = {}
    guides: dict[Path, Path] = {}
    for file in sorted(preferred, key=rank):
        target = preferred[file]
        if target in names and {file.suffix.lower(), guides.get(target, file).suffix.lower()} != {PNG}:
            target = target.with_name(f"{file.name}{PNG}")
        first_outputs[file] = names.free(target)
        guides[first_outputs[file]] = file
    listed_files: set[Path] = set()
    outputs = []
    for file in files:
        outputs.append(names.free(first_outputs[file]) if file in listed_files else first_outputs[file])
        listed_files.add(file)
    return outputs


def _guide_hashes(outputs: Iterable[Path]) -> Mapping[Path, str]:
    """Return the recorded hash of the guide of each existing output."""
    hashes = {}
    for path in outputs:
        try:
            hashes[path] = str(metadata.read_settings(path).get("guide_sha256"))
        except InputError:
            continue
    return hashes


def _guide_hash(file: Path) -> str:
    try:
        return provenance.source(GUIDE, file).sha256
    except InputError:
        return ""


Change = Callable[[Job, Mapping[str, Any]], Job]  # a job with other settings, by flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PlannedJob:
    """A job whose output name has no seed yet."""

    job: Job
    seeded: bool = False  # its row of the manifest has a seed


def is_many(place: Path | None) -> bool:
    """Return whether a guide or control map is a folder, a glob or a manifest."""
    if place is None:
        return False
    is_manifest = place.suffix.lower() in manifest.SUFFIXES and place.is_file()
    return is_manifest or place.is_dir() or discovery.is_glob(place)


def gives_many(template: Job, seeds: Sequence[int]) -> bool:
    """Return whether a run may have several images."""
    return len(seeds) > 1 or any(is_many(place) for place in (template.guide, *template.control_maps))


def has_default_output(template: Job) -> bool:
    """Return whether the run has at most one guide and no output name, so that its output is numbered."""
    return not gives_many(template, ()) and (not template.output.suffix or template.output.is_dir())


def plan(template: Job, change: Change, seeds: Sequence[int] = (), save_maps: bool = False) -> list[Job]:
    """Return the jobs of an image, a folder (recursively), a glob or a manifest, of guides or of control maps.

    Args:
        template: the settings of every image whose row of the manifest does not override them. Its guide and control
            maps are images, folders or globs; the guide may be a manifest, or None. Its output is a folder, or for a
            single image also a file name that ends in .png.
        change: returns a job with the settings of a row of the manifest.
        seeds: an image for each, unless a row has its own; none: the template's seed.
        save_maps: whether control maps are written next to the images.

    Raises:
        InputError: a guide does not exist, a folder holds no images, or a row of a manifest is wrong.
        ConfigError: the output of many images is a file, or the format is not PNG.
    """
    output = template.output
    if not gives_many(template, seeds):
        job = dataclasses.replace(template, output=_single_output(template), seed=seeds[0] if seeds else template.seed)
        return list(_with_maps([job], save_maps))
    if output.suffix.lower() in images.SUFFIXES and not output.is_dir():
        raise ConfigError(f"there may be many images, so --output must be a folder, not {output}")
    guide = template.guide
    if guide is not None and guide.suffix.lower() in manifest.SUFFIXES and guide.is_file():
        planned_jobs = _manifest_jobs(template, guide, change)
    elif any(is_many(place) for place in (guide, *template.control_maps)):
        planned_jobs = _folder_jobs(template)
    else:
        planned_jobs = [_PlannedJob(job=dataclasses.replace(template, output=_single_output(template)))]
    return _group_by_model(_with_maps(_with_seeds(planned_jobs, seeds), save_maps))


def _group_by_model(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs grouped by model, so that each is loaded once; else in their order."""
    groups: dict[ModelRequest, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.recipe.request, []).append(job)
    return [job for group in groups.values() for job in group]


def _single_output(template: Job) -> Path:
    output = template.output
    if output.suffix and not output.is_dir():
        if output.suffix.lower() != PNG:
            raise ConfigError(f"images are written as PNG; name the output {output.with_suffix(PNG)}")
        return output
    return output / f"{template.guide.stem if template.guide else 'montage'}{PNG}"


def _folder_jobs(template: Job) -> list[_PlannedJob]:
    """Return the jobs of folders: each image of the first folder, with the files of its name in the other folders."""
    places = [place for place in (template.guide, *template.control_maps) if is_many(place)]
    for place in places:
        assert place is not None
        if os.path.realpath(template.output) == os.path.realpath(place):
            raise ConfigError(f"{place} holds the guides, so images cannot go there; choose another --output")
    folder, *other_folders = places
    assert folder is not None
    files = discovery.find_images(folder, template.output)
    index = {place: _index_by_stem(place, template.output) for place in other_folders if place is not None}
    outputs = targets([path for path, _ in files], [relative for _, relative in files], template.output, Names())
    return [
        _PlannedJob(job=dataclasses.replace(_folder_job(template, folder, path, relative, index), output=output))
        for (path, relative), output in zip(files, outputs, strict=True)
    ]


def _index_by_stem(place: Path, output: Path) -> dict[Path, Path]:
    return {relative.with_suffix(""): path for path, relative in discovery.find_images(place, output)}


def _folder_job(
    template: Job, folder: Path, path: Path, relative: Path, index: Mapping[Path, Mapping[Path, Path]]
) -> Job:
    """Return the job of one image.

    Args:
        template: the settings.
        folder: the first folder.
        path: the image, inside that folder.
        relative: its path below that folder.
        index: the files of each other folder, by path below it without suffix.
    """

    def find_file(place: Path | None, control: str) -> Path | None:
        if place is None or not is_many(place):
            return place
        if place == folder:
            return path
        stem = relative.with_suffix("")
        match = index[place].get(stem) or index[place].get(stem.with_name(f"{stem.name}.{control}"))
        return match or place / relative  # does not exist, so this image fails

    controls = template.recipe.request.mapped_controls or ("",)
    return dataclasses.replace(
        template,
        guide=find_file(template.guide, ""),
        control_maps=tuple(
            find_file(place, control) for place, control in zip(template.control_maps, controls, strict=False)
        ),
    )


def _manifest_jobs(template: Job, path: Path, change: Change) -> list[_PlannedJob]:
    rows = list(manifest.rows(path))
    names = Names()
    for row in rows:
        if row.output is not None and not names.take(template.output / row.output):
            raise InputError(f"{path} names the output {row.output} twice; name each once")
    files = [row.image or next(map_ for map_ in row.control_maps if map_) for row in rows if row.output is None]
    outputs = iter(targets(files, [below(file, path.parent) for file in files], template.output, names))
    planned_jobs = []
    for row in rows:
        job = dataclasses.replace(
            template,
            guide=row.image,
            control_maps=row.control_maps,
            output=next(outputs) if row.output is None else template.output / row.output,
        )
        try:
            planned_jobs.append(_PlannedJob(job=change(job, row.values), seeded="seed" in row.values))
        except SyncControlError as error:
            raise InputError(f"{row.where}: {error.message}") from error
    return planned_jobs


def _with_seeds(planned: Sequence[_PlannedJob], seeds: Sequence[int]) -> list[Job]:
    """Return a job for each seed (a-seed3.png), and one for each row with its own seed."""
    if not seeds:
        return [entry.job for entry in planned]
    if len(seeds) == 1:
        return [entry.job if entry.seeded else dataclasses.replace(entry.job, seed=seeds[0]) for entry in planned]
    names = Names(entry.job.output for entry in planned if entry.seeded)
    jobs = []
    for entry in planned:
        if entry.seeded:
            jobs.append(entry.job)
            continue
        for seed in seeds:
            output = entry.job.output.with_name(f"{entry.job.output.stem}-seed{seed}{PNG}")
            jobs.append(dataclasses.replace(entry.job, seed=seed, output=names.free(output)))
    return jobs


def _with_maps(jobs: Iterable[Job], save_maps: bool) -> Iterator[Job]:
    """Yield the jobs with unique names for their control maps."""
    jobs = list(jobs)
    if not save_maps:
        yield from jobs
        return
    names = Names(job.output for job in jobs)
    for job in jobs:
        controls = job.recipe.request.mapped_controls
        maps = (names.free(job.output.with_suffix(f".{control}{PNG}")) for control in controls)
        yield dataclasses.replace(job, map_outputs=tuple(maps))
