"""How a model is found and loaded: a preset, a diffusers folder or a hub id."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

from preprocess import hub
from preprocess.errors import HubError
from synccontrol import families
from synccontrol.config import Geometry
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.models import presets

Loaded = TypeVar("Loaded")
Source: TypeAlias = str | tuple[str, str]  # a folder, file or hub id, or a folder or hub id and what is meant inside it

CONTROLNET_FOLDER = "controlnet-{control}"  # a ControlNet inside a model's own folder
OFFLINE_HINT = "without network use --model tiny or a diffusers folder"
LIBRARIES = ("diffusers", "transformers")  # that log and draw bars while they load
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def defaults(model: str, offline: bool = False) -> presets.Defaults:
    """Returns the settings for a model, its weights not loaded. Raises `ModelError` if it cannot be read."""
    return (
        presets.PRESETS[model].defaults
        if model in presets.PRESETS
        else presets.Defaults.fitting(geometry(model, offline))
    )


def geometry(model: str, offline: bool = False) -> Geometry:
    """Returns a model's native sizes without loading its weights. Raises `ModelError` if it cannot be read."""
    if model in presets.PRESETS:
        return presets.PRESETS[model].geometry
    base = base_of(model)

    def read(local: bool) -> Geometry:
        found: Geometry = _family(base, local).geometry(base, local_files_only=local)
        return found

    return fetch(read, [base], offline)


def blank(
    model: str, controls: Sequence[str], controlnets: Sequence[str], dtype: torch.dtype, offline: bool = False
) -> Any:
    """Returns a model's pipeline without weights, to rehearse its work with. Raises `ModelError` as `load`."""
    base, sources = base_of(model), controlnet_sources(model, controls, controlnets, offline)
    extra = _vae(model)
    return fetch(
        lambda local: _family(base, local).blank(base, sources, dtype, **extra, local_files_only=local),
        [*_places(base, sources), *extra.values()],
        offline,
    )


def base_of(model: str) -> str:
    """Returns the diffusers folder or hub id of a model. Raises `ModelError` for a name that cannot be either."""
    if model in presets.PRESETS:
        return presets.PRESETS[model].base
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            raise ModelError(f"{model} has no model_index.json, so it is no diffusers folder; choose one that has")
        return model
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise ModelError(
            f"unknown model {model!r}: no preset ({', '.join(presets.PRESETS)}), no folder, and no hub id (owner/name)"
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
        one_for_all = len(named) == 1 < len(controls) and _is_union(_source(named[0]), offline)
        if len(named) != len(controls) and not one_for_all:
            raise ConfigError(f"{len(named)} ControlNets are named for {len(controls)} controls; name one for each")
        return [_source(name) for name in named]
    return [_controlnet_source(model, control) for control in controls]


def _is_union(source: Source, offline: bool) -> bool:
    place = source if isinstance(source, str) else source[0]
    return fetch(lambda local: checkpoints.is_union(source, local_files_only=local), [place], offline)


def _controlnet_source(model: str, control: str) -> Source:
    base = Path(base_of(model))
    known = dict(presets.PRESETS[model].controlnets) if model in presets.PRESETS else {}
    if control in known:
        return _source(known[control])
    folder = CONTROLNET_FOLDER.format(control=control)
    if (base / folder).is_dir():
        return str(base), folder
    found = sorted([*known, *(path.name.removeprefix("controlnet-") for path in base.glob("controlnet-*"))])
    has = f"it has {', '.join(found)}" if found else "it has none of its own"
    raise ModelError(f"model {model!r} has no ControlNet for {control!r}: {has}; name one with --controlnet")


def _source(name: str) -> Source:
    """Returns the source of a name: of a file on the hub, its repository and its path there."""
    owner, *rest = name.split("/")
    if Path(name).exists() or not name.endswith(".safetensors") or len(rest) < 2:
        return name
    return f"{owner}/{rest[0]}", "/".join(rest[1:])


def load(
    model: str,
    controls: Sequence[str],
    controlnets: Sequence[str] = (),
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> Any:
    """Returns the diffusers pipeline of a model with its ControlNets, on the device. Arguments as `from_pretrained`.

    Raises:
        ModelError: the model, a ControlNet or the device is not to be had.
        ConfigError: the number of named ControlNets differs from the controls'.
    """
    check_device(device)
    base = base_of(model)
    sources = controlnet_sources(model, controls, controlnets, offline)
    extra, variant = _vae(model), _variant(model, dtype)
    pipe = fetch(
        lambda local: _family(base, local).load(base, sources, **extra, **variant, dtype=dtype, local_files_only=local),
        [*_places(base, sources), *extra.values()],
        offline,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _vae(model: str) -> dict[str, str]:
    """Returns the option that names a preset's own autoencoder."""
    vae = presets.PRESETS[model].vae if model in presets.PRESETS else ""
    return {"vae": vae} if vae else {}


def _variant(model: str, dtype: torch.dtype) -> dict[str, str]:
    """Returns the option that names the smaller files of a preset, where they hold all that is wanted."""
    variant = presets.PRESETS[model].variant if model in presets.PRESETS and dtype.itemsize == 2 else ""
    return {"variant": variant} if variant else {}


def _places(base: str, sources: Sequence[Source]) -> list[str]:
    """Returns the folders and hub ids of a model and its ControlNets."""
    return [base, *(source if isinstance(source, str) else source[0] for source in sources)]


def _family(base: str, local_files_only: bool) -> Any:
    """Returns the module of the family that a model's `model_index.json` names."""
    import diffusers

    import_module("synccontrol.models.codec")  # diffusers finds the bundled autoencoder's class among loaded modules
    index = diffusers.DiffusionPipeline.load_config(base, local_files_only=local_files_only)
    return families.find(index["_class_name"])


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


def check_device(device: str) -> None:
    """Raises `ModelError` when a torch device is unknown or not there."""
    kind, _, number = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in count or (number and not number.isdigit()):
        raise ModelError(f"unknown device {device!r}; use cpu, cuda, cuda:1 or mps")
    if count[kind] <= int(number or 0):
        there = [name for name, devices in count.items() if devices]
        raise ModelError(f"device {device!r} is not there; this machine has {', '.join(there)}")
