"""Load models from folders, the hub's cache or the hub."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from synccontrol import families
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.families.checkpoints import (
    OFFLINE_HINT,
    Source,
    fetch,
    parse_source,
    source_location,
    split_revision,
    split_source,
)
from synccontrol.models import registry, single_file
from synccontrol.models.adapters import adapter_sources, add_adapters, tiny_vae_source
from synccontrol.models.devices import DTYPES, NONE, check_device, check_offload, place_pipeline
from synccontrol.models.presets import PresetSettings, family_default_preset, preset_variants, select_preset
from synccontrol.sampling.batching import Note
from synccontrol.spec.image_settings import DEFAULT
from synccontrol.spec.schema import nearest
from synccontrol.spec.settings import Adapters, Geometry

CONTROLNET_FOLDER = "controlnet-{control}"  # folder of a ControlNet inside a model's folder


def defaults(model: str, preset: str = DEFAULT, offline: bool = False) -> PresetSettings:
    """Return the settings of a model's preset, without loading weights.

    Raises:
        ModelError: the model cannot be read.
        ConfigError: there is no such preset.
    """
    sizes = geometry(model, offline)
    return select_preset(preset_variants(_default_preset(model, sizes, offline), sizes), preset)


def _default_preset(model: str, sizes: Geometry, offline: bool) -> PresetSettings:
    if model in registry.PRESETS:
        return registry.PRESETS[model].defaults
    base = base_model(model)

    def read(local: bool) -> PresetSettings:
        index = _model_index(base, local)
        family = families.find(index["_class_name"])
        return family_default_preset(families.family_name(family), sizes, index["scheduler"][1])

    return fetch(read, [source_location(base)], offline, _offline_hint(model, base))


def half_dtype(model: str, offline: bool = False) -> torch.dtype:
    """Return the 16-bit dtype of a model's networks. Raise `ModelError` if the model cannot be read."""
    preset = single_file.known_preset(model)
    if preset:
        return DTYPES[registry.PRESETS[preset].half]
    base = base_model(model)

    def read(local: bool) -> torch.dtype:
        dtype: torch.dtype = _family(base, local).HALF
        return dtype

    return fetch(read, [source_location(base)], offline, _offline_hint(model, base))


def geometry(model: str, offline: bool = False) -> Geometry:
    """Return a model's native sizes, without loading weights. Raise `ModelError` if the model cannot be read."""
    if model in registry.PRESETS:
        return registry.PRESETS[model].geometry
    base = base_model(model)

    def read(local: bool) -> Geometry:
        sizes: Geometry = _family(base, local).geometry(base, local_files_only=local)
        return sizes

    return fetch(read, [source_location(base)], offline, _offline_hint(model, base))


def blank(
    model: str,
    controls: Sequence[str],
    controlnets: Sequence[str],
    dtype: torch.dtype,
    offline: bool = False,
    adapters: Adapters = Adapters(),
) -> Any:
    """Return a model's pipeline without weights, for a memory estimate. Raise `ModelError` as `load`.

    It contains no LoRAs or IP-Adapters.
    """
    base, nets = base_model(model), controlnet_sources(model, controls, controlnets, offline)
    vae = _vae(model, adapters)
    return fetch(
        lambda local: _family(base, local).blank(
            base, nets, dtype, **vae, **single_file.channels_option(model, base, local), local_files_only=local
        ),
        _source_locations(base, nets, vae),
        offline,
    )


def base_model(model: str) -> str:
    """Return the diffusers folder or hub id of a model. Raise `ModelError` for a name that is neither."""
    if model in registry.PRESETS:
        return registry.PRESETS[model].base
    if single_file.is_single_file(model):
        return registry.PRESETS[single_file.preset_of(model)].base
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            raise ModelError(f"{model} has no model_index.json, so it is no diffusers folder; choose one that has")
        return model
    if model.count("/") != 1 or model.startswith((".", "/")):
        suggestion = nearest(model, registry.PRESETS)
        raise ModelError(
            f"unknown model {model!r}: no preset ({', '.join(registry.PRESETS)}), no folder, and no hub id (owner/name)"
            + (f"; did you mean {suggestion}?" if suggestion else "")
        )
    return model


