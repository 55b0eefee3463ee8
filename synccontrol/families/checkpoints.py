"""How models with a UNet are read: their pipelines, their native sizes, and pipelines without weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from transformers import CLIPTextConfig

from synccontrol.config import Geometry
from synccontrol.errors import ModelError
from synccontrol.families import sources
from synccontrol.families.sources import SUFFIX, Source


class Kinds(NamedTuple):
    """The diffusers pipelines of a family, and what they are made of."""

    plain: Any  # without ControlNets
    controlled: Any
    encoders: Mapping[str, Any]  # the classes of the text encoders by name
    upcasts: bool = False  # whether an autoencoder that asks for it is float32 in place of float16
    union: Any = None  # with ControlNets that follow control maps of many types, where the family has them

    def of(self, nets: Sequence[Any]) -> Any:
        """Returns the class of a pipeline with some ControlNets. Raises `ModelError` if the family has none."""
        unions = [isinstance(net, ControlNetUnionModel) for net in nets]
        if any(unions) and self.union is None:
            raise ModelError(f"{self.plain.__name__} takes no union ControlNet; name one made for this model")
        if not nets:
            return self.plain
        return self.union if all(unions) else self.controlled


def load(
    kinds: Kinds,
    base: str,
    controlnets: Sequence[Source],
    vae: str = "",
    file: str = "",
    channels: int = 0,
    **options: Any,
) -> Any:
    """Returns a diffusers pipeline.

    Args:
        kinds: its classes.
        base: a diffusers folder or hub id.
        controlnets: one per control, or one union for all.
        vae: a file, folder or hub id of an autoencoder to use in place of the base model's.
        file: a checkpoint in one file; of the base model only the configuration and the tokenizers are read.
        channels: how many the file's UNet takes, if not the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    own = sources.reading(options)
    nets = _nets(controlnets, lambda kind, net: sources.weights(kind, net, **own), own)
    extra = {"controlnet": nets[0] if len(nets) == 1 else nets} if nets else {}
    if vae:
        extra["vae"] = autoencoder(vae, base, **own)
    if not file:
        return sources.weights(kinds.of(nets), base, **extra, **options)
    config, revision = sources.pinned(base)
    options.pop("use_safetensors", None)
    if channels:
        own.pop("use_safetensors", None)
        different = {"subfolder": "unet", "in_channels": channels}
        extra["unet"] = UNet2DConditionModel.from_single_file(file, config=config, **revision, **different, **own)
    return kinds.of(nets).from_single_file(file, config=config, **revision, **extra, **options)


def autoencoder(vae: str, base: str, **options: Any) -> Any:
    """Returns an autoencoder of the class that its configuration names; a file has the base model's configuration."""
    if not vae.endswith(SUFFIX):
        return sources.weights(_class_of(vae, options), vae, **options)
    config, revision = sources.pinned(base)
    own = {key: value for key, value in options.items() if key != "use_safetensors"}
    return AutoencoderKL.from_single_file(vae, config=config, subfolder="vae", **revision, **own)


def blank_autoencoder(vae: str, base: str, options: Mapping[str, Any]) -> Any:
    """Returns an autoencoder without weights: the base model's, if none is named or a file that is like it."""
    if vae and not vae.endswith(SUFFIX):
        kind = _class_of(vae, options)
        return kind.from_config(sources.config(kind, vae, **options))
    library, name = sources.config(diffusers.DiffusionPipeline, base, **options)["vae"]
    kind = getattr(import_module(library), name)
    return kind.from_config(sources.config(kind, (base, "vae"), **options))


def _class_of(vae: str, options: Mapping[str, Any]) -> Any:
    local = {key: value for key, value in options.items() if key == "local_files_only"}
    return getattr(diffusers, sources.config(AutoencoderKL, vae, **local)["_class_name"])


def is_union(source: Source, **options: Any) -> bool:
    """Returns whether a ControlNet follows control maps of many types; options of `load_config`."""
    name, inside = sources.parts(source)
    if (inside or name).endswith(SUFFIX):
        return False
    config = sources.config(ControlNetModel, source, **options)
    # A configuration file may be older than diffusers' class: then the name is all that says it.
    return "num_control_type" in config or "union" in f"{config['_class_name']} {inside or Path(name).name}".lower()


def _nets(nets: Sequence[Source], read: Callable[[Any, Source], Any], options: Mapping[str, Any]) -> list[Any]:
    """Returns ControlNets, each read once; a union that is named for every control stands there once."""
    local = {key: value for key, value in options.items() if key == "local_files_only"}
    found = {net: read(ControlNetUnionModel if is_union(net, **local) else ControlNetModel, net) for net in nets}
    if [type(net) for net in found.values()] == [ControlNetUnionModel]:
        return list(found.values())
    return [found[net] for net in nets]


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    unet = sources.config(UNet2DConditionModel, (base, "unet"), **options)
    vae = sources.config(UNet2DConditionModel, (base, "vae"), **options)
    return geometry_of(unet, vae)


def geometry_of(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """Returns the native sizes that the configurations of a UNet and an autoencoder state."""
    size = unet["sample_size"]
    h, w = (size, size) if isinstance(size, int) else size
    return Geometry(window=(h, w), cell=2 ** (len(vae["block_out_channels"]) - 1), channels=unet["out_channels"])


def blank_parts(
    kinds: Kinds,
    base: str,
    controlnets: Sequence[Source],
    dtype: torch.dtype,
    vae: str = "",
    channels: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Returns the modules of a pipeline that a model's configuration files describe: no weights are read.

    Args:
        kinds: of the family.
        base: a diffusers folder or hub id.
        controlnets: one per control, or one union for all; the part `controlnet` is there only with them.
        dtype: of the networks.
        vae: a file, folder or hub id of an autoencoder to use in place of the base model's.
        channels: how many the UNet takes, if not the base model's.
        options: of `load_config`.
    """

    def read(kind: Any, found: Source, **different: Any) -> Any:
        return kind.from_config(sources.config(kind, found, **options), **different)

    _, scheduler = sources.config(diffusers.DiffusionPipeline, base, **options)["scheduler"]
    repository, revision = sources.pinned(base)
    with default_dtype(dtype):
        parts = {
            part: kind(CLIPTextConfig.from_pretrained(repository, subfolder=part, **revision, **options))
            for part, kind in kinds.encoders.items()
        }
        parts["unet"] = read(UNet2DConditionModel, (base, "unet"), **({"in_channels": channels} if channels else {}))
        if controlnets:
            parts["controlnet"] = _nets(controlnets, read, options)
        parts["vae"] = blank_autoencoder(vae, base, options)
    if dtype == torch.float16 and kinds.upcasts and parts["vae"].config.force_upcast:
        with default_dtype(torch.float32):
            parts["vae"] = blank_autoencoder(vae, base, options)
    return parts | {"scheduler": sources.scheduler(getattr(diffusers, scheduler), (base, "scheduler"), **options)}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Returns the context in which modules are made in a dtype: with fake tensors they cannot be converted later."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
