"""`--list-models` says of every preset what it is, needs, and what of it is here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from synccontrol.cli import main
from synccontrol.families.checkpoints import source_location
from synccontrol.models import listing, registry
from tests.conftest import PipeFactory
from tests.families.test_inpaint_unets import taught
from tests.models import checkpoint_file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def download(cache: Path, repository: str, size: int) -> None:
    """Put a file into the cache, as the hub's library does."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = cache / f"models--{repository.replace('/', '--')}"
    for folder in ("refs", "blobs", f"snapshots/{commit}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "blobs" / "abc").write_bytes(bytes(size))
    (root / f"snapshots/{commit}/model.safetensors").symlink_to(root / "blobs" / "abc")


def test_every_preset_is_described(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--list-models"]) == 0
    out = capsys.readouterr().out
    for name, preset in registry.PRESETS.items():
        assert f"{name}: {preset.about}\n" in out
        assert preset.licence in out and preset.download in out
    assert out.count("here      nothing") == len(registry.PRESETS) - 1
    assert out.count("here      all of it") == 1


def test_cached_files_are_listed(cache: Path) -> None:
    sd15 = registry.PRESETS["sd15"]
    download(cache, source_location(sd15.base), 200_000_000)
    download(cache, sd15.controlnets["depth"], 10)
    assert "  here      0.2 GB of the base model; ControlNets for depth" in listing.model_lines()


def test_gpu_sizes_leave_room_for_the_driver() -> None:
    assert [listing.smallest_card(memory) for memory in (0.3, 7.3, 7.4, 11.0, 43.3, 80.5)] == [8, 8, 12, 12, 48, 96]


def test_inpainting_models_are_detected(
    checkpoint: Path, make_pipe: PipeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not listing.is_inpainting_model("tiny") and not listing.is_inpainting_model(str(checkpoint), offline=True)
    preset = dataclasses.replace(registry.PRESETS["sd15"], base=str(checkpoint))
    monkeypatch.setattr(registry, "PRESETS", {"sd15": preset})
    pipe = taught(make_pipe(0, torch.float32))
    pipe.save_pretrained(tmp_path / "inpainting")
    assert listing.is_inpainting_model(str(tmp_path / "inpainting"), offline=True)
    file = checkpoint_file.save(pipe, tmp_path / "inpainting.safetensors")
    assert listing.is_inpainting_model(str(file), offline=True)
