"""What pictures of a run have in common."""

import dataclasses
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synccontrol.batch.model_request import ModelRequest, detector_names
from synccontrol.errors import ConfigError, MemoryLimitError, ModelError, SyncControlError, describe
from synccontrol.io import provenance
from synccontrol.io.images import open_image
from synccontrol.spec.image_spec import (
    ANCHOR,
    CONTROL_MAP,
    GUIDE,
    INIT_IMAGE,
    INPAINT,
    IP_IMAGE,
    MASK,
    NO_START,
    REGION_MAP,
    ImageSpec,
    Source,
)
from synccontrol.spec.region import Region
from synccontrol.spec.settings import (
    FITS,
    MIDDLE,
    Geometry,
    Img2ImgConfig,
    SamplingConfig,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What pictures of a run have in common. Pure data."""

    request: ModelRequest
    fit: str = "exact"  # how a guide or control map of another aspect comes onto the canvas, one of `FITS`
    sampling: SamplingConfig
    windows: WindowConfig
    sync: SyncConfig  # its anchor is none of files
    anchor: Path | None = None  # the file of sync's anchor, if it is one
    ip_image: Path | None = None  # the file of what the IP-Adapter is shown
    regions: tuple[Region, ...] = ()  # parts with prompts of their own
    region_map: Path | None = None  # the file whose levels of grey are regions
    init_image: Path | None = None  # the file that is started from
    mask: Path | None = None  # the file whose white part is drawn anew
    img2img: Img2ImgConfig = Img2ImgConfig()  # how
    upscale: UpscaleConfig = UpscaleConfig()  # what becomes of the finished picture

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; known: {', '.join(FITS)}")

    @property
    def shown(self) -> dict[str, Path]:
        """Returns the files that all its pictures see, by their role, in the order of roles."""
        files = {ANCHOR: self.anchor, IP_IMAGE: self.ip_image, REGION_MAP: self.region_map}
        files |= {INIT_IMAGE: self.init_image, MASK: self.mask}
        return {role: path for role, path in files.items() if path is not None}


def anchored(recipe: Recipe) -> SyncConfig:
    """Returns how a recipe syncs, its anchor's file read. Raises `InputError` if it is no picture."""
    return recipe.sync if recipe.anchor is None else recipe.sync.replace(anchor=open_image(recipe.anchor))


def check_settings(recipe: Recipe, geometry: Geometry) -> None:
    """Raises `ConfigError` for settings with which no picture of this model can be made."""
    recipe.sync.check_side(min(geometry.window_px))
    recipe.sampling.check_controls(len(recipe.request.controls))
    if INPAINT in recipe.request.controls and recipe.init_image is None:
        raise ConfigError(NO_START)


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

    def picture(self, height: int, width: int, hashes: bool = True) -> ImageSpec:
        """Return the spec of its image.

        Args:
            height: px.
            width: px.
            hashes: whether to read the files and record their hashes.

        Raises:
            InputError: a file cannot be read.
        """
        recipe, request = self.recipe, self.recipe.request
        files = [] if self.guide is None else [(GUIDE, self.guide)]
        files += [(CONTROL_MAP, path) for path in self.control_maps if path is not None]
        files += list(recipe.shown.items())
        known = {
            file: provenance.source(*file) if hashes else Source(role=file[0], path=str(file[1])) for file in files
        }
        sources = [] if self.guide is None else [known[GUIDE, self.guide]]
        sources += [
            Source(role=CONTROL_MAP, path="") if path is None else known[CONTROL_MAP, path]
            for path in self.control_maps
        ]
        sources += [known[file] for file in recipe.shown.items()]
        names = detector_names(request, self.detected)
        return ImageSpec(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            height=height,
            width=width,
            seed=self.seed,
            sampling=recipe.sampling,
            windows=recipe.windows,
            sync=recipe.sync if recipe.anchor is None else recipe.sync.replace(anchor=MIDDLE),
            img2img=recipe.img2img,
            upscale=recipe.upscale,
            regions=recipe.regions,
            sources=tuple(sources),
            model=request.model,
            controls=request.controls,
            controlnets=request.controlnets,
            detectors=tuple(name for name in names if name is not None),
            adapters=request.adapters,
            fit=recipe.fit,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job. Pure data: it can be pickled and written as JSON."""

    output: str  # the picture's path
    error: str = ""  # one line; empty: the picture is made
    fatal: bool = False  # every picture would meet this error
    traceback: str = ""  # of an error that is none of ours
    notes: tuple[str, ...] = ()  # what the user should know
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # as the picture records them
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by stage
    memory: int = 0  # bytes: the most that a device, or else the process, has held so far
    worker: str = ""  # host and process


class Work:
    """A job on its way through the stages of a worker; a stage that fails is the last one.

    Attributes:
        error: what went wrong.
        seconds: by stage.
        notes: what the user should know.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, and keeps its error, whatever it is."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.error = error
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def fatal(self) -> bool:
        """Returns whether every picture would meet the error."""
        return isinstance(self.error, ModelError) and not isinstance(self.error, MemoryLimitError)

    @property
    def said(self) -> str:
        """Returns the error in one line, or an empty text."""
        return "" if self.error is None else describe(self.error)

    @property
    def traceback(self) -> str:
        """Returns where an error came from that is none of ours, or an empty text."""
        if self.error is None or isinstance(self.error, SyncControlError):
            return ""
        return "".join(traceback.format_exception(self.error))
