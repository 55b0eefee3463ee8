"""LoRAs, IP-Adapters and autoencoders by flags: they are recorded, and `--settings` makes the picture again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL, AutoencoderTiny

from preprocess.hub import quiet_libraries
from synccontrol.io import metadata
from synccontrol.models import loader
from tests.cli.pictures import Run, draw, pixels
from tests.families import tiny_additions

DRAWING = ("--prompt", "x", "--width", "96")


@pytest.fixture
def adapters(checkpoint: Path, tmp_path: Path) -> list[str]:
    """Returns flags, all files below `tmp_path`."""
    pipe: Any = loader.load(str(checkpoint), [], offline=True)
    with quiet_libraries():
        tiny_additions.save_lora(pipe, tmp_path)
        tiny_additions.save_ip_adapter(pipe.unet, tmp_path, "adapters/ip.safetensors")
        AutoencoderKL.from_config(pipe.vae.config).save_pretrained(tmp_path / "vae")
    draw(tmp_path / "shown.png", 64, 64)
    lora = ["--lora", "pytorch_lora_weights.safetensors:0.5", "--lora", "pytorch_lora_weights.safetensors"]
    return [*lora, "--vae", "vae", "--ip-adapter", "adapters/ip.safetensors", "--ip-scale", "0.8"]


def test_they_are_recorded_and_repeated(
    run: Run, adapters: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*DRAWING, "--output", "plain.png")[0] == 0
    assert run(*DRAWING, *adapters, "--ip-image", "shown.png", "--output", "a.png") == (0, "a.png\n", "")
    assert not np.array_equal(pixels("a.png"), pixels("plain.png"))
    stored = metadata.read_settings(Path("a.png"))
    assert stored["lora"] == ["pytorch_lora_weights.safetensors:0.5", "pytorch_lora_weights.safetensors"]
    assert (stored["ip_adapter"], stored["ip_scale"], stored["vae"]) == ("adapters/ip.safetensors", 0.8, "vae")
    assert stored["ip_image"] == "shown.png" and len(stored["ip_image_sha256"]) == 64
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("--settings", "../a.png", "--output", "b.png", model=[])[0] == 0
    assert np.array_equal(pixels("b.png"), pixels("../a.png"))
    assert run("--settings", "../a.png", "--ip-scale", "0.1", "--output", "c.png", model=[])[0] == 0
    assert not np.array_equal(pixels("c.png"), pixels("../a.png"))


def test_what_belongs_together_is_asked_for(run: Run, adapters: list[str]) -> None:
    for flags in (adapters, ["--ip-image", "shown.png"]):
        status, _, err = run(*DRAWING, *flags)
        assert status == 2
        assert err.startswith("error: --ip-adapter and --ip-image belong together") and err.count("\n") == 1


def test_an_input_is_never_replaced(run: Run, adapters: list[str]) -> None:
    before = Path("shown.png").read_bytes()
    flags = [*adapters, "--ip-image", "shown.png", "--output", "shown.png", "--overwrite"]
    assert run(*DRAWING, *flags)[0] == 2
    assert Path("shown.png").read_bytes() == before


def test_what_a_forecast_leaves_out_is_said(run: Run, adapters: list[str]) -> None:
    status, out, _ = run(*DRAWING, *adapters, "--ip-image", "shown.png", "--dry-run")
    assert status == 0
    assert "LoRAs and IP-Adapters are not counted" in out


def test_offloading_is_checked_before_anything_is_done(run: Run) -> None:
    status, _, err = run(*DRAWING, "--offload", "all", "--dry-run")
    assert (status, err) == (2, "error: unknown offload 'all'; known: none, model, sequential\n")
    status, _, err = run(*DRAWING, "--offload", "model")
    assert status == 2 and "offload model frees a card, and the device is cpu" in err


def test_a_small_decoder_that_nothing_looks_through_is_said(run: Run) -> None:
    with quiet_libraries():
        AutoencoderTiny(
            encoder_block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        ).save_pretrained("small")
    flags, said = (*DRAWING, "--tiny-vae", "small", "--dry-run"), "--tiny-vae does nothing here"
    assert said in run(*flags)[1]
    assert said not in run(*flags, "--sync-weight", "1")[1]
