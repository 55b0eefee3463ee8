"""Presets: the bundled model is what its preset says, and tiny models stand in for the published ones."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants

import preprocess
from benchmarks import preset_forecasts
from synccontrol import Montage, SyncConfig
from synccontrol.batch import memory_estimate, model_request
from synccontrol.errors import ModelError
from synccontrol.families import checkpoints
from synccontrol.models import loader, registry
from synccontrol.spec.image_spec import mapped_controls
from tests.conftest import FEATURES, PipeFactory
from tests.families import tiny_sdxl


def test_the_bundled_model_matches_its_preset() -> None:
    preset = registry.PRESETS["tiny"]
    montage = Montage.from_pretrained("tiny", controls=["depth", "canny", "pose"], offline=True)
    assert montage.denoiser.geometry == preset.geometry
    assert montage.denoiser.controls == 3
    assert montage.defaults == preset.defaults
    files = [path for path in registry.BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert max(path.stat().st_size for path in files) <= 20e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]


def test_presets_name_valid_repositories_and_detectors() -> None:
    for name, preset in registry.PRESETS.items():
        ids = [preset.base, *preset.controlnets.values(), *([preset.vae] if preset.vae else [])]
        commit, file = r"(@[0-9a-f]{40})?", r"(/[\w./-]+\.safetensors)?"
        assert name == "tiny" or all(re.fullmatch(rf"[\w.-]+/[\w.-]+{commit}{file}", one) for one in ids)
        assert set(mapped_controls(tuple(preset.controlnets))) <= set(preprocess.names())
        for control, detector in preset.detectors.items():
            assert detector in preprocess.detectors(control)
        windows = preset.defaults.windows
        assert windows.stride == min(preset.geometry.window) * 5 // 8


@pytest.mark.parametrize("name", [name for name in registry.PRESETS if name != "tiny"])
def test_photographic_presets_use_photographic_detectors(name: str) -> None:
    read = model_request.own_detectors(name, preprocess.names())
    assert len(read) == len(preprocess.names()) and "tiny" not in read
    assert model_request.own_detectors(name, ["canny"]) == ()  # the default's name is no setting
    assert model_request.own_detectors("tiny", ["depth"]) == ()


def test_flow_models_run_in_bfloat16(z_image: Path, qwen_image: Path, checkpoint: Path) -> None:
    halves = {name: loader.half_dtype(name) for name in registry.PRESETS}
    for name, folder in (("z-image", z_image), ("z-image-turbo", z_image), ("qwen-image", qwen_image)):
        assert halves[name] == loader.half_dtype(str(folder), offline=True) == torch.bfloat16
    for name in ("tiny", "sd15", "sd21", "sd21-768", "sdxl"):
        assert halves[name] == loader.half_dtype(str(checkpoint), offline=True) == torch.float16


def test_preset_memory_matches_the_recorded_estimates() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "preset_forecasts.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert list(found) == list(registry.PRESETS), "run python -m benchmarks.preset_forecasts --output"
    for name, preset in registry.PRESETS.items():
        assert preset.memory == pytest.approx(found[name]["peak_gb"], abs=0.06)
        offloaded = [found[name][f"peak_gb_offload_{how}"] for how in ("model", "sequential")]
        assert preset.offloaded == pytest.approx(offloaded, abs=0.06)
        assert found[name]["settings"] == preset_forecasts.settings(name), "run the forecasts again"


@pytest.mark.parametrize("name", ["z-image", "z-image-turbo", "qwen-image"])
def test_flow_presets_load_and_generate(
    name: str, z_image: Path, qwen_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model stands in for the published one."""
    own, folder = registry.PRESETS[name], qwen_image if name == "qwen-image" else z_image
    net = str(folder / "controlnet-depth")
    preset = dataclasses.replace(own, base=str(folder), controlnets=dict.fromkeys(own.controlnets, net))
    monkeypatch.setattr(registry, "PRESETS", {name: preset})
    montage = Montage.from_pretrained(name, ["depth"], offline=True)
    assert (montage.denoiser.controls, montage.defaults) == (1, own.defaults)
    assert montage.denoiser.geometry.channels == own.geometry.channels
    assert montage.denoiser.geometry.cell == own.geometry.cell
    with pytest.raises(ModelError, match=r"has no ControlNet for 'tile'"):
        Montage.from_pretrained(name, ["tile"], offline=True)


