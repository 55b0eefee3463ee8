"""Reading what folders, the hub's cache and the hub hold, or a line on why that is not to be had."""

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
from synccontrol.families import checkpoints as sources
from synccontrol.families.checkpoints import OFFLINE_HINT, Source, fetch, parts, pinned, place, source
from synccontrol.models import registry, single_file
from synccontrol.models.adapters import adapter_sources, add_adapters, tiny_vae_source
from synccontrol.models.devices import DTYPES, NONE, check_device, check_offload, settle
from synccontrol.models.presets import Defaults, chosen, of_family, variants
from synccontrol.sampling.batching import Note
from synccontrol.spec.image_settings import DEFAULT
from synccontrol.spec.schema import nearest
from synccontrol.spec.settings import Adapters, Geometry

CONTROLNET_FOLDER = "controlnet-{control}"  # a ControlNet inside a model's own folder


def defaults(model: str, preset: str = DEFAULT, offline: bool = False) -> Defaults:
    """Returns the settings of a model's preset, its weights not loaded.

    Raises:
        ModelError: the model cannot be read.
        ConfigError: there is no such preset.
    """
    sizes = geometry(model, offline)
    return chosen(variants(_own_defaults(model, sizes, offline), sizes), preset)


def _own_defaults(model: str, sizes: Geometry, offline: bool) -> Defaults:
    if model in registry.PRESETS:
        return registry.PRESETS[model].defaults
    base = base_of(model)

    def read(local: bool) -> Defaults:
        index = _index(base, local)
        family = families.find(index["_class_name"])
        return of_family(families.name(family), sizes, index["scheduler"][1])

    return fetch(read, [place(base)], offline, _hint(model, base))


def half(model: str, offline: bool = False) -> torch.dtype:
    """Returns the dtype of 16 bits that suits a model's networks. Raises `ModelError` if it cannot be read."""
    known = single_file.known_preset(model)
    if known:
        return DTYPES[registry.PRESETS[known].half]
    base = base_of(model)

    def read(local: bool) -> torch.dtype:
        found: torch.dtype = _family(base, local).HALF
        return found

    return fetch(read, [place(base)], offline, _hint(model, base))


def geometry(model: str, offline: bool = False) -> Geometry:
    """Returns a model's native sizes without loading its weights. Raises `ModelError` if it cannot be read."""
    if model in registry.PRESETS:
        return registry.PRESETS[model].geometry
    base = base_of(model)

    def read(local: bool) -> Geometry:
        found: Geometry = _family(base, local).geometry(base, local_files_only=local)
        return found

    return fetch(read, [place(base)], offline, _hint(model, base))


def blank(
    model: str,
    controls: Sequence[str],
    controlnets: Sequence[str],
    dtype: torch.dtype,
    offline: bool = False,
    adapters: Adapters = Adapters(),
) -> Any:
    """Returns a model's pipeline without weights, to rehearse its work with. Raises `ModelError` as `load`.

    LoRAs and IP-Adapters are not in it.
    """
    base, nets = base_of(model), controlnet_sources(model, controls, controlnets, offline)
    vae = _vae(model, adapters)
    return fetch(
        lambda local: _family(base, local).blank(
            base, nets, dtype, **vae, **single_file.channels(model, base, local), local_files_only=local
        ),
        _places(base, nets, vae),
        offline,
    )


def base_of(model: str) -> str:
    """Returns the diffusers folder or hub id of a model. Raises `ModelError` for a name that cannot be either."""
    if model in registry.PRESETS:
        return registry.PRESETS[model].base
    if single_file.is_one(model):
        return registry.PRESETS[single_file.preset_of(model)].base
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            raise ModelError(f"{model} has no model_index.json, so it is no diffusers folder; choose one that has")
        return model
    if model.count("/") != 1 or model.startswith((".", "/")):
        near = nearest(model, registry.PRESETS)
        raise ModelError(
            f"unknown model {model!r}: no preset ({', '.join(registry.PRESETS)}), no folder, and no hub id (owner/name)"
            + (f"; did you mean {near}?" if near else "")
        )
    return model


def controlnet_sources(
    model: str, controls: Sequence[str], named: Sequence[str], offline: bool = False
) -> list[Source]:
    """Returns where the ControlNet of each control type comes from; a union named for several controls stands once.

    Args:
        model: a preset, folder or hub id.
        controls: control types.
        named: folders, files or hub ids the user named, one per control, or one union for all; or none. A file on the
            hub is owner/name/file.safetensors.
        offline: never ask the network whether a ControlNet is a union.

    Raises:
        ConfigError: their number differs from the controls'.
        ModelError: the model is not known to have a ControlNet of that type.
    """
    if named:
        one_for_all = len(named) == 1 < len(controls) and _is_union(source(named[0]), offline)
        if len(named) != len(controls) and not one_for_all:
            raise ConfigError(f"{len(named)} ControlNets are named for {len(controls)} controls; name one for each")
        return [source(name) for name in named]
    return [_controlnet_source(model, control) for control in controls]


def _is_union(of: Source, offline: bool) -> bool:
    return fetch(lambda local: checkpoints.is_union(of, local_files_only=local), [place(of)], offline)


