"""What pictures of a run have in common."""

import dataclasses
from pathlib import Path

from synccontrol.compose import ComposeConfig
from synccontrol.config import FITS, Geometry, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.enlarge import EnlargeConfig
from synccontrol.errors import ConfigError
from synccontrol.files.images import open_image
from synccontrol.jobs.runtime import Request
from synccontrol.picture import ANCHOR, INIT_IMAGE, INPAINT, IP_IMAGE, MASK, NO_START, REGION_MAP
from synccontrol.region import Region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What pictures of a run have in common. Pure data."""

    request: Request
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
    compose: ComposeConfig = ComposeConfig()  # how
    enlarge: EnlargeConfig = EnlargeConfig()  # what becomes of the finished picture

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
    return recipe.sync if recipe.anchor is None else dataclasses.replace(recipe.sync, anchor=open_image(recipe.anchor))


def check_settings(recipe: Recipe, geometry: Geometry) -> None:
    """Raises `ConfigError` for settings with which no picture of this model can be made."""
    recipe.sync.check_side(min(geometry.window_px))
    recipe.sampling.check_controls(len(recipe.request.controls))
    if INPAINT in recipe.request.controls and recipe.init_image is None:
        raise ConfigError(NO_START)
