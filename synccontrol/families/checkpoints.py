"""Checkpoint sources (a folder, a file, a hub id, or a file on the hub), and loading them with diffusers."""

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
SHARED_OPTIONS = ("dtype", "local_files_only", "use_safetensors")  # options that hold for every source

Source: TypeAlias = str | tuple[str, str]  # a folder, file or hub id; or a folder or hub id and a path inside it

Loaded = TypeVar("Loaded")

OFFLINE_HINT = "without network use --model tiny or a diffusers folder"
LIBRARIES = ("diffusers", "transformers")  # libraries that log and show progress bars while they load


def fetch(load: Callable[[bool], Loaded], sources: Sequence[str], offline: bool, hint: str = OFFLINE_HINT) -> Loaded:
    """Return the result of `load` for folders and hub ids, as `preprocess.hub.fetch` does.

    Args:
        load: loads, given whether only local files may be used.
        sources: the folders and hub ids.
        offline: never use the network.
        hint: what works offline; added to errors.

    Raises:
        ModelError: a file is missing or broken, or cannot be downloaded.
    """
    for library in LIBRARIES:
        import_module(library)  # only an imported library can be silenced
    try:
        return hub.fetch(load, sources, offline)
    except HubError as error:
        raise ModelError(f"{error}; {hint}") from error


def parse_source(name: str) -> Source:
    """Return the source of a name. A file on the hub becomes its repository and its path there."""
    owner, *parts = name.split("/")
    if Path(name).exists() or not name.endswith(SUFFIX) or len(parts) < 2:
        return name
    return f"{owner}/{parts[0]}", "/".join(parts[1:])


def split_source(source: Source) -> tuple[str, str]:
    """Return the folder, file or hub id of a source, and the path inside it; empty: all of it."""
    return (source, "") if isinstance(source, str) else source


def split_revision(name: str) -> tuple[str, dict[str, str]]:
    """Split owner/name@revision: return the folder, file or hub id, and the keyword argument for its revision."""
    repository, _, revision = name.partition(REVISION)
    return (repository, {"revision": revision}) if revision and not Path(name).exists() else (name, {})


def source_location(source: Source) -> str:
    """Return the folder, file or hub id of a source, without its revision."""
    return split_revision(split_source(source)[0])[0]


def shared_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that hold for every source. The other options hold for the base model only."""
    return {key: options[key] for key in SHARED_OPTIONS if key in options}


def load_weights(model_class: Any, source: Source, **options: Any) -> Any:
    """Load a source with a diffusers class; options are those of `from_pretrained`."""
    name, inside = split_source(source)
    repository, revision = split_revision(name)
    subfolder = {"subfolder": inside} if inside else {}
    return model_class.from_pretrained(repository, **subfolder, **revision, **options)


def component_config(model_class: Any, source: Source, **options: Any) -> dict[str, Any]:
    """Return the configuration of a diffusers class from a source; options are those of `load_config`."""
    name, inside = split_source(source)
    repository, revision = split_revision(name)
    config: dict[str, Any] = model_class.load_config(repository, subfolder=inside or None, **revision, **options)
    return config


def component_scheduler(scheduler_class: Any, source: Source, **options: Any) -> Any:
    """Return the scheduler of a source. Its noise levels are real numbers, even under a `FakeTensorMode`."""
    with unset_fake_temporarily():
        return scheduler_class.from_config(component_config(scheduler_class, source, **options))


class PipelineClasses(NamedTuple):
    """The diffusers pipeline classes of a family, and the classes of their text encoders."""

    plain: Any  # without ControlNets
    controlled: Any
    encoders: Mapping[str, Any]  # text encoder classes by component name
    upcasts: bool = False  # whether an autoencoder with `force_upcast` runs in float32 instead of float16
    union: Any = None  # with union ControlNets, if the family has them

    def for_controlnets(self, controlnets: Sequence[Any]) -> Any:
        """Return the pipeline class for some ControlNets. Raise `ModelError` if the family has none."""
        are_unions = [isinstance(net, ControlNetUnionModel) for net in controlnets]
        if any(are_unions) and self.union is None:
            raise ModelError(f"{self.plain.__name__} takes no union ControlNet; name one made for this model")
        if not controlnets:
            return self.plain
        return self.union if all(are_unions) else self.controlled


def load(
    classes: PipelineClasses,
    base: str,
    controlnets: Sequence[Source],
    vae: str = "",
    file: str = "",
    channels: int = 0,
    **options: Any,
) -> Any:
    """Load a diffusers pipeline.

    Args:
        classes: the family's pipeline classes.
        base: a diffusers folder or hub id.
        controlnets: one per control, or one union ControlNet for all.
        vae: a file, folder or hub id of an autoencoder that replaces the base model's.
        file: a single-file checkpoint; the base model then supplies only the configuration and the tokenizers.
        channels: input channels of the file's UNet, if they differ from the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    shared = shared_options(options)
    nets = _load_controlnets(controlnets, lambda kind, source: load_weights(kind, source, **shared), shared)
    components = {"controlnet": nets[0] if len(nets) == 1 else nets} if nets else {}
    if vae:
        components["vae"] = autoencoder(vae, base, **shared)
    if not file:
        return load_weights(classes.for_controlnets(nets), base, **components, **options)
    config, revision = split_revision(base)
    options.pop("use_safetensors", None)
    if channels:
        shared.pop("use_safetensors", None)
        overrides = {"subfolder": "unet", "in_channels": channels}
        components["unet"] = UNet2DConditionModel.from_single_file(
            file, config=config, **revision, **overrides, **shared
        )
    return classes.for_controlnets(nets).from_single_file(file, config=config, **revision, **components, **options)


