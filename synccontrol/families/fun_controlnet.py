"""The Fun ControlNets of Z-Image, in diffusers' layout or as the one file that they are published as.

diffusers would download a configuration for a file, and takes the lite nets for others; so the configuration is read
off the weights here. That needs no network, and serves nets of any number of layers.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
from diffusers import ZImageControlNetModel, ZImageTransformer2DModel
from huggingface_hub import HfApi, hf_hub_download
from safetensors import safe_open

from synccontrol.families import checkpoints
from synccontrol.families.checkpoints import SUFFIX, Source, default_dtype
from synccontrol.families.flow_base import PATCH

Shapes: TypeAlias = Mapping[str, Sequence[int]]

EMBEDDER = "control_all_x_embedder.2-1.weight"
REFINER_INPUT = "control_noise_refiner.0.before_proj.weight"
SHARED = (
    "all_patch_size",
    "all_f_patch_size",
    "dim",
    "n_refiner_layers",
    "n_heads",
    "n_kv_heads",
    "norm_eps",
    "qk_norm",
)


def load(base: str, source: Source, **options: Any) -> Any:
    """Returns a ControlNet.

    Args:
        base: the diffusers folder or hub id of the Z-Image that it is for.
        source: a folder, hub id or .safetensors file, or a pair of a folder or hub id and what is meant inside it.
        options: dtype and local_files_only.

    Raises:
        ValueError: a file holds no ControlNet of this Z-Image.
    """
    if not _is_file(source):
        return checkpoints.weights(ZImageControlNetModel, source, **options)
    options.pop("use_safetensors", None)  # it is one
    name, inside = checkpoints.parts(source)
    local = options.get("local_files_only", False)
    file = _path(name, inside) or _download(name, inside, local)
    with safe_open(file, framework="pt") as weights:
        shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
        refines = REFINER_INPUT in shapes and bool(weights.get_tensor(REFINER_INPUT).any())
    config = _config(Path(file).name, shapes, refines, _transformer(base, local))
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return ZImageControlNetModel.from_single_file(file, config=folder, **options)


def blank(base: str, source: Source, dtype: torch.dtype, **options: Any) -> Any:
    """Returns a ControlNet without its weights; of a file, only the table of contents is read. Arguments as `load`."""
    name, inside = checkpoints.parts(source)
    local = options.get("local_files_only", False)
    if _is_file(source):
        shapes = _contents(name, inside, local)
        config = _config(inside or Path(name).name, shapes, REFINER_INPUT in shapes, _transformer(base, local))
    else:
        config = checkpoints.component_config(ZImageControlNetModel, source, **options)
    with default_dtype(dtype):
        return ZImageControlNetModel.from_config(config)


def _is_file(source: Source) -> bool:
    name, inside = checkpoints.parts(source)
    return (inside or name).endswith(SUFFIX) and not Path(name, inside).is_dir()


def _path(name: str, inside: str) -> str | None:
    """Returns the path of a file that is no hub repository's."""
    path = Path(name, inside)
    return str(path) if not inside or path.exists() else None


def _contents(name: str, inside: str, local_files_only: bool) -> Shapes:
    """Returns the shapes of a file's tensors, by name; a file on the hub is not downloaded for that."""
    path = _path(name, inside)
    if path is None and not local_files_only:
        repository, revision = checkpoints.pinned(name)
        found = HfApi().parse_safetensors_file_metadata(repository, inside, revision=revision.get("revision"))
        return {key: tensor.shape for key, tensor in found.tensors.items()}
    with safe_open(path or _download(name, inside, True), framework="pt") as weights:
        return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118


def _download(name: str, inside: str, local_files_only: bool) -> str:
    repository, revision = checkpoints.pinned(name)
    path: str = hf_hub_download(
        repository, inside, local_files_only=local_files_only, revision=revision.get("revision")
    )
    return path


def _transformer(base: str, local_files_only: bool) -> Mapping[str, Any]:
    return checkpoints.component_config(
        ZImageTransformer2DModel, (base, "transformer"), local_files_only=local_files_only
    )


def _config(file: str, shapes: Shapes, refines: bool, transformer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a file's ControlNet.

    Args:
        file: its name.
        shapes: of its tensors.
        refines: whether the layers of its noise refiner were trained; version 2.0 has them, and does not use them.
        transformer: the configuration of its Z-Image.
    """
    layers = {int(key.split(".")[1]) for key in shapes if key.startswith("control_layers.")}
    if EMBEDDER not in shapes or not layers:
        raise ValueError(f"{file} holds no ControlNet of Z-Image")
    width, inputs = shapes[EMBEDDER]
    if width != transformer["dim"] or len(layers) > transformer["n_layers"]:
        raise ValueError(f"{file} is for another Z-Image: it is {width} wide, and this one {transformer['dim']}")
    channels = inputs // PATCH**2
    first = channels == transformer["in_channels"]  # later ones also take a mask and a picture to paint over
    apart = transformer["n_layers"] // len(layers)  # all published nets lie evenly
    return {
        **{name: transformer[name] for name in SHARED},
        "control_layers_places": [apart * layer for layer in range(len(layers))],
        "control_refiner_layers_places": None if first else list(range(transformer["n_refiner_layers"])),
        "control_in_dim": channels,
        "add_control_noise_refiner": None if first else "control_noise_refiner" if refines else "control_layers",
    }