def controlnet_sources(
    model: str, controls: Sequence[str], named: Sequence[str], offline: bool = False
) -> list[Source]:
    """Return the source of each control's ControlNet. A union that is named for several controls appears once.

    Args:
        model: a preset, folder or hub id.
        controls: control types.
        named: folders, files or hub ids from the user: one per control, one union for all, or none. A file on the
            hub is owner/name/file.safetensors.
        offline: never use the network.

    Raises:
        ConfigError: the number of ControlNets differs from the number of controls.
        ModelError: no ControlNet of that type is known for the model.
    """
    if named:
        is_shared_union = len(named) == 1 < len(controls) and _is_union(parse_source(named[0]), offline)
        if len(named) != len(controls) and not is_shared_union:
            raise ConfigError(f"{len(named)} ControlNets are named for {len(controls)} controls; name one for each")
        return [parse_source(name) for name in named]
    return [_controlnet_source(model, control) for control in controls]


def _is_union(source: Source, offline: bool) -> bool:
    return fetch(lambda local: checkpoints.is_union(source, local_files_only=local), [source_location(source)], offline)


def _controlnet_source(model: str, control: str) -> Source:
    base = Path(base_model(model))
    preset = single_file.known_preset(model)
    controlnets = registry.PRESETS[preset].controlnets if preset else {}
    if control in controlnets:
        return parse_source(controlnets[control])
    folder = CONTROLNET_FOLDER.format(control=control)
    if (base / folder).is_dir():
        return str(base), folder
    available = sorted([*controlnets, *(path.name.removeprefix("controlnet-") for path in base.glob("controlnet-*"))])
    suggestion = nearest(control, available)
    offer = f"it has {', '.join(available)}" if available else "it has none of its own"
    raise ModelError(
        f"model {model!r} has no ControlNet for {control!r}: "
        + (f"did you mean {suggestion}? " if suggestion else "")
        + f"{offer}; name one with --controlnet"
    )


def load(
    model: str,
    controls: Sequence[str],
    controlnets: Sequence[str] = (),
    *,
    adapters: Adapters = Adapters(),
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    offload: str = NONE,
    offline: bool = False,
    note: Note = str,
) -> Any:
    """Load the diffusers pipeline of a model with its ControlNets onto a device.

    Arguments are those of `Montage.from_pretrained`; `note` is called with a line for the user.

    Raises:
        ModelError: the model, a ControlNet, an adapter or the device is not available.
        ConfigError: the number of named ControlNets differs from the number of controls.
    """
    check_device(device)
    check_offload(offload, device)
    base = base_model(model)
    nets = controlnet_sources(model, controls, controlnets, offline)
    options = {**_vae(model, adapters), **_variant(model, dtype), **single_file.file_option(model)}

    def read(local: bool) -> Any:
        family = _family(base, local)
        arguments = {
            **options,
            **single_file.channels_option(model, base, local),
            "dtype": dtype,
            "local_files_only": local,
        }
        try:
            pipe = family.load(base, nets, **arguments, use_safetensors=True)
        except OSError:
            pipe = family.load(base, nets, **arguments)  # other files are read as weights only
            note(f"{model} or what belongs to it is no .safetensors file; of other files nothing but weights is read")
        add_adapters(pipe, adapters, local)
        return pipe

    locations = [*_source_locations(base, nets, _vae(model, adapters)), *adapter_sources(adapters)]
    pipe = fetch(read, locations, offline, _offline_hint(model, base))
    pipe.set_progress_bar_config(disable=True)
    return place_pipeline(pipe, device, offload)


def _offline_hint(model: str, base: str) -> str:
    """Return what works without the network."""
    if not single_file.is_single_file(model):
        return OFFLINE_HINT
    return f"besides the file, the configuration and tokenizers of {base} are needed, a few MB: connect once"