def autoencoder(vae: str, base: str, **options: Any) -> Any:
    """Load an autoencoder of the class that its configuration names. A file uses the base model's configuration."""
    if not vae.endswith(SUFFIX):
        return load_weights(_class_of(vae, options), vae, **options)
    config, revision = split_revision(base)
    shared = {key: value for key, value in options.items() if key != "use_safetensors"}
    return AutoencoderKL.from_single_file(vae, config=config, subfolder="vae", **revision, **shared)


def blank_autoencoder(vae: str, base: str, options: Mapping[str, Any]) -> Any:
    """Return an autoencoder without weights: the base model's if `vae` is empty or a file."""
    if vae and not vae.endswith(SUFFIX):
        vae_class = _class_of(vae, options)
        return vae_class.from_config(component_config(vae_class, vae, **options))
    library, name = component_config(diffusers.DiffusionPipeline, base, **options)["vae"]
    vae_class = getattr(import_module(library), name)
    return vae_class.from_config(component_config(vae_class, (base, "vae"), **options))


def _class_of(vae: str, options: Mapping[str, Any]) -> Any:
    local = {key: value for key, value in options.items() if key == "local_files_only"}
    return getattr(diffusers, component_config(AutoencoderKL, vae, **local)["_class_name"])


def is_union(source: Source, **options: Any) -> bool:
    """Return whether a ControlNet is a union, which takes control maps of many types.

    Options are those of `load_config`.
    """
    name, inside = split_source(source)
    if (inside or name).endswith(SUFFIX):
        return False
    config = component_config(ControlNetModel, source, **options)
    # A configuration file may be older than diffusers' union class; then only the name tells.
    return "num_control_type" in config or "union" in f"{config['_class_name']} {inside or Path(name).name}".lower()


def _load_controlnets(
    sources: Sequence[Source], load: Callable[[Any, Source], Any], options: Mapping[str, Any]
) -> list[Any]:
    """Load ControlNets, each once. A union ControlNet that is named for every control appears once."""
    local = {key: value for key, value in options.items() if key == "local_files_only"}
    nets = {
        source: load(ControlNetUnionModel if is_union(source, **local) else ControlNetModel, source)
        for source in sources
    }
    if [type(net) for net in nets.values()] == [ControlNetUnionModel]:
        return list(nets.values())
    return [nets[source] for source in sources]


def geometry(base: str, **options: Any) -> Geometry:
    """Return the native sizes that a model's configuration files state; options are those of `load`."""
    unet = component_config(UNet2DConditionModel, (base, "unet"), **options)
    vae = component_config(UNet2DConditionModel, (base, "vae"), **options)
    return geometry_of(unet, vae)


def geometry_of(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """Return the native sizes that the configurations of a UNet and an autoencoder state."""
    size = unet["sample_size"]
    h, w = (size, size) if isinstance(size, int) else size
    return Geometry(window=(h, w), cell=2 ** (len(vae["block_out_channels"]) - 1), channels=unet["out_channels"])


def blank_parts(
    classes: PipelineClasses,
    base: str,
    controlnets: Sequence[Source],
    dtype: torch.dtype,
    vae: str = "",
    channels: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Return the modules of a pipeline built from configuration files, without weights.

    Args:
        classes: the family's pipeline classes.
        base: a diffusers folder or hub id.
        controlnets: one per control, or one union for all; without any, `controlnet` is not in the result.
        dtype: dtype of the networks.
        vae: a file, folder or hub id of an autoencoder that replaces the base model's.
        channels: input channels of the UNet, if they differ from the base model's.
        options: options of `load_config`.
    """

    def read(model_class: Any, source: Source, **overrides: Any) -> Any:
        return model_class.from_config(component_config(model_class, source, **options), **overrides)

    _, scheduler = component_config(diffusers.DiffusionPipeline, base, **options)["scheduler"]
    repository, revision = split_revision(base)
    with default_dtype(dtype):
        parts = {
            part: kind(CLIPTextConfig.from_pretrained(repository, subfolder=part, **revision, **options))
            for part, kind in classes.encoders.items()
        }
        parts["unet"] = read(UNet2DConditionModel, (base, "unet"), **({"in_channels": channels} if channels else {}))
        if controlnets:
            parts["controlnet"] = _load_controlnets(controlnets, read, options)
        parts["vae"] = blank_autoencoder(vae, base, options)
    if dtype == torch.float16 and classes.upcasts and parts["vae"].config.force_upcast:
        with default_dtype(torch.float32):
            parts["vae"] = blank_autoencoder(vae, base, options)
    return parts | {"scheduler": component_scheduler(getattr(diffusers, scheduler), (base, "scheduler"), **options)}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype inside the context: modules of fake tensors cannot be converted later."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)
