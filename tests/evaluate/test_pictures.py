"""Which images of a folder are scored, how they are cropped, and what is said about those that cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synccontrol.errors import ConfigError, InputError
from synccontrol.evaluate.dataset import Crops, grid, open_gallery
from synccontrol.evaluate.measurement import Settings
from synccontrol.io import images


def save(path: Path, width: int = 64, height: int = 32, **own: Any) -> None:
    info = PngInfo()
    if own:
        info.add_itxt("synccontrol", json.dumps(own))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, pnginfo=info)


def test_crop_positions_match_the_published_program() -> None:
    # get_views_crop: (height - window) // stride + 1 rows, likewise columns, row by row
    assert grid(512, 3017, 512) == [(0, 512 * i) for i in range(5)]
    assert grid(70, 100, 32) == [(0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    crops = Crops(image=Image.fromarray(pixels), window=32)
    assert len(crops) == 6
    fourth = torch.from_numpy(pixels[32:64, 32:64]).permute(2, 0, 1) / 255
    assert torch.equal(crops.take()[4], fourth) and torch.equal(crops.take(4, 5)[0], fourth)


def test_control_maps_next_to_a_montage_are_excluded(tmp_path: Path) -> None:
    for name in ("a.depth.png", "a.canny-2.png", "b.v2.png", "inner/c.png"):
        save(tmp_path / name)
    save(tmp_path / "a.png", control=["smell"])
    save(tmp_path / "a.smell.png")
    gallery = open_gallery(tmp_path, Settings(window=32))
    assert [montage.name for montage in gallery.montages] == ["a.png", "b.v2.png", "inner/c.png"]
    ((what, why),) = gallery.left_out
    assert what == "3 control maps" and "a.canny-2.png, a.depth.png, a.smell.png" in why


def test_a_name_with_a_dot_is_not_a_control_map(tmp_path: Path) -> None:
    save(tmp_path / "valley.png")
    save(tmp_path / "valley.night.png")
    gallery = open_gallery(tmp_path, Settings(window=32))
    assert [montage.name for montage in gallery.montages] == ["valley.night.png", "valley.png"]
    assert not gallery.left_out


def test_unreadable_files_are_excluded_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "cut.png"):
        save(tmp_path / name)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    save(tmp_path / "wide.png", 96)
    gallery = open_gallery(tmp_path, Settings(window=32))
    assert [montage.name for montage in gallery.montages] == ["a.png", "b.png"]
    told = dict(gallery.left_out)
    assert "damaged or cut short" in told["cut.png"] and "not an image" in told["text.png"]
    assert told["1 of another size"].startswith("96x32 px, most are 64x32") and "wide.png" in told["1 of another size"]


def test_images_are_measured_at_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guides of so many pixels are scaled down as they are read."""
    monkeypatch.setattr(images, "MAX_PIXELS_IN_MEMORY", 1000)
    save(tmp_path / "a.png")
    assert images.open_image(tmp_path / "a.png", max_pixels=images.MAX_PIXELS_IN_MEMORY).size == (32, 16)
    gallery = open_gallery(tmp_path, Settings(window=32))
    assert (gallery.width, gallery.height) == (64, 32) == gallery.montages[0].read().size


def test_settings_of_huge_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    save(tmp_path / "a.png", 512, 256, model="tiny")
    assert open_gallery(tmp_path, Settings()).montages[0].settings == {"model": "tiny"}


def test_the_window_comes_from_settings_images_or_the_default(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 512, 256, model="tiny")
    assert open_gallery(tmp_path, Settings()).window == 256
    assert open_gallery(tmp_path, Settings(window=128)).window == 128
    save(tmp_path / "a.png", 1024, 512, model="sd15")
    assert open_gallery(tmp_path, Settings()).window == 512
    save(tmp_path / "b.png", 1024, 512)
    with pytest.raises(InputError, match="different windows"):
        open_gallery(tmp_path, Settings())
    save(tmp_path / "b.png", 1024, 512, model="someone/unheard-of")
    with pytest.raises(InputError, match="--window"):
        open_gallery(tmp_path, Settings())


def test_bad_folders_give_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        open_gallery(tmp_path / "none", Settings())
    with pytest.raises(InputError, match="holds no images"):
        open_gallery(tmp_path, Settings())
    save(tmp_path / "a.png", 63, 32)
    with pytest.raises(InputError, match="holds 1 of the 2 windows of 32 px") as caught:
        open_gallery(tmp_path, Settings(window=32))
    assert "\n" not in str(caught.value)
    assert len(open_gallery(tmp_path, Settings(window=32, groups=("seams",))).montages) == 1
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(InputError, match="holds no image that can be read"):
        open_gallery(tmp_path, Settings(window=32))


def test_objectives_that_sync_optimised_are_known(tmp_path: Path) -> None:
    save(tmp_path / "a.png", sync_weight=10.0, sync_steps=5, objective="stlpips", model="tiny")
    save(tmp_path / "b.png", sync_weight=0.0, sync_steps=5, objective="lpips", model="tiny")
    assert open_gallery(tmp_path, Settings(window=32)).optimised == {"stlpips"}


@pytest.mark.parametrize("bad", [{"window": 2}, {"groups": ("taste",)}, {"groups": ()}, {"draws": 0}, {"stride": 0}])
def test_settings_out_of_range_are_rejected(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings(**bad)
    with pytest.raises(ConfigError, match="one each"):
        Settings(controls=("depth", "canny"), detectors=("tiny",))
