"""What is loaded into a pipeline beside its own parts: LoRAs and an IP-Adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders import IPAdapterMixin
from diffusers.loaders.lora_base import LoraBaseMixin

from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.families.base import AbstractFamily
from synccontrol.families.checkpoints import SUFFIX, default_dtype, fetch, parts, pinned, place, source
from synccontrol.models import registry, single_file
from synccontrol.spec.settings import AUTO, Adapters

IP_FILES = {  # of h94/IP-Adapter and those laid out alike: what an id without a file means, by the pipeline's name
    "StableDiffusionXL": "sdxl_models/ip-adapter_sdxl.safetensors",
    "StableDiffusion": "models/ip-adapter_sd15.safetensors",
}
IP_ENCODER = "image_encoder"  # folder beside an IP-Adapter's file
IP_OTHER_ENCODER = ("vit-h", "models/image_encoder")  # what names the other of two image encoders, and where it lies
MISFITS = (RuntimeError, KeyError, TypeError)  # what diffusers raises where weights do not fit


def adapter_sources(adapters: Adapters) -> list[str]:
    """Returns the folders, files and hub ids that additions come from."""
    names = [name for name, _ in adapters.loras] + ([adapters.ip_adapter] if adapters.ip_adapter else [])
    return [place(source(name)) for name in names]


def add_adapters(pipe: Any, adapters: Adapters, local_files_only: bool) -> None:
    """Loads LoRAs and an IP-Adapter into a pipeline.

    Raises:
        ModelError: the pipeline takes none, or one is for another model.
        OSError: a file is missing.
    """
    for number, (name, _) in enumerate(adapters.loras):
        _add_lora(pipe, name, f"lora-{number}", local_files_only)
    if adapters.ip_adapter:
        _add_ip_adapter(pipe, adapters.ip_adapter, local_files_only)
    set_adapter_weights(pipe, adapters)


def set_adapter_weights(pipe: Any, adapters: Adapters) -> None:
    """Has what is loaded into a pipeline act as strongly as adapters say, which are the same but for that."""
    weights = [weight for _, weight in adapters.loras]
    if weights:
        pipe.set_adapters([f"lora-{number}" for number in range(len(weights))], weights)
    if adapters.ip_adapter:
        pipe.set_ip_adapter_scale(adapters.ip_scale)


def _add_lora(pipe: Any, name: str, adapter: str, local_files_only: bool) -> None:
    if not isinstance(pipe, LoraBaseMixin):
        raise ModelError(f"{type(pipe).__name__} takes no LoRAs; leave {name} out")
    repository, file, options = _found(name)
    options |= {"weight_name": file} if file else {}
    try:
        pipe.load_lora_weights(
            repository, adapter_name=adapter, local_files_only=local_files_only, use_safetensors=True, **options
        )
    except (RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"LoRA {name} is for another model ({str(error).splitlines()[0]}); choose one for this"
        ) from error
    if not any(adapter in adapters for adapters in pipe.get_list_adapters().values()):
        raise ModelError(f"LoRA {name} holds nothing for this model; choose one that was made for it")


def _add_ip_adapter(pipe: Any, name: str, local_files_only: bool) -> None:
    if not isinstance(pipe, IPAdapterMixin):
        raise ModelError(f"{type(pipe).__name__} takes no IP-Adapter; leave {name} out")
    repository, file, revision = _found(name)
    file = file or next(file for kind, file in IP_FILES.items() if type(pipe).__name__.startswith(kind))
    path = Path(file)
    marker, other = IP_OTHER_ENCODER
    beside = path.parts[0] == "models" or marker not in path.name
    try:
        pipe.load_ip_adapter(
            repository,
            subfolder=path.parent.as_posix() if path.parent != Path() else "",
            weight_name=path.name,
            image_encoder_folder=IP_ENCODER if beside else other,
            local_files_only=local_files_only,
            **revision,
        )
    except (*MISFITS, ValueError) as error:
        raise _misfit(f"IP-Adapter {name}", error) from error


def _misfit(what: str, error: Exception) -> ModelError:
    return ModelError(f"{what} is for another model ({str(error).splitlines()[0]}); choose one for this")


def _found(name: str) -> tuple[str, str, dict[str, str]]:
    """Returns a folder or hub id, the file in it (empty: none is named), and the option that names its revision."""
    found, file = parts(source(name))
    if not file and found.endswith(SUFFIX):
        return str(Path(found).parent), Path(found).name, {}
    repository, revision = pinned(found)
    return repository, file, revision


TINY_VAE_CLASS = "AutoencoderTiny"


def tiny_vae_source(model: str, adapters: Adapters) -> str:
    """Returns the folder or hub id of the small autoencoder that is asked for; empty: none is.

    Raises:
        ModelError: the model is not known to have one.
    """
    if adapters.tiny_vae != AUTO:
        return adapters.tiny_vae
    known = single_file.known_preset(model)
    found = registry.PRESETS[known].tiny_vae if known else ""
    if not found:
        raise ModelError(
            f"no small autoencoder is known for {model!r}; name one that has its latents (madebyollin/taesd for Stable "
            "Diffusion 1 and 2, madebyollin/taesdxl for XL, madebyollin/taef1 for Z-Image), or leave tiny vae out"
        )
    return found


def add_tiny_vae(family: AbstractFamily, model: str, adapters: Adapters, offline: bool, blank: bool = False) -> None:
    """Loads the small autoencoder that is asked for, if any, into a family.

    Args:
        family: it is on the device of its networks from then on.
        model: whose family it is, as `hub.load` names it.
        adapters: what is asked for.
        offline: never ask the network.
        blank: without weights, to rehearse with.

    Raises:
        ModelError: it is not to be had.
        ConfigError: it is something else, or made for other latents.
    """
    name = tiny_vae_source(model, adapters)
    if not name:
        return

    from diffusers import AutoencoderTiny

    places = [checkpoints.place(name)]
    config = fetch(
        lambda local: checkpoints.component_config(AutoencoderTiny, name, local_files_only=local), places, offline
    )
    _check_tiny_vae(name, config, family)

    def read(local: bool) -> Any:
        if not blank:
            return checkpoints.weights(AutoencoderTiny, name, dtype=family.dtype, local_files_only=local)
        with default_dtype(family.dtype):
            return AutoencoderTiny.from_config(config)

    found = fetch(read, places, offline)
    family.tiny_vae = found if blank else found.to(family.device)


def _check_tiny_vae(name: str, config: Mapping[str, Any], family: AbstractFamily) -> None:
    """Raises `ConfigError` for what a configuration says is no small autoencoder of a family's latents."""
    if config["_class_name"] != TINY_VAE_CLASS:
        raise ConfigError(f"{name} is an {config['_class_name']}, and no small autoencoder; name an {TINY_VAE_CLASS}")
    channels, cell = config["latent_channels"], 2 ** (len(config["decoder_block_out_channels"]) - 1)
    wanted = family.geometry.channels, family.geometry.cell
    if (channels, cell) != wanted:
        raise ConfigError(
            f"{name} reads latents of {channels} channels and cells of {cell} px, and this model's have {wanted[0]} "
            f"and {wanted[1]}; name one that was made for it"
        )
