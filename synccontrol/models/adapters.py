"""Adapters of a pipeline: LoRAs, an IP-Adapter and a tiny VAE."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders import IPAdapterMixin
from diffusers.loaders.lora_base import LoraBaseMixin

from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.families.base import AbstractFamily
from synccontrol.families.checkpoints import (
    SUFFIX,
    default_dtype,
    fetch,
    parse_source,
    source_location,
    split_revision,
    split_source,
)
from synccontrol.models import registry, single_file
from synccontrol.spec.settings import AUTO, Adapters

IP_FILES = {  # default files in repositories laid out like h94/IP-Adapter, by prefix of the pipeline's class name
    "StableDiffusionXL": "sdxl_models/ip-adapter_sdxl.safetensors",
    "StableDiffusion": "models/ip-adapter_sd15.safetensors",
}
IP_ENCODER = "image_encoder"  # folder next to an IP-Adapter's file
IP_OTHER_ENCODER = ("vit-h", "models/image_encoder")  # marker of files for the second image encoder, and its folder
INCOMPATIBLE_ERRORS = (RuntimeError, KeyError, TypeError)  # raised by diffusers for weights of another model


def adapter_sources(adapters: Adapters) -> list[str]:
    """Return the folders, files and hub ids of adapters."""
    names = [name for name, _ in adapters.loras] + ([adapters.ip_adapter] if adapters.ip_adapter else [])
    return [source_location(parse_source(name)) for name in names]


def add_adapters(pipe: Any, adapters: Adapters, local_files_only: bool) -> None:
    """Load LoRAs and an IP-Adapter into a pipeline.

    Raises:
        ModelError: the pipeline takes no such adapter, or an adapter is for another model.
        OSError: a file is missing.
    """
    for number, (name, _) in enumerate(adapters.loras):
        _add_lora(pipe, name, f"lora-{number}", local_files_only)
    if adapters.ip_adapter:
        _add_ip_adapter(pipe, adapters.ip_adapter, local_files_only)
    set_adapter_weights(pipe, adapters)


def set_adapter_weights(pipe: Any, adapters: Adapters) -> None:
    """Set the weights of adapters that are loaded already."""
    weights = [weight for _, weight in adapters.loras]
    if weights:
        pipe.set_adapters([f"lora-{number}" for number in range(len(weights))], weights)
    if adapters.ip_adapter:
        pipe.set_ip_adapter_scale(adapters.ip_scale)


def _add_lora(pipe: Any, name: str, adapter: str, local_files_only: bool) -> None:
    if not isinstance(pipe, LoraBaseMixin):
        raise ModelError(f"{type(pipe).__name__} takes no LoRAs; leave {name} out")
    repository, file, options = _resolve(name)
    options |= {"weight_name": file} if file else {}
    try:
        pipe.load_lora_weights(
            repository, adapter_name=adapter, local_files_only=local_files_only, use_safetensors=True, **options
        )
    except INCOMPATIBLE_ERRORS as error:
        raise _incompatible_error(f"LoRA {name}", error) from error
    if not any(adapter in adapters for adapters in pipe.get_list_adapters().values()):
        raise ModelError(f"LoRA {name} holds nothing for this model; choose one that was made for it")


def _add_ip_adapter(pipe: Any, name: str, local_files_only: bool) -> None:
    if not isinstance(pipe, IPAdapterMixin):
        raise ModelError(f"{type(pipe).__name__} takes no IP-Adapter; leave {name} out")
    repository, file, revision = _resolve(name)
    file = file or next(file for kind, file in IP_FILES.items() if type(pipe).__name__.startswith(kind))
    path = Path(file)
    marker, other_encoder = IP_OTHER_ENCODER
    uses_default_encoder = path.parts[0] == "models" or marker not in path.name
    try:
        pipe.load_ip_adapter(
            repository,
            subfolder=path.parent.as_posix() if path.parent != Path() else "",
            weight_name=path.name,
            image_encoder_folder=IP_ENCODER if uses_default_encoder else other_encoder,
            local_files_only=local_files_only,
            **revision,
        )
    except (*INCOMPATIBLE_ERRORS, ValueError) as error:
        raise _incompatible_error(f"IP-Adapter {name}", error) from error


def _incompatible_error(adapter: str, error: Exception) -> ModelError:
    return ModelError(f"{adapter} is for another model ({str(error).splitlines()[0]}); choose one for this")


def _resolve(name: str) -> tuple[str, str, dict[str, str]]:
    """Return an adapter's folder or hub id, the file inside it or "", and the keyword argument for its revision."""
    location, file = split_source(parse_source(name))
    if not file and location.endswith(SUFFIX):
        return str(Path(location).parent), Path(location).name, {}
    repository, revision = split_revision(location)
    return repository, file, revision


TINY_VAE_CLASS = "AutoencoderTiny"


def tiny_vae_source(model: str, adapters: Adapters) -> str:
    """Return the folder or hub id of the requested tiny VAE; empty if none is requested.

    Raises:
        ModelError: no tiny VAE is known for the model.
    """
    if adapters.tiny_vae != AUTO:
        return adapters.tiny_vae
    preset = single_file.known_preset(model)
    tiny_vae = registry.PRESETS[preset].tiny_vae if preset else ""
    if not tiny_vae:
        raise ModelError(
            f"no tiny VAE is known for {model!r}; name one that has its latents (madebyollin/taesd for Stable "
            "Diffusion 1 and 2, madebyollin/taesdxl for XL, madebyollin/taef1 for Z-Image), or leave tiny vae out"
        )
    return tiny_vae


def add_tiny_vae(family: AbstractFamily, model: str, adapters: Adapters, offline: bool, blank: bool = False) -> None:
    """Load the requested tiny VAE, if any, into a family.

    Args:
        family: the family, which receives the tiny VAE on its device.
        model: name of the family's model, as in `loader.load`.
        adapters: the requested adapters.
        offline: never use the network.
        blank: load no weights, for a memory estimate.

    Raises:
        ModelError: the tiny VAE cannot be loaded.
        ConfigError: it is not a tiny VAE, or is for other latents.
    """
    name = tiny_vae_source(model, adapters)
    if not name:
        return

    from diffusers import AutoencoderTiny

    locations = [checkpoints.source_location(name)]
    config = fetch(
        lambda local: checkpoints.component_config(AutoencoderTiny, name, local_files_only=local), locations, offline
    )
    _check_tiny_vae(name, config, family)

    def load(local: bool) -> Any:
        if not blank:
            return checkpoints.load_weights(AutoencoderTiny, name, dtype=family.dtype, local_files_only=local)
        with default_dtype(family.dtype):
            return AutoencoderTiny.from_config(config)

    tiny_vae = fetch(load, locations, offline)
    family.tiny_vae = tiny_vae if blank else tiny_vae.to(family.device)


def _check_tiny_vae(name: str, config: Mapping[str, Any], family: AbstractFamily) -> None:
    """Raise `ConfigError` if a configuration is not a tiny VAE for a family's latents."""
    if config["_class_name"] != TINY_VAE_CLASS:
        raise ConfigError(f"{name} is an {config['_class_name']}, not a tiny VAE; name an {TINY_VAE_CLASS}")
    channels, cell = config["latent_channels"], 2 ** (len(config["decoder_block_out_channels"]) - 1)
    expected = family.geometry.channels, family.geometry.cell
    if (channels, cell) != expected:
        raise ConfigError(
            f"{name} reads latents of {channels} channels and cells of {cell} px, and this model's have {expected[0]} "
            f"and {expected[1]}; name one that was made for it"
        )
