"""`Recipe`, `Job` and `Outcome`: the work of a run as plain data."""

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
    """Settings that images of a run share. Plain data."""

    request: ModelRequest
    fit: str = "exact"  # how a guide or control map of another aspect is fitted, one of `FITS`
    sampling: SamplingConfig
    windows: WindowConfig
    sync: SyncConfig  # its anchor is not a file
    anchor: Path | None = None  # file of the anchor image
    ip_image: Path | None = None  # file of the IP-Adapter's image
    regions: tuple[Region, ...] = ()
    region_map: Path | None = None
    init_image: Path | None = None
    mask: Path | None = None
    img2img: Img2ImgConfig = Img2ImgConfig()
    upscale: UpscaleConfig = UpscaleConfig()

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; known: {', '.join(FITS)}")

    @property
    def images(self) -> dict[str, Path]:
        """Return the files of the recipe by role, in the order of `ROLES`."""
        files = {ANCHOR: self.anchor, IP_IMAGE: self.ip_image, REGION_MAP: self.region_map}
        files |= {INIT_IMAGE: self.init_image, MASK: self.mask}
        return {role: path for role, path in files.items() if path is not None}


def sync_with_anchor(recipe: Recipe) -> SyncConfig:
    """Return sync with the anchor image of a recipe. Raises `InputError` if the file is no image."""
    return recipe.sync if recipe.anchor is None else recipe.sync.replace(anchor=open_image(recipe.anchor))


def check_settings(recipe: Recipe, geometry: Geometry) -> None:
    """Raise `ConfigError` for settings that this model cannot use."""
    recipe.sync.check_side(min(geometry.window_px))
    recipe.sampling.check_controls(len(recipe.request.controls))
    if INPAINT in recipe.request.controls and recipe.init_image is None:
        raise ConfigError(NO_START)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One image to generate. Plain data, which can be pickled and sent to another machine."""

    guide: Path | None
    control_maps: tuple[Path | None, ...] = ()  # ready-made, one per control with a map; None: detected in the guide
    prompt: str
    negative_prompt: str
    seed: int
    width: int | None = None  # px; None: by the guide's aspect
    height: int | None = None  # px; None: the model's native height
    output: Path
    map_outputs: tuple[Path, ...] = ()  # files of the control maps; empty: they are not written
    overwrite: bool = False
    recipe: Recipe

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Return the files of the guide and of the control maps."""
        guides = [] if self.guide is None else [self.guide]
        return (*guides, *(path for path in self.control_maps if path is not None))

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Return the files that the job may write; a pose map comes with JSON."""
        return (self.output, *self.map_outputs, *(path.with_suffix(".json") for path in self.map_outputs))

    @property
    def detected(self) -> tuple[int, ...]:
        """Return the indices of the controls whose maps are detected in the guide."""
        if self.guide is None:
            return ()
        count = len(self.recipe.request.mapped_controls)
        maps = self.control_maps or (None,) * count
        return tuple(index for index, path in zip(range(count), maps, strict=False) if path is None)

    def spec(self, height: int, width: int, hashes: bool = True) -> ImageSpec:
        """Return the spec of the job's image.

        Args:
            height: px.
            width: px.
            hashes: whether to read the files and record their hashes.

        Raises:
            InputError: a file cannot be read.
        """
        recipe, request = self.recipe, self.recipe.request
        files: list[tuple[str, Path | None]] = [] if self.guide is None else [(GUIDE, self.guide)]
        files += [*((CONTROL_MAP, path) for path in self.control_maps), *recipe.images.items()]
        sources = [
            provenance.source(role, path) if hashes and path is not None else Source(role=role, path=str(path or ""))
            for role, path in files
        ]
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
    """The outcome of a job. Plain data, which can be pickled and written as JSON."""

    output: str  # path of the image
    error: str = ""  # one line; empty: the image is written
    fatal: bool = False  # every image would fail the same way
    traceback: str = ""  # of an unexpected error
    notes: tuple[str, ...] = ()  # lines for the user
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # recorded in the image
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by stage
    memory: int = 0  # bytes, peak of a device, or else of the process
    worker: str = ""  # host and process


class TimedTask:
    """Times and errors of a worker's stages; a stage that fails is the last one.

    Attributes:
        error: of the stage that failed.
        seconds: by stage.
        notes: lines for the user.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, and record its error of any class."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.error = error
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def fatal(self) -> bool:
        """Return whether every image would fail with this error."""
        return isinstance(self.error, ModelError) and not isinstance(self.error, MemoryLimitError)

    @property
    def message(self) -> str:
        """Return the error in one line, or an empty text."""
        return "" if self.error is None else describe(self.error)

    @property
    def traceback(self) -> str:
        """Return the traceback of an unexpected error, or an empty text."""
        if self.error is None or isinstance(self.error, SyncControlError):
            return ""
        return "".join(traceback.format_exception(self.error))