def _vae(model: str, adapters: Adapters) -> dict[str, str]:
    """Return the keyword argument of a VAE that replaces the base model's: the requested one or the preset's."""
    vae = adapters.vae or (registry.PRESETS[model].vae if model in registry.PRESETS else "")
    return {"vae": vae} if vae else {}


def _variant(model: str, dtype: torch.dtype) -> dict[str, str]:
    """Return the keyword argument of a preset's smaller weight files, for 16-bit dtypes."""
    variant = registry.PRESETS[model].variant if model in registry.PRESETS and dtype.itemsize == 2 else ""
    return {"variant": variant} if variant else {}


def _source_locations(base: str, nets: Sequence[Source], vae: Mapping[str, str]) -> list[str]:
    """Return the folders and hub ids of a model, its ControlNets and its autoencoder."""
    return [*map(source_location, [base, *nets, *map(parse_source, vae.values())])]


def _family(base: str, local_files_only: bool) -> Any:
    """Return the family module of a model's `model_index.json`."""
    return families.find(_model_index(base, local_files_only)["_class_name"])


def _model_index(base: str, local_files_only: bool) -> Mapping[str, Any]:
    """Return a model's `model_index.json`: classes by component."""
    import diffusers

    import_module("synccontrol.models.codec")  # registers the bundled autoencoder's class for diffusers
    index: Mapping[str, Any] = checkpoints.component_config(
        diffusers.DiffusionPipeline, base, local_files_only=local_files_only
    )
    return index


SAMPLE_BYTES = 2**20  # bytes hashed at either end of a file: weights are gigabytes
HASH_DIGITS = 16  # of a hash


def revision(
    model: str,
    controls: Sequence[str],
    controlnets: Sequence[str],
    adapters: Adapters = Adapters(),
    offline: bool = False,
) -> str:
    """Return a hash that identifies the files of a model, its ControlNets and its adapters.

    A hub id contributes its commit. A folder contributes the names, sizes, and first and last MiB of its files. The
    hash is empty until all files are downloaded.

    Raises:
        ModelError, ConfigError: the model or a ControlNet is unknown.
    """
    nets = controlnet_sources(model, controls, controlnets, offline)
    names = [
        *([model] if single_file.is_single_file(model) else []),
        *(name for name, _ in adapters.loras),
        adapters.ip_adapter,
        adapters.vae,
        tiny_vae_source(model, adapters),
    ]
    return _revision((base_model(model), *nets, *(parse_source(name) for name in names if name)))


@cache
def _revision(sources: tuple[Source, ...]) -> str:
    hashes = [_source_revision(source) for source in sources]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:HASH_DIGITS] if all(hashes) else ""


def _source_revision(source: Source) -> str:
    name, inside = split_source(source)
    repository, revision_option = split_revision(name)
    path = Path(repository)
    if path.exists():
        return _hash_files(path / inside)
    commit = _commit(repository, revision_option.get("revision", "main"))
    return f"{commit}/{inside}" if commit else ""


def _commit(repository: str, reference: str) -> str:
    """Return the downloaded commit of a hub repository's branch or tag, or an empty string."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    if (folder / "snapshots" / reference).is_dir():
        return reference  # a commit itself
    try:
        return (folder / "refs" / reference).read_text(encoding="ascii")
    except OSError:
        return ""


def _hash_files(path_or_folder: Path) -> str:
    """Return a hash of a file, or of a folder without the ControlNets inside it."""
    files = (
        [path_or_folder]
        if path_or_folder.is_file()
        else sorted(path for path in path_or_folder.rglob("*") if path.is_file())
    )
    nets = CONTROLNET_FOLDER.format(control="")
    digest = hashlib.sha256()
    for path in files:
        relative = path.relative_to(path_or_folder)
        if relative.parts and (
            relative.parts[0].startswith(nets) or any(part.startswith((".", "__")) for part in relative.parts)
        ):
            continue
        size = path.stat().st_size
        digest.update(f"{relative} {size}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(size - SAMPLE_BYTES, 0))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