def test_published_controlnets_may_be_files_of_a_commit() -> None:
    (found,) = loader.controlnet_sources("z-image-turbo", ["depth"], [])
    repository, file = found
    assert checkpoints.source_location(found) == "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union-2.1"
    assert checkpoints.split_revision(repository)[1] == {"revision": "5155fc56d17821007d6f62ac192c09e0f0e72016"}
    assert file == "Z-Image-Turbo-Fun-Controlnet-Union-2.1-2602-8steps.safetensors"


def test_the_hub_is_asked_for_the_pinned_commit(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache as the hub's library lays it out, with one commit of a model; nothing is called main."""
    commit, root = "0123456789abcdef0123456789abcdef01234567", tmp_path / "models--owner--name"
    shutil.copytree(checkpoint, root / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for module in ("diffusers.utils.hub_utils", "diffusers.pipelines.pipeline_utils"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path), raising=False)
    pinned, unpinned = f"owner/name@{commit}", "owner/name"
    assert loader.geometry(pinned, offline=True) == loader.geometry(str(checkpoint), offline=True)
    with pytest.raises(ModelError, match="'owner/name' has not been downloaded"):
        loader.geometry(unpinned, offline=True)


def test_a_preset_loads_its_autoencoder_and_weight_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_sdxl.save(tmp_path / "base")
    pipe = tiny_sdxl.load(base, 0)
    pipe.vae.register_to_config(force_upcast=False)
    pipe.vae.save_pretrained(tmp_path / "vae")
    halves = tmp_path / "halves"
    pipe.to(dtype=torch.float16).save_pretrained(halves, variant="fp16")
    union = str(base / tiny_sdxl.UNION)
    preset = dataclasses.replace(
        registry.PRESETS["sdxl"],
        base=str(halves),
        vae=str(tmp_path / "vae"),
        controlnets={"depth": str(base / "controlnet-depth"), "normal": union, "softedge": union},
    )
    monkeypatch.setattr(registry, "PRESETS", {"sdxl": preset})
    montage = Montage.from_pretrained("sdxl", ["normal", "softedge"], dtype=torch.float16, offline=True)
    assert montage.denoiser.controls == 2
    assert montage.denoiser.pipe.vae.config.force_upcast is False
    assert {part.dtype for part in (montage.denoiser.pipe.unet, montage.denoiser.pipe.vae)} == {torch.float16}
    assert (
        Montage.from_pretrained("sdxl", ["depth", "normal"], dtype=torch.float16, offline=True).denoiser.controls == 2
    )
    with pytest.raises(ModelError, match="no file named"):  # the files of 32 bits, which are not there
        Montage.from_pretrained("sdxl", dtype=torch.float32, offline=True)
    with memory_estimate.fake_mode():
        blank = loader.blank("sdxl", ["depth"], [], torch.float16, offline=True)
    assert blank.vae.dtype == torch.float16  # it needs no float32


def test_stable_diffusion_2_1_at_768_pixels(
    make_pipe: PipeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model with the windows, the prediction and the projections of the published one."""
    preset = registry.PRESETS["sd21-768"]
    h, w = preset.geometry.window
    pipe = make_pipe(0, torch.float32, prediction_type="v_prediction")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel(
            sample_size=h,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            norm_num_groups=4,
            cross_attention_dim=FEATURES,
        )
    pipe.save_pretrained(tmp_path)
    monkeypatch.setattr(registry, "PRESETS", {"sd21-768": dataclasses.replace(preset, base=str(tmp_path))})
    montage = Montage.from_pretrained("sd21-768", offline=True)
    assert montage.denoiser.geometry == loader.geometry(str(tmp_path), offline=True) == preset.geometry
    noise = torch.randn(1, 4, h, w, generator=torch.Generator().manual_seed(0))
    few = montage.defaults.sampling.replace(steps=2, scheduler="ddim", guidance_end=1.0)
    ours = montage(
        "a hill", height=768, width=768, latents=noise, sampling=few, sync=SyncConfig(weight=0.0).complete()
    ).latents
    theirs = montage.denoiser.pipe("a hill", latents=noise, num_inference_steps=2, output_type="latent").images
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()
