"""What decides one image beside its configs, and how a run goes: the declarations of all other settings."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from synccontrol.errors import ARGUMENTS
from synccontrol.spec.schema import Flag, Settings, flags, setting
from synccontrol.spec.settings import (
    FITS,
    Adapters,
    Img2ImgConfig,
    SamplingConfig,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
)

PresetName = Literal["paper", "default", "fast", "best"]
PAPER: Final = "paper"
DEFAULT: Final = "default"
FAST: Final = "fast"
BEST: Final = "best"
PRESETS: tuple[PresetName, ...] = (PAPER, DEFAULT, FAST, BEST)
EXECUTORS = LOCAL, RAY = ("local", "ray")
CONTENT, MODEL_GROUP, OUTPUT, EXECUTION = "what to generate", "model", "output", "execution"


class ImageSettings(Settings):
    """What decides one image, beside its configs."""

    guide: Path | None = setting(
        None,
        "image, folder of images (also s3://...), quoted glob, or JSONL or CSV manifest",
        group=CONTENT,
        file=True,
    )
    control: tuple[str, ...] = setting((), "control type; repeat it for several at once", group=CONTENT)
    control_map: tuple[Path, ...] = setting(
        (),
        "ready-made control map instead of a guide, or a folder of them, one per --control; for pose also OpenPose "
        "JSON. TYPE=PATH beside a --guide: the map of that control, the others are detected",
        group=CONTENT,
        file=True,
    )
    ip_image: Path | None = setting(None, "image for the --ip-adapter", group=CONTENT, file=True)
    prompt: str = setting("", "what the image shows", group=CONTENT)
    negative_prompt: str = setting("", "what the image must not show", group=CONTENT)
    region: tuple[str, ...] = setting(
        (),
        "part of the image with a regional prompt, before the --prompt: '0-35%: a forest', '0-512: ...' in "
        "pixels, '0-35% x 50-100%: ...' across x down, 'grey 128: ...' of the --region-map; then perhaps ' | avoid: "
        "people | control: 0.5 | soft: 0.1'. Repeat it for several",
        words=["AREA: PROMPT"],
        group=CONTENT,
    )
    region_map: Path | None = setting(
        None, "image in which every region is one level of grey", group=CONTENT, file=True
    )
    init_image: Path | None = setting(None, "image to start from (img2img)", group=CONTENT, file=True)
    mask: Path | None = setting(
        None, "image whose white part is generated anew (inpainting); the rest stays", group=CONTENT, file=True
    )
    width: int | None = setting(None, "pixels (default: the guide's aspect)", minimum=1, group=CONTENT)
    height: int | None = setting(None, "pixels (default: the model's native height)", minimum=1, group=CONTENT)
    fit: str = setting(
        FITS[0],
        "how a guide or control map of another aspect comes onto the canvas; exact refuses it",
        choices=FITS,
        group=CONTENT,
    )
    seed: int = setting(0, "seed of all noise, or random", minimum=0, random=True, group=CONTENT)
    model: str = setting(
        "tiny",
        "preset, diffusers folder, hub id (owner/name, or owner/name@revision) or a .safetensors file; tiny is bundled",
        group=MODEL_GROUP,
    )
    controlnet: tuple[str, ...] = setting(
        (), "folder or hub id, one per --control, or one union for all", group=MODEL_GROUP
    )
    detector: tuple[str, ...] = setting((), "what makes the control map, one per --control", group=MODEL_GROUP)


class RunSettings(Settings):
    """How a run goes: which images, with which preset, where, and on which machine."""

    style_image: Path | None = setting(
        None,
        "image whose colours and contrast all images of the run take; first: the first of them",
        group=CONTENT,
        column=False,
    )
    seeds: str | None = setting(
        None, "variations: an image for each of these seeds, like 0-9,12", group=CONTENT, column=False
    )
    count: int | None = setting(
        None, "variations: this many images, with the seeds from --seed on", group=CONTENT, column=False
    )
    settings: Path | None = setting(
        None,
        "PNG made by this program, or JSON: what decides its image becomes the default",
        group=CONTENT,
        column=False,
    )
    preset: str = setting(
        DEFAULT,
        "settings of the model, which single flags change; paper is SyncDiffusion as published",
        choices=PRESETS,
        group=MODEL_GROUP,
    )
    device: str = setting(
        "auto",
        "cpu, cuda, cuda:1, mps; several, as cuda:0,cuda:1, share the windows of an image",
        shown_default="the best there is",
        group=MODEL_GROUP,
        column=False,
    )
    dtype: str = setting(
        "auto",
        "float32, float16, bfloat16",
        shown_default="float16 on cuda, else float32",
        group=MODEL_GROUP,
        column=False,
    )
    offload: str = setting(
        "none",
        "what waits in memory for its turn on the device: none, model (whole networks), sequential (layers; slow)",
        group=MODEL_GROUP,
        column=False,
    )
    offline: bool = setting(False, "never use the network", group=MODEL_GROUP, column=False)
    output: Path = setting(
        Path("out"),
        "PNG file, or folder (also s3://...), where each new try gets a number",
        group=OUTPUT,
        column=False,
    )
    overwrite: bool = setting(
        False, "replace existing outputs; without it they are skipped", group=OUTPUT, column=False
    )
    save_control_map: bool = setting(False, "write the control maps beside the image", group=OUTPUT, column=False)
    report: bool = setting(
        False,
        "write a contact sheet, sheet.html, beside many images: guides, control maps, images",
        group=OUTPUT,
        column=False,
    )
    dry_run: bool = setting(False, "print what would be done and what it costs", group=OUTPUT, column=False)
    quiet: bool = setting(False, "no progress bar, no notes", group=OUTPUT, column=False)
    engine: str = setting(
        LOCAL,
        "local: this process; ray: workers, each with the model",
        choices=EXECUTORS,
        group=EXECUTION,
        column=False,
    )
    workers: int = setting(1, "number of workers of --engine ray", group=EXECUTION, column=False)
    address: str = setting(
        "",
        "Ray cluster to join, or auto",
        shown_default="a new one on this machine",
        group=EXECUTION,
        column=False,
    )


CONFIGS: dict[str, type[Settings]] = {"sampling": SamplingConfig, "windows": WindowConfig, "sync": SyncConfig}
IMAGE_CLASSES: tuple[type[Settings], ...] = (ImageSettings, Adapters, Img2ImgConfig, UpscaleConfig, *CONFIGS.values())
ALL_CLASSES: tuple[type[Settings], ...] = (*IMAGE_CLASSES, RunSettings)


@functools.cache
def image_flags() -> tuple[Flag, ...]:
    """Return the settings that decide the pixels of an image."""
    return tuple(flag for cls in IMAGE_CLASSES for flag in flags(cls).values())


@functools.cache
def all_flags() -> Mapping[str, Flag]:
    """Return every setting by its key."""
    return MappingProxyType({flag.key: flag for cls in ALL_CLASSES for flag in flags(cls).values()})


ARGUMENTS.update(
    {
        flag.name: flag.field if cls in (ImageSettings, RunSettings) else f"{cls.__name__}.{flag.field}"
        for cls in ALL_CLASSES
        for flag in flags(cls).values()
    }
)
ARGUMENTS["control"] = "controls"


def column_flags() -> Iterator[Flag]:
    """Yield the settings that a manifest may have as columns."""
    return (flag for flag in all_flags().values() if flag.setting.column)


def renamed_flags() -> dict[str, str]:
    """Return the earlier names of flags with today's."""
    return {old: flag.name for flag in all_flags().values() for old in flag.setting.old_flags}


def defaults() -> dict[str, Any]:
    """Return the defaults of the settings that belong to no config, by key."""
    return {flag.key: flag.default for cls in (ImageSettings, RunSettings) for flag in flags(cls).values()}
