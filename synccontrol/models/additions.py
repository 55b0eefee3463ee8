"""What is loaded into a pipeline beside its own parts: LoRAs and an IP-Adapter."""

from pathlib import Path
from typing import Any

from diffusers.loaders import IPAdapterMixin
from diffusers.loaders.lora_base import LoraBaseMixin

from synccontrol.errors import ModelError
from synccontrol.extras import Extras
from synccontrol.families.sources import SUFFIX, parts, pinned, place, source

IP_FILES = {  # of h94/IP-Adapter and those laid out alike: what an id without a file means, by the pipeline's name
    "StableDiffusionXL": "sdxl_models/ip-adapter_sdxl.safetensors",
    "StableDiffusion": "models/ip-adapter_sd15.safetensors",
}
IP_ENCODER = "image_encoder"  # folder beside an IP-Adapter's file
IP_OTHER_ENCODER = ("vit-h", "models/image_encoder")  # what names the other of two image encoders, and where it lies
MISFITS = (RuntimeError, KeyError, TypeError)  # what diffusers raises where weights do not fit


def places(extras: Extras) -> list[str]:
    """Returns the folders, files and hub ids that additions come from."""
    names = [name for name, _ in extras.loras] + ([extras.ip_adapter] if extras.ip_adapter else [])
    return [place(source(name)) for name in names]


def add(pipe: Any, extras: Extras, local_files_only: bool) -> None:
    """Loads LoRAs and an IP-Adapter into a pipeline.

    Raises:
        ModelError: the pipeline takes none, or one is for another model.
        OSError: a file is missing.
    """
    for number, (name, _) in enumerate(extras.loras):
        _add_lora(pipe, name, f"lora-{number}", local_files_only)
    if extras.ip_adapter:
        _add_ip_adapter(pipe, extras.ip_adapter, local_files_only)
    weigh(pipe, extras)


def weigh(pipe: Any, extras: Extras) -> None:
    """Has what is loaded into a pipeline act as strongly as extras say, which are the same but for that."""
    weights = [weight for _, weight in extras.loras]
    if weights:
        pipe.set_adapters([f"lora-{number}" for number in range(len(weights))], weights)
    if extras.ip_adapter:
        pipe.set_ip_adapter_scale(extras.ip_scale)


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
