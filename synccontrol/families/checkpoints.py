"""How models with a UNet are read: their pipelines, their native sizes, and pipelines without weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from transformers import CLIPTextConfig

from synccontrol.config import Geometry
from synccontrol.errors import ModelError

Source: TypeAlias = str | tuple[str, str]  # a folder or hub id, or a pair of it and a subfolder
READING = ("dtype", "local_files_only")  # options that hold for every source; others are the base model's alone


class Kinds(NamedTuple):
    """The diffusers pipelines of a family."""

    plain: Any  # without ControlNets
    controlled: Any
    union: Any = None  # with ControlNets that follow control maps of many types, where the family has them

    def of(self, nets: Sequence[Any]) -> Any:
        """Returns the class of a pipeline with some ControlNets. Raises `ModelError` if the family has none."""
        unions = [isinstance(net, ControlNetUnionModel) for net in nets]
        if any(unions) and self.union is None:
            raise ModelError(f"{self.plain.__name__} takes no union ControlNet; name one made for this model")
        if not nets:
            return self.plain
        return self.union if all(unions) else self.controlled


def load(kinds: Kinds, base: str, controlnets: Sequence[Source], vae: str = "", **options: Any) -> Any:
    """Returns a diffusers pipeline.

    Args:
        kinds: its classes.
        base: a diffusers folder or hub id.
        controlnets: one per control, or one union for all.
        vae: a folder or hub id of an autoencoder to use in place of the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    own = {key: options[key] for key in READING if key in options}
    nets = _nets(controlnets, lambda kind, name, subfolder: kind.from_pretrained(name, subfolder=subfolder, **own), own)
    extra = {"controlnet": nets[0] if len(nets) == 1 else nets} if nets else {}
    if vae:
        extra["vae"] = AutoencoderKL.from_pretrained(vae, **own)
    return kinds.of(nets).from_pretrained(base, **extra, **options)


def is_union(source: Source, **options: Any) -> bool:
    """Returns whether a ControlNet follows control maps of many types; options of `load_config`."""
    name, subfolder = source if isinstance(source, tuple) else (source, None)
    if (subfolder or name).endswith(".safetensors"):
        return False
    config = ControlNetModel.load_config(name, subfolder=subfolder, **options)
    # A configuration file may be older than diffusers' class: then the name is all that says it.
    return "num_control_type" in config or "union" in f"{config['_class_name']} {subfolder or Path(name).name}".lower()


def _nets(
    sources: Sequence[Source], read: Callable[[Any, str, str | None], Any], options: Mapping[str, Any]
) -> list[Any]:
    """Returns ControlNets, each read once; a union that is named for every control stands there once."""
    local = {key: value for key, value in options.items() if key != "dtype"}
    nets = {}
    for source in dict.fromkeys(sources):
        kind = ControlNetUnionModel if is_union(source, **local) else ControlNetModel
        nets[source] = read(kind, *(source if isinstance(source, tuple) else (source, None)))
    if [type(net) for net in nets.values()] == [ControlNetUnionModel]:
        return list(nets.values())
    return [nets[source] for source in sources]


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
    vae: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Returns the modules of a pipeline that a model's configuration files describe: no weights are read.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control, or one union for all; the part `controlnet` is there only with them.
        dtype: of the networks.
        encoders: the classes of the text encoders by name.
        upcast: whether an autoencoder that asks for it is float32 in place of float16.
        vae: a folder or hub id of an autoencoder to use in place of the base model's.
        options: of `load_config`.
    """

    def read(kind: Any, source: str, subfolder: str | None) -> Any:
        return kind.from_config(kind.load_config(source, subfolder=subfolder, **options))

    index = diffusers.DiffusionPipeline.load_config(base, **options)
    (library, name), (_, scheduler) = index["vae"], index["scheduler"]
    autoencoder = (AutoencoderKL, vae, None) if vae else (getattr(import_module(library), name), base, "vae")
    with default_dtype(dtype):
        parts = {
            part: kind(CLIPTextConfig.from_pretrained(base, subfolder=part, **options))
            for part, kind in encoders.items()
        }
        parts["unet"] = read(UNet2DConditionModel, base, "unet")
        if controlnets:
            parts["controlnet"] = _nets(controlnets, read, options)
        parts["vae"] = read(*autoencoder)
    if dtype == torch.float16 and upcast and parts["vae"].config.force_upcast:
        with default_dtype(torch.float32):
            parts["vae"] = read(*autoencoder)
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
