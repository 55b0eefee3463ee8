"""Fun ControlNets come as one file: what they are is read off their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig
from synccontrol.errors import ModelError
from synccontrol.families import fun_controlnet
from synccontrol.models import loader
from tests.families.checkpoints_flow import CELL, CONTROLNETS, HEADS, WINDOW, tiny_z_image_controlnet

SIZE = WINDOW * CELL  # px
WEIGHTS = "diffusion_pytorch_model.safetensors"
MapMaker = Callable[..., Image.Image]


def draw(pipe: Any, control_map: Image.Image) -> Tensor:
    found: Tensor = Montage.from_pipe(pipe)(
        "a red hill", control_map, sampling=SamplingConfig(steps=2).complete(), sync=SyncConfig(weight=0.0).complete()
    ).latents
    return found


@pytest.fixture
def published(z_image: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes the ControlNet of a control type as its publisher would."""

    def write(control: str) -> Path:
        weights = load_file(z_image / f"controlnet-{control}" / WEIGHTS)
        if CONTROLNETS[control] == "control_layers":  # version 2.0 brings a refiner that was never trained
            whole = tiny_z_image_controlnet("control_noise_refiner").state_dict()
            rest = {key: value for key, value in whole.items() if key.startswith("control_noise_refiner.")}
            weights |= {key: torch.zeros_like(value) if "_proj" in key else value for key, value in rest.items()}
        path = tmp_path / f"{control}.safetensors"
        save_file(weights, path)
        return path

    return write


@pytest.mark.parametrize("control", CONTROLNETS)
def test_a_file_equals_its_source_net(
    z_image: Path, published: Callable[[str], Path], make_map: MapMaker, control: str
) -> None:
    file, control_map = published(control), make_map(SIZE, SIZE)
    whole = loader.load(str(z_image), [control], dtype=torch.float64, offline=True)
    loaded = loader.load(str(z_image), ["mood"], [str(file)], dtype=torch.float64, offline=True)
    ours, theirs = (
        {key: value for key, value in pipe.controlnet.config.items() if not key.startswith("_")}
        for pipe in (loaded, whole)
    )
    assert ours == theirs
    assert torch.equal(draw(loaded, control_map), draw(whole, control_map))
    assert loaded.controlnet.t_embedder is loaded.transformer.t_embedder


@pytest.mark.parametrize("control", CONTROLNETS)
def test_a_blank_net_is_built_from_a_files_header(
    z_image: Path, published: Callable[[str], Path], control: str
) -> None:
    """Whether a refiner was trained is not among them, so that version 2.0 is taken for a later one."""
    folder, file = str(z_image), str(published(control))
    whole = loader.blank(folder, ["depth" if control == "pose" else control], [], torch.float16, offline=True)
    single = loader.blank(folder, ["mood"], [file], torch.float16, offline=True)
    assert single.controlnet.dtype == torch.float16
    shapes = [{key: one.shape for key, one in pipe.controlnet.state_dict().items()} for pipe in (single, whole)]
    assert shapes[0] == shapes[1]


def test_a_pair_names_a_folder_and_a_file_in_it(z_image: Path, published: Callable[[str], Path]) -> None:
    file = published("depth")
    net = fun_controlnet.load(str(z_image), (str(file.parent), file.name), dtype=torch.float32, local_files_only=True)
    assert net.config.control_in_dim == 33


@pytest.mark.parametrize(
    ("layers", "places"), [(6, [0, 5, 10, 15, 20, 25]), (3, [0, 10, 20]), (15, [*range(0, 30, 2)])]
)
def test_control_layers_of_published_nets_are_evenly_spaced(layers: int, places: list[int]) -> None:
    """Versions 1, lite and 2: the real shapes, as far as they are looked at."""
    shapes = {f"control_layers.{layer}.after_proj.weight": [3840, 3840] for layer in range(layers)}
    shapes["control_all_x_embedder.2-1.weight"] = [3840, 64 if layers == 6 else 132]
    real = {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "in_channels": 16}
    transformer = {**dict.fromkeys(fun_controlnet.SHARED), **real}
    config = fun_controlnet._controlnet_config("net.safetensors", shapes, layers != 6, transformer)
    assert config["control_layers_places"] == places
    assert config["control_in_dim"] == (16 if layers == 6 else 33)
    assert config["add_control_noise_refiner"] == (None if layers == 6 else "control_noise_refiner")


def test_files_without_a_controlnet_are_rejected(z_image: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"other\.safetensors holds no ControlNet of Z-Image"):
        loader.load(str(z_image), ["depth"], [str(path)], offline=True)


def test_a_net_for_another_z_image_is_rejected(z_image: Path, published: Callable[[str], Path]) -> None:
    path = published("depth")
    weights = load_file(path)
    save_file({**weights, fun_controlnet.EMBEDDER: torch.zeros(8, 4 * 33)}, path)
    with pytest.raises(ModelError, match=f"is for another Z-Image: it is 8 wide, and this one {16 * HEADS}"):
        loader.load(str(z_image), ["depth"], [str(path)], offline=True)


def test_a_missing_file_is_reported(z_image: Path) -> None:
    for name in ("missing.safetensors", "owner/name/missing.safetensors"):
        with pytest.raises(ModelError, match=r"missing\.safetensors|owner/name"):
            loader.load(str(z_image), ["depth"], [name], offline=True)


def test_a_file_on_the_hub_is_a_repository_and_a_path(z_image: Path) -> None:
    named = ["owner/name/folder/net.safetensors", "owner/name", str(z_image / "controlnet-depth" / WEIGHTS)]
    found = loader.controlnet_sources("tiny", ["a", "b", "c"], named)
    assert found == [("owner/name", "folder/net.safetensors"), *named[1:]]
