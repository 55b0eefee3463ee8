"""The Fun ControlNets of Z-Image, in diffusers' layout or as the single file they are published as.

diffusers would download a configuration for a single file, and mistakes the lite nets for others. This module derives
the configuration from the weights instead, which needs no network and works for any number of layers.
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
    """Load a ControlNet.

    Args:
        base: the diffusers folder or hub id of the Z-Image it belongs to.
        source: a folder, hub id or .safetensors file, or a pair of a folder or hub id and a path inside it.
        options: dtype and local_files_only.

    Raises:
        ValueError: a file is no ControlNet of this Z-Image.
    """
    if not _is_file(source):
        return checkpoints.load_weights(ZImageControlNetModel, source, **options)
    options.pop("use_safetensors", None)  # a file is always .safetensors
    name, inside = checkpoints.split_source(source)
    local = options.get("local_files_only", False)
    file = _local_path(name, inside) or _download(name, inside, local)
    with safe_open(file, framework="pt") as weights:
        shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
        refines = REFINER_INPUT in shapes and bool(weights.get_tensor(REFINER_INPUT).any())
    config = _controlnet_config(Path(file).name, shapes, refines, _transformer_config(base, local))
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return ZImageControlNetModel.from_single_file(file, config=folder, **options)


def blank(base: str, source: Source, dtype: torch.dtype, **options: Any) -> Any:
    """Return a ControlNet without weights. Of a file, only the header is read. Arguments are those of `load`."""
    name, inside = checkpoints.split_source(source)
    local = options.get("local_files_only", False)
    if _is_file(source):
        shapes = _tensor_shapes(name, inside, local)
        config = _controlnet_config(
            inside or Path(name).name, shapes, REFINER_INPUT in shapes, _transformer_config(base, local)
        )
    else:
        config = checkpoints.component_config(ZImageControlNetModel, source, **options)
    with default_dtype(dtype):
        return ZImageControlNetModel.from_config(config)


def _is_file(source: Source) -> bool:
    name, inside = checkpoints.split_source(source)
    return (inside or name).endswith(SUFFIX) and not Path(name, inside).is_dir()


def _local_path(name: str, inside: str) -> str | None:
    """Return the path of a local file; None for a file in a hub repository."""
    path = Path(name, inside)
    return str(path) if not inside or path.exists() else None


def _tensor_shapes(name: str, inside: str, local_files_only: bool) -> Shapes:
    """Return the shapes of a file's tensors by name, without downloading a file on the hub."""
    path = _local_path(name, inside)
    if path is None and not local_files_only:
        repository, revision = checkpoints.split_revision(name)
        metadata = HfApi().parse_safetensors_file_metadata(repository, inside, revision=revision.get("revision"))
        return {key: tensor.shape for key, tensor in metadata.tensors.items()}
    with safe_open(path or _download(name, inside, True), framework="pt") as weights:
        return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118


def _download(name: str, inside: str, local_files_only: bool) -> str:
    repository, revision = checkpoints.split_revision(name)
    path: str = hf_hub_download(
        repository, inside, local_files_only=local_files_only, revision=revision.get("revision")
    )
    return path


def _transformer_config(base: str, local_files_only: bool) -> Mapping[str, Any]:
    return checkpoints.component_config(
        ZImageTransformer2DModel, (base, "transformer"), local_files_only=local_files_only
    )


def _controlnet_config(file: str, shapes: Shapes, has_refiner: bool, transformer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a file's ControlNet.

    Args:
        file: name of the file.
        shapes: shapes of its tensors.
        has_refiner: whether the noise refiner layers were trained; version 2.0 contains them and does not use them.
        transformer: the configuration of its Z-Image.
    """
    layers = {int(key.split(".")[1]) for key in shapes if key.startswith("control_layers.")}
    if EMBEDDER not in shapes or not layers:
        raise ValueError(f"{file} holds no ControlNet of Z-Image")
    width, inputs = shapes[EMBEDDER]
    if width != transformer["dim"] or len(layers) > transformer["n_layers"]:
        raise ValueError(f"{file} is for another Z-Image: it is {width} wide, and this one {transformer['dim']}")
    channels = inputs // PATCH**2
    is_first_version = channels == transformer["in_channels"]  # later versions also take a mask and an image to inpaint
    spacing = transformer["n_layers"] // len(layers)  # the control layers of all published nets are evenly spaced
    return {
        **{name: transformer[name] for name in SHARED},
        "control_layers_places": [spacing * layer for layer in range(len(layers))],
        "control_refiner_layers_places": None if is_first_version else list(range(transformer["n_refiner_layers"])),
        "control_in_dim": channels,
        "add_control_noise_refiner": None
        if is_first_version
        else "control_noise_refiner"
        if has_refiner
        else "control_layers",
    }
