"""How models with a UNet are read: their pipelines, their native sizes, and pipelines without weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeAlias

import diffusers
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig

from synccontrol.config import Geometry

Source: TypeAlias = str | tuple[str, str]  # a folder or hub id, or a pair of it and a subfolder
Kinds: TypeAlias = tuple[Any, Any]  # the pipeline class without ControlNets, and the one with them

READING = ("dtype", "local_files_only")  # options that hold for every source; others are the base model's alone


def load(kinds: Kinds, base: str, controlnets: Sequence[Source], **options: Any) -> Any:
    """Returns a diffusers pipeline.

    Args:
        kinds: its class without ControlNets, and with them.
        base: a diffusers folder or hub id.
        controlnets: one per control.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    plain, controlled = kinds
    if not controlnets:
        return plain.from_pretrained(base, **options)
    own = {key: options[key] for key in READING if key in options}
    sources = [source if isinstance(source, tuple) else (source, None) for source in controlnets]
    nets = [ControlNetModel.from_pretrained(name, subfolder=subfolder, **own) for name, subfolder in sources]
    return controlled.from_pretrained(base, controlnet=nets[0] if len(nets) == 1 else nets, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    unet = UNet2DConditionModel.load_config(base, subfolder="unet", **options)
    vae = UNet2DConditionModel.load_config(base, subfolder="vae", **options)
    return geometry_of(unet, vae)


def geometry_of(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """Returns the native sizes that the configurations of a UNet and an autoencoder state."""
    size = unet["sample_size"]
    h, w = (size, size) if isinstance(size, int) else size
    return Geometry(window=(h, w), cell=2 ** (len(vae["block_out_channels"]) - 1), channels=unet["in_channels"])


def blank_parts(
    base: str,
    controlnets: Sequence[Source],
    dtype: torch.dtype,
    encoders: Mapping[str, Any],
    upcast: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Returns the modules of a pipeline that a model's configuration files describe: no weights are read.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control; the part `controlnet` is there only with them.
        dtype: of the networks.
        encoders: the classes of the text encoders by name.
        upcast: whether an autoencoder that asks for it is float32 in place of float16.
        options: of `load_config`.
    """

    def read(kind: Any, source: str, subfolder: str | None) -> Any:
        return kind.from_config(kind.load_config(source, subfolder=subfolder, **options))

    index = diffusers.DiffusionPipeline.load_config(base, **options)
    (library, name), (_, scheduler) = index["vae"], index["scheduler"]
    vae = getattr(import_module(library), name)
    half = dtype == torch.float16 and upcast and vae.load_config(base, subfolder="vae", **options)["force_upcast"]
    sources = [source if isinstance(source, tuple) else (source, None) for source in controlnets]
    with default_dtype(dtype):
        parts = {
            part: kind(CLIPTextConfig.from_pretrained(base, subfolder=part, **options))
            for part, kind in encoders.items()
        }
        parts["unet"] = read(UNet2DConditionModel, base, "unet")
        if sources:
            parts["controlnet"] = [read(ControlNetModel, *source) for source in sources]
    with default_dtype(torch.float32 if half else dtype):
        parts["vae"] = read(vae, base, "vae")
    return parts | {"scheduler": read(getattr(diffusers, scheduler), base, "scheduler")}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Returns the context in which modules are made in a dtype: with fake tensors they cannot be converted later."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
