"""The small autoencoder that the objective and previews look through (TAESD, https://github.com/madebyollin/taesd)."""

from collections.abc import Mapping
from typing import Any

from synccontrol.errors import ConfigError, ModelError
from synccontrol.extras import AUTO, Extras
from synccontrol.families import sources
from synccontrol.families.base import AbstractFamily
from synccontrol.families.checkpoints import default_dtype
from synccontrol.models import hub, presets
from synccontrol.models.fetching import fetch

KIND = "AutoencoderTiny"


def source_of(model: str, extras: Extras) -> str:
    """Returns the folder or hub id of the small autoencoder that is asked for; empty: none is.

    Raises:
        ModelError: the model is not known to have one.
    """
    if extras.tiny_vae != AUTO:
        return extras.tiny_vae
    known = hub.preset_of(model)
    found = presets.PRESETS[known].tiny_vae if known else ""
    if not found:
        raise ModelError(
            f"no small autoencoder is known for {model!r}; name one that has its latents (madebyollin/taesd for Stable "
            "Diffusion 1 and 2, madebyollin/taesdxl for XL, madebyollin/taef1 for Z-Image), or leave tiny vae out"
        )
    return found


def add(family: AbstractFamily, model: str, extras: Extras, offline: bool, blank: bool = False) -> None:
    """Loads the small autoencoder that is asked for, if any, into a family.

    Args:
        family: it is on the device of its networks from then on.
        model: whose family it is, as `hub.load` names it.
        extras: what is asked for.
        offline: never ask the network.
        blank: without weights, to rehearse with.

    Raises:
        ModelError: it is not to be had.
        ConfigError: it is something else, or made for other latents.
    """
    name = source_of(model, extras)
    if not name:
        return

    from diffusers import AutoencoderTiny

    places = [sources.place(name)]
    config = fetch(lambda local: sources.config(AutoencoderTiny, name, local_files_only=local), places, offline)
    _check(name, config, family)

    def read(local: bool) -> Any:
        if not blank:
            return sources.weights(AutoencoderTiny, name, dtype=family.dtype, local_files_only=local)
        with default_dtype(family.dtype):
            return AutoencoderTiny.from_config(config)

    found = fetch(read, places, offline)
    family.tiny_vae = found if blank else found.to(family.device)


def _check(name: str, config: Mapping[str, Any], family: AbstractFamily) -> None:
    """Raises `ConfigError` for what a configuration says is no small autoencoder of a family's latents."""
    if config["_class_name"] != KIND:
        raise ConfigError(f"{name} is an {config['_class_name']}, and no small autoencoder; name an {KIND}")
    channels, cell = config["latent_channels"], 2 ** (len(config["decoder_block_out_channels"]) - 1)
    wanted = family.geometry.channels, family.geometry.cell
    if (channels, cell) != wanted:
        raise ConfigError(
            f"{name} reads latents of {channels} channels and cells of {cell} px, and this model's have {wanted[0]} "
            f"and {wanted[1]}; name one that was made for it"
        )
