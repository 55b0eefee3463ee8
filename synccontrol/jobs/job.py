"""One picture that is wanted, as plain data, and what decides it."""

import dataclasses
from pathlib import Path

from synccontrol.config import MIDDLE
from synccontrol.files import provenance
from synccontrol.jobs.recipe import Recipe
from synccontrol.jobs.runtime import detector_names
from synccontrol.picture import CONTROL_MAP, GUIDE, Picture, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to make. Pure data: it can be pickled and sent to another machine."""

    guide: Path | None
    control_maps: tuple[
        Path | None, ...
    ] = ()  # ready-made ones, one per control that follows one; None: detected from the guide
    prompt: str
    negative_prompt: str
    seed: int
    width: int | None = None  # px; None: by the guide's aspect
    height: int | None = None  # px; None: the model's native one
    output: Path
    map_outputs: tuple[Path, ...] = ()  # where its control maps are written; none: they are not
    overwrite: bool = False
    recipe: Recipe

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Returns the files that it follows."""
        guides = [] if self.guide is None else [self.guide]
        return (*guides, *(path for path in self.control_maps if path is not None))

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Returns the files that it may write; beside a map of poses lies its JSON."""
        return (self.output, *self.map_outputs, *(path.with_suffix(".json") for path in self.map_outputs))

    @property
    def detected(self) -> tuple[int, ...]:
        """Returns which controls, by their place, are detected from the guide."""
        if self.guide is None:
            return ()
        count = len(self.recipe.request.followed)
        maps = self.control_maps or (None,) * count
        return tuple(index for index, path in zip(range(count), maps, strict=False) if path is None)

    def picture(self, height: int, width: int) -> Picture:
        """Returns what decides its picture of height x width px. Raises `InputError` if a file cannot be read."""
        recipe, request = self.recipe, self.recipe.request
        sources = [] if self.guide is None else [provenance.source(GUIDE, self.guide)]
        sources += [
            Source(role=CONTROL_MAP, path="") if path is None else provenance.source(CONTROL_MAP, path)
            for path in self.control_maps
        ]
        sources += [provenance.source(role, path) for role, path in recipe.shown.items()]
        names = detector_names(request, self.detected)
        return Picture(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            height=height,
            width=width,
            seed=self.seed,
            sampling=recipe.sampling,
            windows=recipe.windows,
            sync=recipe.sync if recipe.anchor is None else dataclasses.replace(recipe.sync, anchor=MIDDLE),
            compose=recipe.compose,
            enlarge=recipe.enlarge,
            regions=recipe.regions,
            sources=tuple(sources),
            model=request.model,
            controls=request.controls,
            controlnets=request.controlnets,
            detectors=tuple(name for name in names if name is not None),
            extras=request.extras,
            fit=recipe.fit,
        )