def _controlnet_source(model: str, control: str) -> Source:
    base = Path(base_of(model))
    known = (
        dict(registry.PRESETS[single_file.known_preset(model)].controlnets) if single_file.known_preset(model) else {}
    )
    if control in known:
        return source(known[control])
    folder = CONTROLNET_FOLDER.format(control=control)
    if (base / folder).is_dir():
        return str(base), folder
    found = sorted([*known, *(path.name.removeprefix("controlnet-") for path in base.glob("controlnet-*"))])
    near = nearest(control, found)
    has = f"it has {', '.join(found)}" if found else "it has none of its own"
    raise ModelError(
        f"model {model!r} has no ControlNet for {control!r}: "
        + (f"did you mean {near}? " if near else "")
        + f"{has}; name one with --controlnet"
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
    """Returns the diffusers pipeline of a model with its ControlNets, on the device.

    Arguments are those of `Montage.from_pretrained`; `note` is called with a line for what the user should know.

    Raises:
        ModelError: the model, a ControlNet, an addition or the device is not to be had.
        ConfigError: the number of named ControlNets differs from the controls'.
    """
    check_device(device)
    check_offload(offload, device)
    base = base_of(model)
    nets = controlnet_sources(model, controls, controlnets, offline)
    options = {**_vae(model, adapters), **_variant(model, dtype), **single_file.named(model)}

    def read(local: bool) -> Any:
        family = _family(base, local)
        told = {**options, **single_file.channels(model, base, local), "dtype": dtype, "local_files_only": local}
        try:
            pipe = family.load(base, nets, **told, use_safetensors=True)
        except OSError:
            pipe = family.load(base, nets, **told)  # which reads no more than weights from other files
            note(f"{model} or what belongs to it is no .safetensors file; of other files nothing but weights is read")
        add_adapters(pipe, adapters, local)
        return pipe

    places = [*_places(base, nets, _vae(model, adapters)), *adapter_sources(adapters)]
    pipe = fetch(read, places, offline, _hint(model, base))
    pipe.set_progress_bar_config(disable=True)
    return settle(pipe, device, offload)


def _hint(model: str, base: str) -> str:
    """Returns what works without the network."""
    if not single_file.is_one(model):
        return OFFLINE_HINT
    return f"beside the file, the configuration and tokenizers of {base} are needed, a few MB: connect once"


def _vae(model: str, adapters: Adapters) -> dict[str, str]:
    """Returns the option that names another autoencoder than the base model's: as asked, or the preset's own."""
    vae = adapters.vae or (registry.PRESETS[model].vae if model in registry.PRESETS else "")
    return {"vae": vae} if vae else {}


def _variant(model: str, dtype: torch.dtype) -> dict[str, str]:
    """Returns the option that names the smaller files of a preset, where they hold all that is wanted."""
    variant = registry.PRESETS[model].variant if model in registry.PRESETS and dtype.itemsize == 2 else ""
    return {"variant": variant} if variant else {}


def _places(base: str, nets: Sequence[Source], vae: Mapping[str, str]) -> list[str]:
    """Returns the folders and hub ids of a model, its ControlNets and its autoencoder."""
    return [*map(place, [base, *nets, *map(source, vae.values())])]


def _family(base: str, local_files_only: bool) -> Any:
    """Returns the module of the family that a model's `model_index.json` names."""
    return families.find(_index(base, local_files_only)["_class_name"])


def _index(base: str, local_files_only: bool) -> Mapping[str, Any]:
    """Returns a model's `model_index.json`: classes by part."""
    import diffusers

    import_module("synccontrol.models.codec")  # diffusers finds the bundled autoencoder's class among loaded modules
    index: Mapping[str, Any] = sources.component_config(
        diffusers.DiffusionPipeline, base, local_files_only=local_files_only
    )
    return index


SAMPLE = 2**20  # bytes of a file that are read at either end: weights are gigabytes
DIGITS = 16  # of a hash


def revision(
    model: str,
    controls: Sequence[str],
    controlnets: Sequence[str],
    adapters: Adapters = Adapters(),
    offline: bool = False,
) -> str:
    """Returns which files a model, its ControlNets and its adapters are: a hash, the same for the same files.

    Of a hub id the commit counts; of files in a folder their names, sizes, and first and last MiB. An empty text: it is
    not known, because nothing has been downloaded yet.

    Raises:
        ModelError, ConfigError: there is no such model, or no such ControlNet.
    """
    nets = controlnet_sources(model, controls, controlnets, offline)
    own = [model] if single_file.is_one(model) else []
    others = [
        *own,
        *(name for name, _ in adapters.loras),
        adapters.ip_adapter,
        adapters.vae,
        tiny_vae_source(model, adapters),
    ]
    return _revision((base_of(model), *nets, *(source(name) for name in others if name)))


@cache
def _revision(sources: tuple[Source, ...]) -> str:
    found = [_one(source) for source in sources]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:DIGITS] if all(found) else ""


def _one(found: Source) -> str:
    name, inside = parts(found)
    repository, pin = pinned(name)
    path = Path(repository)
    if path.exists():
        return _files(path / inside)
    commit = _commit(repository, pin.get("revision", "main"))
    return f"{commit}/{inside}" if commit else ""


def _commit(repository: str, reference: str) -> str:
    """Returns the commit of a hub repository that a branch or tag was when it was downloaded, or an empty text."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    if (folder / "snapshots" / reference).is_dir():
        return reference  # a commit itself
    try:
        return (folder / "refs" / reference).read_text(encoding="ascii")
    except OSError:
        return ""


def _files(place: Path) -> str:
    """Returns a hash of a file, or of a folder without the ControlNets that lie in it."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    nets = CONTROLNET_FOLDER.format(control="")
    digest = hashlib.sha256()
    for path in files:
        below = path.relative_to(place)
        if below.parts and (
            below.parts[0].startswith(nets) or any(part.startswith((".", "__")) for part in below.parts)
        ):
            continue
        size = path.stat().st_size
        digest.update(f"{below} {size}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            file.seek(max(size - SAMPLE, 0))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()
