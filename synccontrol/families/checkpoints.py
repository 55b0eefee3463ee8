"""Where models are found: a folder, a file, a hub id, or a file on the hub; and how diffusers reads them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import CLIPTextConfig

from synccontrol.errors import ModelError
from synccontrol.preprocess import hub
from synccontrol.preprocess.errors import HubError
from synccontrol.spec.settings import Geometry

SUFFIX = ".safetensors"
REVISION = "@"  # stands between a hub id and a branch, tag or commit
READING = ("dtype", "local_files_only", "use_safetensors")  # options that hold for every source

Source: TypeAlias = str | tuple[str, str]  # a folder, file or hub id, or a folder or hub id and what is meant inside it

Loaded = TypeVar("Loaded")

OFFLINE_HINT = "without network use --model tiny or a diffusers folder"
LIBRARIES = ("diffusers", "transformers")  # that log and draw bars while they load


def fetch(load: Callable[[bool], Loaded], sources: Sequence[str], offline: bool, hint: str = OFFLINE_HINT) -> Loaded:
    """Returns what `load` makes of folders and hub ids, as `preprocess.hub.fetch`; `hint` says what works without.

    Raises:
        ModelError: a file is missing or broken, or the hub does not give it.
    """
    for library in LIBRARIES:
        import_module(library)  # what is loaded falls silent
    try:
        return hub.fetch(load, sources, offline)
    except HubError as error:
        raise ModelError(f"{error}; {hint}") from error


def source(name: str) -> Source:
    """Returns the source of a name: of a file on the hub, its repository and its path there."""
    owner, *rest = name.split("/")
    if Path(name).exists() or not name.endswith(SUFFIX) or len(rest) < 2:
        return name
    return f"{owner}/{rest[0]}", "/".join(rest[1:])


def parts(found: Source) -> tuple[str, str]:
    """Returns the folder, file or hub id of a source, and what is meant inside it; empty: all."""
    return (found, "") if isinstance(found, str) else found


def pinned(name: str) -> tuple[str, dict[str, str]]:
    """Returns a folder, file or hub id without its revision, and the option that names that (owner/name@revision)."""
    repository, _, revision = name.partition(REVISION)
    return (repository, {"revision": revision}) if revision and not Path(name).exists() else (name, {})


def place(found: Source) -> str:
    """Returns the folder, file or hub id of a source, without its revision."""
    return pinned(parts(found)[0])[0]


def reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those options that hold for every source; others are the base model's alone."""
    return {key: options[key] for key in READING if key in options}


def weights(kind: Any, found: Source, **options: Any) -> Any:
    """Returns what a diffusers class makes of a source; options of `from_pretrained`."""
    name, inside = parts(found)
    repository, revision = pinned(name)
    inner = {"subfolder": inside} if inside else {}
    return kind.from_pretrained(repository, **inner, **revision, **options)


def component_config(kind: Any, found: Source, **options: Any) -> dict[str, Any]:
    """Returns the configuration that a source holds for a diffusers class; options of `load_config`."""
    name, inside = parts(found)
    repository, revision = pinned(name)
    settings: dict[str, Any] = kind.load_config(repository, subfolder=inside or None, **revision, **options)
    return settings


def component_scheduler(kind: Any, found: Source, **options: Any) -> Any:
    """Returns the scheduler that a source describes; its levels are numbers, also where networks are made of fakes."""
    with unset_fake_temporarily():
        return kind.from_config(component_config(kind, found, **options))


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
    own = reading(options)
    nets = _nets(controlnets, lambda kind, net: weights(kind, net, **own), own)
    extra = {"controlnet": nets[0] if len(nets) == 1 else nets} if nets else {}
    if vae:
        extra["vae"] = autoencoder(vae, base, **own)
    if not file:
        return weights(kinds.of(nets), base, **extra, **options)
    config, revision = pinned(base)
    options.pop("use_safetensors", None)
    if channels:
        own.pop("use_safetensors", None)
        different = {"subfolder": "unet", "in_channels": channels}
        extra["unet"] = UNet2DConditionModel.from_single_file(file, config=config, **revision, **different, **own)
    return kinds.of(nets).from_single_file(file, config=config, **revision, **extra, **options)


def autoencoder(vae: str, base: str, **options: Any) -> Any:
    """Returns an autoencoder of the class that its configuration names; a file has the base model's configuration."""
    if not vae.endswith(SUFFIX):
        return weights(_class_of(vae, options), vae, **options)
    config, revision = pinned(base)
    own = {key: value for key, value in options.items() if key != "use_safetensors"}
    return AutoencoderKL.from_single_file(vae, config=config, subfolder="vae", **revision, **own)


def blank_autoencoder(vae: str, base: str, options: Mapping[str, Any]) -> Any:
    """Returns an autoencoder without weights: the base model's, if none is named or a file that is like it."""
    if vae and not vae.endswith(SUFFIX):
        kind = _class_of(vae, options)
        return kind.from_config(component_config(kind, vae, **options))
    library, name = component_config(diffusers.DiffusionPipeline, base, **options)["vae"]
    kind = getattr(import_module(library), name)
    return kind.from_config(component_config(kind, (base, "vae"), **options))


def _class_of(vae: str, options: Mapping[str, Any]) -> Any:
    local = {key: value for key, value in options.items() if key == "local_files_only"}
    return getattr(diffusers, component_config(AutoencoderKL, vae, **local)["_class_name"])


def is_union(source: Source, **options: Any) -> bool:
    """Returns whether a ControlNet follows control maps of many types; options of `load_config`."""
    name, inside = parts(source)
    if (inside or name).endswith(SUFFIX):
        return False
    config = component_config(ControlNetModel, source, **options)
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
    unet = component_config(UNet2DConditionModel, (base, "unet"), **options)
    vae = component_config(UNet2DConditionModel, (base, "vae"), **options)
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
        return kind.from_config(component_config(kind, found, **options), **different)

    _, scheduler = component_config(diffusers.DiffusionPipeline, base, **options)["scheduler"]
    repository, revision = pinned(base)
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
    return parts | {"scheduler": component_scheduler(getattr(diffusers, scheduler), (base, "scheduler"), **options)}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Returns the context in which modules are made in a dtype: with fake tensors they cannot be converted later."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
